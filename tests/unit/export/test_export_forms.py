"""Exports: what is written, and that the proof catches what another plug-in takes otherwise."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from aggregator.cluster.scenario import Scenario, scenario_of
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.export import admin, proof
from aggregator.policy.export.admin import BASELINE_POLICY, export_admin
from aggregator.policy.export.calico import export_calico
from aggregator.policy.export.calico_judge import CalicoJudge, selects
from aggregator.policy.export.cilium import export_cilium
from aggregator.policy.export.cilium_judge import CiliumJudge
from aggregator.policy.export.kustomize import export_kustomize
from aggregator.policy.export.proof import Export, compare
from aggregator.policy.export.text import read, write

if TYPE_CHECKING:
    from aggregator.model.networkpolicy import NetworkPolicy

PODS = """
- {namespace: shop, name: web, labels: {app: web}, ip: 10.0.0.1, ports: [{name: http, port: 8080}], nodeIP: 192.0.2.1}
- {namespace: shop, name: api, labels: {app: api}, ip: 10.0.0.2, ports: [{name: http, port: 9090}], nodeIP: 192.0.2.2}
- {namespace: pay, name: pay, labels: {app: pay}, ip: 10.0.0.4}
- namespace: kube-system
  name: coredns
  labels: {k8s-app: kube-dns}
  ip: 10.0.0.5
  ports: [{name: dns, port: 53, protocol: UDP}]
