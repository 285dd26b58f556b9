"""Several clusters in one aggregator, and what their plug-ins' own policies are known by."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.cluster.clusters import Clusters
from aggregator.cluster.foreign import kind_of, parse_extra
from aggregator.cluster.manifests import ManifestSource
from aggregator.errors import ConfigurationError
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy
from aggregator.model.networkpolicy import LabelSelector
from aggregator.model.protocol import Direction
from aggregator.model.resolution import Refused, Resolved
from tests.unit.cluster import objects
from tests.unit.cluster.test_resolve import NOON, flow


def source(path: Path, cluster: str, server: str) -> ManifestSource:
    folder = path / cluster
    folder.mkdir()
    pods = [
        objects.pod("web-1-a", ip="10.244.1.5"),
        objects.pod(server, ip="10.244.2.6"),
        objects.node("node-1", "192.168.0.1", "10.244.0.0/16"),
        objects.service_cidr(),
    ]
    (folder / "all.yaml").write_text(yaml.safe_dump_all(pods))
    found = ManifestSource(folder, cluster=cluster)
    found.load()
    return found


def test_the_same_address_in_two_clusters_is_two_pods(tmp_path: Path) -> None:
    clusters = Clusters([source(tmp_path, "east", "one"), source(tmp_path, "west", "two")])
    for name, server in (("east", "one"), ("west", "two")):
        answer = clusters.resolver.resolve(flow("10.244.2.6", cluster=name), NOON)
        assert isinstance(answer, Resolved)
        assert (answer.link.dst.cluster, answer.dst_pod) == (name, f"shop/{server}")
    assert clusters.resolver.resolve(flow("10.244.2.6", cluster="north"), NOON) == Refused(reason="unknown-cluster")


def test_a_change_of_one_cluster_is_a_new_generation(tmp_path: Path) -> None:
    east, west = source(tmp_path, "east", "one"), source(tmp_path, "west", "two")
    resolver = Clusters([east, west]).resolver
    before = resolver.generation
    west.view.apply("Pod", objects.pod("more", ip="10.244.2.9"), at=1)
    assert resolver.generation > before


def test_a_name_is_given_once(tmp_path: Path) -> None:
    east = source(tmp_path, "east", "one")
    with pytest.raises(ConfigurationError, match="configured twice"):
        Clusters([east, east])


def test_calicos_network_policy_is_not_kubernetes_own() -> None:
    assert kind_of({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy"}) == "CalicoNetworkPolicy"
    assert kind_of({"apiVersion": "crd.antrea.io/v1beta1", "kind": "NetworkPolicy"}) == "AntreaNetworkPolicy"
    assert kind_of({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}) == "NetworkPolicy"
    admin = {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy"}
    assert kind_of(admin) == "ClusterNetworkPolicy"


@pytest.mark.parametrize(
    ("kind", "spec", "selector", "directions"),
    [
        (
            "CiliumNetworkPolicy",
            {"endpointSelector": {"matchLabels": {"k8s:app": "web", "any:tier": "front"}}, "ingress": [{}]},
            LabelSelector(match_labels=(("app", "web"), ("tier", "front"))),
            {Direction.INGRESS},
        ),
        ("CiliumNetworkPolicy", {"endpointSelector": {}, "egressDeny": [{}]}, LabelSelector(), {Direction.EGRESS}),
        (
            "CiliumClusterwideNetworkPolicy",
            {"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "shop"}}, "egress": []},
            None,
            {Direction.EGRESS},
        ),
        ("CiliumNetworkPolicy", {"nodeSelector": {}}, None, set(Direction)),
        ("CalicoNetworkPolicy", {"selector": "app == 'web'", "types": ["Ingress"]}, None, {Direction.INGRESS}),
        ("GlobalNetworkPolicy", {"selector": "all()", "egress": []}, LabelSelector(), {Direction.EGRESS}),
        ("GlobalNetworkPolicy", {}, LabelSelector(), set(Direction)),
        ("AntreaNetworkPolicy", {"appliedTo": [{"podSelector": {}}], "ingress": []}, None, set(Direction)),
    ],
)
def test_a_plug_ins_policy_is_what_it_may_touch(
    kind: str, spec: dict[str, Any], selector: LabelSelector | None, directions: set[Direction]
) -> None:
    found = parse_extra(kind, {"kind": kind, "metadata": {"name": "p", "namespace": "shop"}, "spec": spec})
    assert isinstance(found, ForeignPolicy)
    assert found.pod_selector == selector
    assert found.directions == directions


def test_several_specs_may_select_any_pod() -> None:
    specs = [{"endpointSelector": {"matchLabels": {"a": "b"}}, "ingress": []}, {"endpointSelector": {}, "egress": []}]
    found = parse_extra("CiliumNetworkPolicy", {"metadata": {"name": "p", "namespace": "n"}, "specs": specs})
    assert isinstance(found, ForeignPolicy)
    assert (found.pod_selector, found.directions) == (None, frozenset(Direction))


def test_an_admin_policy_is_in_the_snapshot(tmp_path: Path) -> None:
    east = source(tmp_path, "east", "one")
    raw = {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {"priority": 5, "subject": {"namespaces": {}}},
    }
    east.view.apply("AdminNetworkPolicy", raw, at=1)
    (found,) = east.snapshot.extra_policies
    assert isinstance(found, AdminPolicy)
    east.view.remove("AdminNetworkPolicy", "", "p", at=2)
    assert east.snapshot.extra_policies == ()
