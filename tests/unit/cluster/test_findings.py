"""What a person should know before believing a verdict."""

from typing import Any

import pytest

from aggregator.cluster.cni import Enforcement, detected_profile, plugins
from aggregator.cluster.findings import ViewFindings, view_findings
from aggregator.cluster.view import ClusterView
from aggregator.model.decision import LabelDecision, LabelLists
from aggregator.policy.profiles.known import PROFILES
from tests.unit.cluster import objects


def view(*raws: dict[str, Any]) -> ClusterView:
    found = ClusterView("c")
    for raw in raws:
        found.apply(raw["kind"], raw, at=0)
    return found


def daemon_set(name: str, args: list[str] | None = None, env: dict[str, str] | None = None) -> dict[str, Any]:
    said = [{"name": name, "value": value} for name, value in (env or {}).items()]
    container = {"name": "c", "args": args or [], "env": said}
    return {
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}},
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    named = {key.replace("_", "-"): value for key, value in data.items()}
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": "kube-system"}, "data": named}


def codes(where: ClusterView, labels: LabelDecision | None = None) -> list[str]:
    return [finding.code for finding in view_findings(where, labels)]


@pytest.mark.parametrize(
    ("raws", "profile"),
    [
        ((daemon_set("calico-node"),), "calico"),
        ((daemon_set("canal"),), "calico"),
        ((daemon_set("cilium"),), "cilium"),
        ((daemon_set("cilium"), config_map("cilium-config", enable_policy="default")), "cilium"),
        ((daemon_set("aws-node", ["--enable-network-policy=true"]),), "aws-vpc-cni"),
        ((daemon_set("aws-node"), daemon_set("calico-node")), "calico"),
        ((daemon_set("kube-router", ["--run-firewall=true"]),), "kube-router"),
        ((daemon_set("ovnkube-node"),), "ovn-kubernetes"),
        ((daemon_set("weave-net"),), "weave"),
        ((daemon_set("antrea-agent"),), "antrea"),
        ((daemon_set("kube-flannel-ds"), daemon_set("kube-network-policies")), "generic"),
    ],
)
def test_the_plug_in_that_enforces_gives_the_profile(raws: tuple[Any, ...], profile: str) -> None:
    where = view(*raws)
    assert detected_profile(where) == profile
    assert profile in PROFILES
    assert "cni-not-enforcing" not in codes(where)


@pytest.mark.parametrize(
    ("raws", "enforcement", "words"),
    [
        ((daemon_set("kube-flannel-ds"),), Enforcement.NEVER, "flannel has no NetworkPolicies"),
        ((daemon_set("cilium"), config_map("cilium-config", enable_policy="never")), Enforcement.OFF, "never"),
        ((daemon_set("aws-node"),), Enforcement.OFF, "does not run with --enable-network-policy=true"),
        ((daemon_set("kube-router", ["--run-firewall=false"]),), Enforcement.OFF, "--run-firewall=false"),
        ((daemon_set("weave-net", env={"EXPECT_NPC": "0"}),), Enforcement.OFF, "EXPECT_NPC=0"),
    ],
)
def test_a_plug_in_that_does_not_enforce_is_said(raws: tuple[Any, ...], enforcement: Enforcement, words: str) -> None:
    where = view(*raws)
    assert [plugin.enforcement for plugin in plugins(where)] == [enforcement]
    assert detected_profile(where) is None
    finding = next(f for f in view_findings(where) if f.code == "cni-not-enforcing")
    assert words in finding.message
    assert finding.way_out


def test_a_plug_in_that_is_not_known_is_said_to_be_unknown() -> None:
    assert "cni-unknown" in codes(view(daemon_set("home-made-cni")))
    assert "cni-unknown" not in codes(view())


def namespace(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def test_a_namespace_that_cannot_be_named_is_said() -> None:
    named = namespace("a", {"kubernetes.io/metadata.name": "a"})
    assert "namespace-without-labels" not in codes(view(named))
    found = next(f for f in view_findings(view(namespace("b", {"team": "x"}))) if f.subject == "b")
    assert found.code == "namespace-without-labels"
    assert found.way_out == "kubectl label namespace b kubernetes.io/metadata.name=b"
    excluded = LabelDecision(namespace_labels=LabelLists(exclude=("kubernetes.io/*",)))
    assert "namespace-without-labels" in codes(view(named), excluded)


def test_workloads_that_no_selector_tells_apart_are_said() -> None:
    same = {"app": "x"}
    where = view(objects.pod("a", labels=same, ip="10.0.0.1"), objects.pod("b", labels=same, ip="10.0.0.2"))
    assert codes(where).count("workload-not-separable") == 2
    apart = view(objects.pod("a", labels=same), objects.pod("b", labels={"app": "y"}))
    assert "workload-not-separable" not in codes(apart)
    on_host = view(objects.pod("a", host_network=True))
    assert "workload-not-separable" not in codes(on_host)


def test_findings_are_worked_out_anew_when_the_view_changes() -> None:
    where = view(namespace("b", {}))
    findings = ViewFindings(where)
    first = findings.now()
    assert findings.now() is first
    where.apply("Namespace", namespace("b", {"kubernetes.io/metadata.name": "b"}), at=1)
    assert [f for f in findings.now() if f.subject == "b"] == []