- {namespace: mon, name: agent, labels: {app: agent}, hostNetwork: true, nodeIP: 192.0.2.2}
"""
WEB_OUT = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [%s]}"


def page(*specs: str, **more: Any) -> Scenario:
    policies: list[dict[str, Any]] = [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"p{number}", "namespace": "shop", "labels": {"made": "here"}},
            "spec": yaml.safe_load(spec),
        }
        for number, spec in enumerate(specs)
    ]
    namespaces = [{"name": "pay", "labels": {"team": "money"}}]
    return scenario_of(
        {"name": "t", "pods": yaml.safe_load(PODS), "policies": policies, "namespaces": namespaces} | more
    )


def objects(export: Export) -> list[Any]:
    return [obj for file in export.files for obj in read(file.text)]


def spec_of(export: Export) -> Any:
    return objects(export)[-1]["spec"]


# ---- text


def test_text_is_read_back_as_it_was() -> None:
    value = {"a": [{"on": "1e3", "b": []}, "x", {}, 5], "k/l": {"t": True, "f": False, "e": {}}, "y": "no"}
    assert read(write([value, {"z": 1}])) == (value, {"z": 1})


# ---- Cilium


def test_cilium_has_entities_for_nodes_the_api_server_and_everyone() -> None:
    scenario = page(
        WEB_OUT % "{to: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: 198.51.100.1/32}}]}, {ports: [{port: 443}]}",
        endpoints={"default/kubernetes": ["198.51.100.1:6443"]},
    )
    made = export_cilium(scenario.cluster.policies, scenario.cluster)
    assert spec_of(made)["egress"] == [
        {"toEntities": ["host", "remote-node", "kube-apiserver"]},
        {"toCIDRSet": [{"cidr": "192.0.2.0/24"}]},
        {"toEntities": ["all"], "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}]},
    ]
    assert made.certified
    assert made.label.startswith("certified: ")
    assert any("ipBlock" in note for note in made.notes)


def test_cilium_cannot_say_one_node_and_the_proof_tells() -> None:
    scenario = page(WEB_OUT % "{to: [{ipBlock: {cidr: 192.0.2.2/32}}]}", nodes=[{"name": "n3", "ip": "192.0.2.3"}])
    made = export_cilium(scenario.cluster.policies, scenario.cluster)
    assert not made.certified
    assert made.label.startswith("not certified: egress shop/Pod/web -> nodes")
    assert made.differences[0].endswith("the policies allow it, the export denies it")


def test_cilium_takes_names_where_they_are_known() -> None:
    scenario = page(
        WEB_OUT % "{to: [{ipBlock: {cidr: 203.0.113.7/32}}, {ipBlock: {cidr: 203.0.113.8/32}}], ports: [{port: 443}]}"
        ", {to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}"
    )
    names = {ip_address("203.0.113.7"): ("api.example.org", "www.example.org")}
    made = export_cilium(scenario.cluster.policies, scenario.cluster, names=names)
    rules = spec_of(made)["egress"]
    assert {"toFQDNs": [{"matchName": "api.example.org"}, {"matchName": "www.example.org"}]}.items() <= rules[1].items()
    assert rules[0]["toCIDRSet"] == [{"cidr": "203.0.113.8/32"}]
    assert rules[2] == {
        "toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}}],
        "toPorts": [
            {
                "ports": [{"port": "53", "protocol": "TCP"}, {"port": "53", "protocol": "UDP"}],
                "rules": {"dns": [{"matchPattern": "*"}]},
            }
        ],
    }
    assert made.certified
    assert any("toFQDNs" in note for note in made.notes)


def test_cilium_selects_namespaces_by_their_labels() -> None:
    peers = (
        "{namespaceSelector: {matchLabels: {team: money}}, podSelector: {matchExpressions: [{key: app, operator: NotIn,"
        " values: [x]}, {key: y, operator: DoesNotExist}]}},"
        " {namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}},"
        " {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: pay}}}, {podSelector: {}}, {}"
    )
    scenario = page(WEB_OUT % f"{{to: [{peers}], ports: [{{port: http}}, {{protocol: UDP}}, {{port: 1, endPort: 9}}]}}")
    made = export_cilium(scenario.cluster.policies, scenario.cluster)
    (rule,) = spec_of(made)["egress"]
    namespace = "k8s:io.kubernetes.pod.namespace"
    assert rule["toEndpoints"] == [
        {
            "matchLabels": {"k8s:io.cilium.k8s.namespace.labels.team": "money"},
            "matchExpressions": [
                {"key": "k8s:app", "operator": "NotIn", "values": ["x"]},
                {"key": "k8s:y", "operator": "DoesNotExist"},
                {"key": namespace, "operator": "Exists"},
            ],
        },
        {
            "matchExpressions": [
                {"key": namespace, "operator": "Exists"},
                {"key": "k8s:io.cilium.k8s.namespace.labels.team", "operator": "Exists"},
            ]
        },
        {"matchLabels": {namespace: "pay"}},
        {},
    ]
    assert rule["toPorts"] == [
        {
            "ports": [
                {"port": "http", "protocol": "TCP"},
                {"port": "0", "protocol": "UDP"},
                {"port": "1", "endPort": 9, "protocol": "TCP"},
            ]
        }
    ]
    assert made.certified


def test_cilium_takes_forty_ports_at_a_time() -> None:
    ports = ", ".join(f"{{port: {n}}}" for n in range(1, 96, 2))
    scenario = page(f"{{podSelector: {{}}, ingress: [{{ports: [{ports}]}}, {{from: [{{}}]}}]}}")
    made = export_cilium(scenario.cluster.policies, scenario.cluster)
    assert [len(group["ports"]) for group in spec_of(made)["ingress"][0]["toPorts"]] == [40, 8]
    assert made.certified


def test_isolated_and_nothing_allowed_is_one_empty_rule() -> None:
    scenario = page("{podSelector: {}, policyTypes: [Ingress, Egress]}")
    made = export_cilium(scenario.cluster.policies, scenario.cluster)
    assert spec_of(made) == {"endpointSelector": {}, "ingress": [{}], "egress": [{}]}
    assert made.certified


@pytest.mark.parametrize(
    "rule", [{"toServices": []}, {"toEndpoints": [{}], "toEntities": ["all"]}, {"toEntities": ["world"]}]
)
def test_what_the_cilium_judge_does_not_know_it_refuses(rule: dict[str, Any]) -> None:
    scenario = page()
    obj = {"metadata": {"namespace": "shop"}, "spec": {"endpointSelector": {}, "egress": [rule]}}
    judge = CiliumJudge([obj], scenario.cluster, {})
    with pytest.raises(ValueError, match="not part of the judged subset"):
        judge.allows(Direction.EGRESS, scenario.pods["shop/web"], ip_address("1.1.1.1"), Protocol.TCP, 1)


# ---- Calico


def test_calico_has_one_peer_and_one_protocol_a_rule() -> None:
    scenario = page(
        WEB_OUT % "{to: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [api]}, {key: x, operator:"
        " DoesNotExist}]}}, {namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}}, {ipBlock: {cidr:"
        " 203.0.113.0/24, except: [203.0.113.128/25]}}], ports: [{port: 80}, {port: 8000, endPort: 8100}, {port: http},"
        " {protocol: UDP}]}"
    )
    made = export_calico(scenario.cluster.policies, scenario.cluster)
    assert spec_of(made)["selector"] == "app == 'web'"
    rules = spec_of(made)["egress"]
    assert [(r["protocol"], r["destination"]) for r in rules[:3]] == [
        ("TCP", {"selector": "app in {'api'} && !has(x)", "ports": [80, "8000:8100", "http"]}),
        ("UDP", {"selector": "app in {'api'} && !has(x)"}),
        ("TCP", {"selector": "all()", "namespaceSelector": "has(team)", "ports": [80, "8000:8100", "http"]}),
    ]
    assert rules[4]["destination"] == {
        "nets": ["203.0.113.0/24"],
        "notNets": ["203.0.113.128/25"],
        "ports": [80, "8000:8100", "http"],
    }
    assert made.certified


def test_calico_names_aliases_as_sets_and_tiers_of_their_own() -> None:
    scenario = page(
        WEB_OUT % "{to: [{ipBlock: {cidr: 203.0.113.7/32}}, {ipBlock: {cidr: 203.0.113.9/32}}, {ipBlock: {cidr:"
        " 198.51.100.0/24}}]}",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{}]}]}",
    )
    networks = [ip_network("203.0.113.7/32"), ip_network("203.0.113.9/32")]
    aliases = {"bank": networks, "unused": [ip_network("8.8.8.8/32")], "empty": []}
    made = export_calico(scenario.cluster.policies, scenario.cluster, tier="wattle", order=7, aliases=aliases)
    tier, bank, web, everyone = objects(made)
    assert (tier["kind"], tier["metadata"]["name"]) == ("Tier", "wattle")
    assert (bank["kind"], bank["spec"]) == ("GlobalNetworkSet", {"nets": ["203.0.113.7/32", "203.0.113.9/32"]})
    assert web["metadata"]["name"] == "wattle.p0"
    assert (web["spec"]["tier"], web["spec"]["order"]) == ("wattle", 7)
    assert [rule["destination"] for rule in web["spec"]["egress"]] == [
        {"selector": "wattle-alias == 'bank'", "namespaceSelector": "global()"},
        {"nets": ["198.51.100.0/24"]},
    ]
    assert everyone["spec"]["ingress"] == []
    assert made.certified
    assert any("tier wattle" in note for note in made.notes)


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("all()", {}, True),
        ("a == 'b'", {"a": "b"}, True),
        ("a != 'b'", {}, True),
        ("a not in {'b', 'c'}", {}, True),
        ("a not in {'b', 'c'}", {"a": "c"}, False),
        ("a in {'b'} && has(x/y)", {"a": "b", "x/y": ""}, True),
        ("!has(a)", {"a": ""}, False),
        ("! has(a)", {}, True),
    ],
)
def test_calico_selectors_are_read(selector: str, labels: dict[str, str], *, expected: bool) -> None:
    assert selects(selector, labels) is expected


def test_what_the_calico_judge_does_not_know_it_refuses() -> None:
    scenario = page()
    web, far = scenario.pods["shop/web"], ip_address("1.1.1.1")
    with pytest.raises(ValueError, match="not part of the judged subset: selector"):
        selects("a contains 'b'", {})
    with pytest.raises(ValueError, match=r"not part of the judged subset: .*Pod"):
        CalicoJudge([{"kind": "Pod", "spec": {}}], scenario.cluster)

    def policy(rule: dict[str, Any], tier: str = "default") -> dict[str, Any]:
        spec = {"tier": tier, "order": 1, "selector": "all()", "types": ["Egress"], "egress": [rule]}
        return {"kind": "NetworkPolicy", "metadata": {"name": tier, "namespace": "shop"}, "spec": spec}

    with pytest.raises(ValueError, match="several tiers"):
        CalicoJudge([policy({}), policy({}, "other")], scenario.cluster)
    for rule in ({"action": "Log"}, {"action": "Allow", "destination": {"domains": ["x"]}}):
        judge = CalicoJudge([policy(rule)], scenario.cluster)
        with pytest.raises(ValueError, match="not part of the judged subset"):
            judge.allows(Direction.EGRESS, web, far, Protocol.TCP, 1)
    denying = CalicoJudge([policy({"action": "Deny"})], scenario.cluster)
    assert not denying.allows(Direction.EGRESS, web, far, Protocol.TCP, 1)


def test_a_rule_for_everyone_and_a_policy_without_labels_are_short() -> None:
    scenario = page(
        "{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, api]}, {key: x, operator:"
        " NotIn, values: [y]}]}, ingress: [{}], policyTypes: [Ingress]}"
    )
    policies = [replace(policy, labels=()) for policy in scenario.cluster.policies]
    calico, cilium = export_calico(policies, scenario.cluster), export_cilium(policies, scenario.cluster)
    assert spec_of(calico)["ingress"] == [{"action": "Allow"}]
    assert spec_of(cilium)["ingress"] == [{"fromEntities": ["all"]}]
    for made in (calico, cilium):
        assert "labels" not in objects(made)[0]["metadata"]
        assert made.certified


def test_an_alias_is_a_set_in_ingress_too() -> None:
    scenario = page("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.7/32}}], ports: [{port: 80}]}]}")
    made = export_calico(scenario.cluster.policies, scenario.cluster, aliases={"bank": [ip_network("203.0.113.7/32")]})
    (rule,) = spec_of(made)["ingress"]
    assert rule["source"] == {"selector": "wattle-alias == 'bank'", "namespaceSelector": "global()"}
    assert made.certified


# ---- baselines


def test_a_closed_egress_is_a_baseline() -> None:
    scenario = page(
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: api}}}, {ipBlock:"
        " {cidr: 203.0.113.0/24}}, {namespaceSelector: {matchLabels: {team: money}}}, {}], ports: [{port: 80},"
        " {port: 1, endPort: 9}, {protocol: UDP}]}, {ports: [{port: 53, protocol: UDP}]}, {to: [{}]}]}"
    )
    made = export_admin(scenario.cluster.policies, scenario.cluster)
    spec = spec_of(made)
    assert (spec["tier"], spec["priority"]) == ("Baseline", 0)
    assert [rule["action"] for rule in spec["egress"]] == ["Accept", "Accept", "Deny"]
    assert spec["egress"][0]["protocols"] == [
        {"tcp": {"destinationPort": {"number": 80}}},
        {"tcp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
        {"udp": {}},
    ]
    assert made.certified
    older = export_admin(scenario.cluster.policies, scenario.cluster, kind=BASELINE_POLICY)
    assert objects(older)[0]["metadata"]["name"] == "default"
    assert spec_of(older)["egress"][0]["ports"] == [
        {"portNumber": {"protocol": "TCP", "port": 80}},
        {"portRange": {"protocol": "TCP", "start": 1, "end": 9}},
        {"portRange": {"protocol": "UDP", "start": 1, "end": 65535}},
    ]
    assert older.certified


def test_sources_outside_are_beyond_a_baseline_and_the_proof_tells() -> None:
    scenario = page(
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchExpressions: [{key:"
        " team, operator: Exists}, {key: env, operator: NotIn, values: [x]}]}, podSelector: {}}]}]}"
    )
    made = export_admin(scenario.cluster.policies, scenario.cluster)
    assert not made.certified
    assert made.differences[0].endswith("the policies deny it, the export allows it")
    assert "any other IPv4 address" in made.differences[0]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("{podSelector: {matchLabels: {app: web}}}", "whole namespace"),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}", "cannot be a source"),
        (
            "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/25]}}]}]}",
            "with exceptions",
        ),
        ("{podSelector: {}, ingress: [{ports: [{port: http}]}]}", "named port"),
    ],
)
def test_what_a_baseline_cannot_say_is_refused_by_name(spec: str, why: str) -> None:
    scenario = page(spec)
    for kind in ("ClusterNetworkPolicy", BASELINE_POLICY):
        made = export_admin(scenario.cluster.policies, scenario.cluster, kind=kind)
        assert not made.certified
        assert why in made.refused[0]
        assert made.label == f"not certified: {made.refused[0]}"


def test_there_are_only_so_many_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    deny = "{podSelector: {}, policyTypes: [Egress]}"
    scenario = page(deny, deny)
    made = export_admin(scenario.cluster.policies, scenario.cluster, kind=BASELINE_POLICY)
    assert "which is taken" in made.refused[0]
    first = scenario.cluster.policies[0]
    monkeypatch.setattr(admin, "_MAX_PRIORITY", 1)
    many = [replace(first, name=f"p{n}") for n in range(3)]
    assert export_admin(many, scenario.cluster).refused == ("shop/p2: there are only 2 priorities",)


# ---- kustomize and the proof itself


def test_kustomize_is_a_folder_of_the_same_policies() -> None:
    scenario = page("{podSelector: {}}", WEB_OUT % "{}")
    made = export_kustomize(scenario.cluster.policies, scenario.cluster)
    assert [file.path for file in made.files] == [
        "kustomization.yaml",
        "networkpolicy-shop-p0.yaml",
        "networkpolicy-shop-p1.yaml",
    ]
    assert made.certified
    (first, _) = scenario.cluster.policies
    assert export_kustomize([first, first], scenario.cluster).refused == ("two policies share a namespace and name",)


def test_nothing_checked_is_nothing_certified() -> None:
    assert Export(kind="x", files=(), checked=0).label == "not certified: nothing could be checked"


def test_too_much_to_check_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = page("{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}")
    policies: tuple[NetworkPolicy, ...] = scenario.cluster.policies
    whole, _ = compare(policies, scenario.cluster, lambda *_: False)
    monkeypatch.setattr(proof, "MAX_CHECKS", whole - 1)
    narrowed, _ = compare(policies, scenario.cluster, lambda *_: False)
    assert 0 < narrowed < whole  # the pods that nothing selects are left out first
    monkeypatch.setattr(proof, "MAX_CHECKS", 3)
    _, differences = compare(policies, scenario.cluster, lambda *_: True)
    assert differences[0] == "more than 3 connections: too many to check"
