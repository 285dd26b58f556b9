"""Network plug-ins as their own projects install them: names, images, arguments and ConfigMaps of each, and what is
said of them. Each page names the manifest that its facts were read in.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.cluster.cni import Enforcement, detected_profile, plugins
from aggregator.cluster.findings import view_findings
from aggregator.cluster.manifests import ManifestSource
from aggregator.cluster.view import ClusterView
from aggregator.policy.profiles.known import PROFILES
from tests.unit.cluster import objects

MANIFESTS = sorted((Path(__file__).parent / "plugins").glob("*.yaml"))


def view_of(manifest: Path) -> ClusterView:
    source = ManifestSource(manifest)
    source.load()
    return source.view


def expectation(manifest: Path) -> dict[str, Any]:
    first: dict[str, Any] = next(yaml.safe_load_all(manifest.read_text(encoding="utf-8")))
    assert first["source"], "say where the facts are from"
    found: dict[str, Any] = first["expect"]
    return found


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.stem)
def test_a_plug_in_is_known_by_what_its_project_installs(manifest: Path) -> None:
    expected, view = expectation(manifest), view_of(manifest)
    codes = {finding.code: finding for finding in view_findings(view)}
    found = plugins(view)
    if not expected.get("name"):
        assert found == ()
        assert "cni-unknown" in codes
        return
    first = found[0]
    assert (first.name, first.enforcement.value) == (expected["name"], expected["enforcement"])
    match first.enforcement:
        case Enforcement.ON:
            assert detected_profile(view) == expected["profile"]
            assert first.profile in PROFILES
            assert not codes.keys() & {"cni-not-enforcing", "cni-unknown"}
        case Enforcement.UNKNOWN:
            assert detected_profile(view) is None
            assert expected["words"] in codes["cni-unknown"].message
        case Enforcement.OFF | Enforcement.NEVER:
            assert detected_profile(view) is None
            assert expected["words"] in codes["cni-not-enforcing"].message
            assert codes["cni-not-enforcing"].way_out


def test_every_plug_in_that_is_asked_for_has_a_page() -> None:
    asked = {
        "Calico", "Cilium", "Amazon VPC CNI", "kube-router", "OVN-Kubernetes", "Weave Net", "Antrea", "flannel",
        "kindnet", "kube-network-policies",
    }  # fmt: skip
    assert asked <= {str(expectation(manifest).get("name")) for manifest in MANIFESTS}


def test_settings_that_cannot_be_seen_are_not_guessed() -> None:
    """Pods of the DaemonSet are known, the DaemonSet is not: nothing says how it was started."""
    owner = objects.owned_by("DaemonSet", "aws-node")
    view = ClusterView("c")
    view.apply("Pod", objects.pod("aws-node-x", namespace="kube-system", owner=owner), at=0)
    assert [plugin.enforcement for plugin in plugins(view)] == [Enforcement.UNKNOWN]
    assert "is not in the view" in next(f for f in view_findings(view) if f.code == "cni-unknown").message
