"""Flows of a page as Links: addresses by time, Services, replies, what cannot be known; and plug-ins' own policies."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.cluster.scenario import scenario_of
from aggregator.errors import InputError
from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.model.link import ObservedLink, Side
from aggregator.model.networkpolicy import LabelSelector
from aggregator.model.protocol import Direction
from aggregator.services.offline.flows import ResolvedFlows, resolve_flows
from aggregator.services.offline.foreign import foreign_policy
from aggregator.services.offline.load import load

PODS = """
- {namespace: a, name: web-1, labels: {app: web}, ip: 10.0.0.1, nodeIP: 192.0.2.1, owner: {kind: Deployment, name: web}}
- namespace: a
  name: v1
  labels: {app: api, v: '1'}
  ip: 10.0.0.2
  ports: [{name: http, port: 8080}]
  owner: {kind: Job, name: v1}
- {namespace: a, name: v2, labels: {app: api, v: '2'}, ip: 10.0.0.3, ports: [{name: http, port: 9090}]}
- {namespace: a, name: old, labels: {app: old}, ip: 10.0.0.9, from: 0, to: 100}
- {namespace: a, name: new, labels: {app: new}, ip: 10.0.0.9, from: 200}
- {namespace: a, name: soon, labels: {app: soon}, ip: 10.0.0.8, future: true}
- {namespace: mon, name: agent, labels: {app: agent}, hostNetwork: true, nodeIP: 192.0.2.1}
"""
SERVICES = """
- {namespace: a, name: api, clusterIP: 10.96.0.5, selector: {app: api}, ports: [{port: 80, targetPort: http}]}
- {namespace: a, name: one, clusterIP: 10.96.0.6, selector: {v: '1'}, ports: [{name: w, port: 80, targetPort: 8080}]}
"""


def resolved(*flows: str, **more: Any) -> ResolvedFlows:
    page = {
        "name": "t",
        "pods": yaml.safe_load(PODS),
        "services": yaml.safe_load(SERVICES),
        "pod_cidrs": ["10.0.0.0/16"],
        "service_cidrs": ["10.96.0.0/12"],
        "flows": [yaml.safe_load(f"{{protocol: TCP, {flow}}}") for flow in flows],
    }
    return resolve_flows(scenario_of(page | more))


def links(found: ResolvedFlows) -> list[str]:
    return [str(observed.link) for observed in found.links]


def codes(found: ResolvedFlows) -> list[str]:
    return [finding.code for finding in found.findings]


def single(found: ResolvedFlows) -> ObservedLink:
    (observed,) = found.links
    return observed


def test_a_service_is_the_pods_behind_it() -> None:
    observed = single(
        resolved("from: a/web-1, to: 'ip:10.96.0.6', port: 80, origin: connect(), process: curl, count: 3")
    )
    assert str(observed.link) == "a/Deployment/web -> a/Job/v1 TCP/8080"
    evidence = observed.evidence
    assert (evidence.services, evidence.processes, evidence.connections) == (("a/one:80",), ("curl",), 3)
    assert evidence.dst_pods == ("a/v1",)


def test_a_service_with_several_workloads_may_have_sent_it_to_each() -> None:
    found = resolved("from: a/web-1, to: 'ip:10.96.0.5', port: 80")
    assert links(found) == ["a/Deployment/web -> a/Job/v1 TCP/8080", "a/Deployment/web -> a/Pod/v2 TCP/9090"]
    assert all(observed.evidence.services == ("a/api:80",) for observed in found.links)
    assert codes(found) == ["service-fan-out"]


def test_an_address_belongs_to_whom_it_belonged_then() -> None:
    at = "from: 'ip:10.0.0.9', to: a/v1, port: 8080, ts: %d"
    assert links(resolved(at % 50)) == ["a/Pod/old -> a/Job/v1 TCP/8080"]
    assert links(resolved(at % 250)) == ["a/Pod/new -> a/Job/v1 TCP/8080"]
    assert links(resolved(at % 150)) == ["10.0.0.9 -> a/Job/v1 TCP/8080"]  # nobody's
    assert links(resolved("from: 'ip:10.0.0.8', to: a/v1, port: 8080")) == ["10.0.0.8 -> a/Job/v1 TCP/8080"]


def test_what_the_page_says_of_an_address_is_all_there_is() -> None:
    history = [{"ip": "10.0.0.2", "pod": "a/web-1", "from": 0, "to": 10}, {"ip": "10.0.0.2", "pod": None, "from": 10}]
    at = "from: 'ip:10.0.0.2', to: a/v2, port: 9090, ts: %d"
    assert links(resolved(at % 5, ip_history=history)) == ["a/Deployment/web -> a/Pod/v2 TCP/9090"]
    assert links(resolved(at % 500, ip_history=history)) == ["10.0.0.2 -> a/Pod/v2 TCP/9090"]
    ever = [{"ip": "10.0.0.2", "pod": "a/web-1"}]
    assert links(resolved(at % 500, ip_history=ever)) == ["a/Deployment/web -> a/Pod/v2 TCP/9090"]


def test_pods_on_the_hosts_network_are_nodes_and_probes_are_told() -> None:
    probe = single(resolved("from: mon/agent, to: a/web-1, port: 80"))
    assert str(probe.link) == "nodes -> a/Deployment/web TCP/80"
    assert probe.evidence.same_node_probe
    assert not single(resolved("from: mon/agent, to: a/v1, port: 80")).evidence.same_node_probe
    by_address = single(resolved("from: 'ip:192.0.2.1', to: a/web-1, port: 80"))
    assert by_address.evidence.same_node_probe


def test_attempts_and_denied_flows_are_not_established() -> None:
    found = resolved(
        "from: a/web-1, to: a/v1, port: 1, result: refused",
        "from: a/web-1, to: a/v1, port: 2, verdict: dropped-by-policy",
        "from: a/web-1, to: a/v1, port: 3, ts: 7, origin: accept()",
        "from: a/web-1, to: a/v1, port: 3, ts: 9, result: syn-only",
    )
    assert [(o.established, o.evidence.failed_attempts) for o in found.links] == [(False, 1), (False, 1), (True, 1)]
    evidence = found.links[2].evidence
    assert evidence.first_seen is not None
    assert evidence.last_seen is not None
    assert (evidence.last_seen - evidence.first_seen).total_seconds() == 2
    assert Side.SERVER in evidence.sides


def test_a_reply_is_turned_round_or_left_out() -> None:
    turned = resolved("from: a/v1, to: a/web-1, port: 40000")
    assert links(turned) == ["a/Deployment/web -> a/Job/v1 TCP/8080"]
    assert codes(turned) == ["direction-inferred"]
    both = resolved("from: a/web-1, to: a/v1, port: 8080", "from: a/v1, to: a/web-1, port: 40000")
    assert links(both) == ["a/Deployment/web -> a/Job/v1 TCP/8080"]
    assert codes(both) == ["reply-left-out"]
    for seen in (
        ("from: a/v1, to: a/web-1, port: 40000, origin: connect()",),
        ("from: a/v1, to: a/web-1, port: 40000, protocol: UDP",),  # v1 serves nothing over UDP
        ("from: a/v1, to: a/web-1, port: 80", "from: a/v1, to: a/web-1, port: 40000"),  # v1 is a client of web
    ):
        assert "a/Job/v1 -> a/Deployment/web" in links(resolved(*seen))[-1]


def test_what_no_policy_is_about_is_said() -> None:
    found = resolved(
        "from: 'ip:1.1.1.1', to: 'ip:2.2.2.2', port: 1",
        "from: a/gone, to: a/v1, port: 1",
        "from: a/web-1, to: 'ip:127.0.0.1', port: 1",
    )
    assert found.links == ()
    assert codes(found) == ["flow-without-pod", "flow-of-unknown-pod", "flow-refused"]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"flows": [{"from": "a/v1", "to": "a/v2", "port": 1, "protocol": "TCP", "ts": 1e300}]}, "flows[0].ts"),
        ({"ip_history": [{"ip": "10.0.0.1", "pod": None, "from": -1}]}, "ip_history[0]"),
        ({"pods": [{"namespace": "a", "name": "p", "from": float("nan")}]}, "pods: a/p"),
    ],
)
def test_a_time_beyond_the_calendar_is_refused(more: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match="is no time") as refused:
        resolved(**more)
    assert refused.value.field == field


# ---- manifests


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"apiVersion": "v1", "kind": "Pod"}, None),
        ({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}}, None),
        (
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": "p", "namespace": "a"},
                "spec": {"endpointSelector": {"matchLabels": {"app": "x"}}, "egressDeny": []},
            },
            ForeignPolicy(
                kind="CiliumNetworkPolicy",
                name="p",
                namespace="a",
                pod_selector=LabelSelector(match_labels=(("app", "x"),)),
                directions=frozenset({Direction.EGRESS}),
            ),
        ),
        (
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumClusterwideNetworkPolicy",
                "metadata": {"name": "p"},
                "spec": {"endpointSelector": {"matchLabels": {"k8s:app": "x"}}, "ingress": [{}], "egress": [{}]},
            },
            ForeignPolicy(
                kind="CiliumClusterwideNetworkPolicy",
                name="p",
                pod_selector=LabelSelector(match_labels=(("app", "x"),)),
            ),
        ),
        (
            {
                "apiVersion": "projectcalico.org/v3",
                "kind": "NetworkPolicy",
                "metadata": {"name": "p", "namespace": "a"},
                "spec": {"types": ["Ingress"], "selector": "app == 'x'"},
            },
            ForeignPolicy(
                kind="CalicoNetworkPolicy", name="p", namespace="a", directions=frozenset({Direction.INGRESS})
            ),
        ),
        (
            {"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": "p"}},
            ForeignPolicy(kind="GlobalNetworkPolicy", name="p", pod_selector=LabelSelector()),
        ),
        (
            {"apiVersion": "crd.antrea.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "p"}},
            ForeignPolicy(kind="AntreaClusterNetworkPolicy", name="p"),
        ),
    ],
)
def test_a_plugins_own_policy_is_known_to_be_there(obj: dict[str, Any], expected: ForeignPolicy | None) -> None:
    assert foreign_policy(obj) == expected


def test_a_plugins_policy_that_makes_no_sense_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "cilium.yaml"
    path.write_text("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {}\nspec: {}\n")
    with pytest.raises(InputError, match=r"cilium.yaml, document 1: is no CiliumNetworkPolicy that can be read"):
        load(path)


def test_a_folder_keeps_every_kind_of_policy_apart(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(
        """
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: a, labels: {app: x}}
---
just: data
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: admin}
spec: {priority: 1, subject: {namespaces: {}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicyList
items: [{metadata: {name: one}, spec: {podSelector: {}}}, 5]
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: calico}
"""
    )
    (tmp_path / ".hidden.yaml").write_text("{broken")
    (tmp_path / "notes.txt").write_text("words")
    (found,) = load(tmp_path)
    assert [str(p) for p in found.policies] == ["AdminNetworkPolicy/admin", "default/one", "GlobalNetworkPolicy/calico"]
    assert [str(p) for p in found.cluster.policies] == ["default/one"]
    assert len(found.cluster.extra_policies) == 2
    assert len(found.objects) == 1
    assert [str(p) for p in found.cluster.pods] == ["a/p"]


def test_one_file_of_manifests_and_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n")
    assert [str(p) for p in load(tmp_path / "pod.yaml")[0].cluster.pods] == ["default/p"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no file ending in"):
        load(empty)
