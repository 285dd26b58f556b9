"""Findings on cluster-wide policies, and what is said of NetworkPolicies beside them."""

from typing import Any

import pytest

from aggregator.cluster.scenario import scenario_of
from aggregator.model.finding import Finding
from aggregator.policy.lint import lint
from aggregator.policy.lint.codes import Code

PODS = [
    {"namespace": "shop", "name": "web", "labels": {"app": "web"}, "owner": {"kind": "Deployment", "name": "web"}},
    {"namespace": "shop", "name": "db", "labels": {"app": "db"}, "owner": {"kind": "StatefulSet", "name": "db"}},
]
SHOP = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
EVERYWHERE: dict[str, Any] = {"namespaces": {}}


def admin(name: str, priority: int, *, subject: dict[str, Any] = SHOP, **rules: Any) -> dict[str, Any]:
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"priority": priority, "subject": subject, **rules},
    }


def baseline(**rules: Any) -> dict[str, Any]:
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "BaselineAdminNetworkPolicy",
        "metadata": {"name": "default"},
        "spec": {"subject": SHOP, **rules},
    }


def rule(action: str, peer: dict[str, Any], *ports: int) -> dict[str, Any]:
    said: dict[str, Any] = {"action": action, "from": [peer]}
    if ports:
        said["ports"] = [{"portNumber": {"protocol": "TCP", "port": port}} for port in ports]
    return said


def findings(*policies: dict[str, Any], code: Code) -> list[Finding]:
    scenario = scenario_of({"name": "t", "pods": PODS, "policies": list(policies)})
    return [f for f in lint(scenario.cluster.policies, scenario.cluster) if f.code is code]


def test_a_subject_that_no_pod_is() -> None:
    nowhere = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "shpo"}}}
    assert [f.subject for f in findings(admin("typo", 1, subject=nowhere), code=Code.UNUSED)] == [
        "AdminNetworkPolicy/typo"
    ]
    assert findings(admin("right", 1), code=Code.UNUSED) == []


def test_a_rule_that_an_earlier_one_always_answers() -> None:
    broad, narrow = rule("Pass", EVERYWHERE), rule("Deny", SHOP, 80)
    assert [f.subject for f in findings(admin("a", 1, ingress=[broad, narrow]), code=Code.SHADOWED_RULE)] == [
        "AdminNetworkPolicy/a:ingress:1"
    ]
    assert findings(admin("a", 1, ingress=[narrow, broad]), code=Code.SHADOWED_RULE) == []
    other_port = rule("Deny", SHOP, 81)
    assert findings(admin("a", 1, ingress=[narrow, other_port]), code=Code.SHADOWED_RULE) == []


TCP_80 = {"portNumber": {"protocol": "TCP", "port": 80}}
UDP_80 = {"portNumber": {"protocol": "UDP", "port": 80}}


def a_range(start: int, end: int) -> dict[str, Any]:
    return {"portRange": {"protocol": "TCP", "start": start, "end": end}}


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ({"namedPort": "http"}, {"namedPort": "http"}, True),
        ({"namedPort": "http"}, TCP_80, False),
        (UDP_80, TCP_80, False),
        (a_range(1, 99), TCP_80, True),
        (TCP_80, a_range(80, 81), False),
    ],
)
def test_a_rule_is_shadowed_by_its_ports_too(wide: dict[str, Any], narrow: dict[str, Any], covers: bool) -> None:
    rules = [rule("Pass", EVERYWHERE) | {"ports": [wide]}, rule("Deny", SHOP) | {"ports": [narrow]}]
    assert bool(findings(admin("a", 1, ingress=rules), code=Code.SHADOWED_RULE)) is covers


def test_a_protocol_without_ports_covers_its_ports_and_not_the_other_way_round() -> None:
    every: dict[str, Any] = {"protocols": [{"udp": {}}]}
    one: dict[str, Any] = {"protocols": [{"udp": {"destinationPort": {"number": 53}}}]}
    for first, then, covered in ((every, one, True), (one, every, False)):
        rules = [{"action": "Pass", "from": [EVERYWHERE], **first}, {"action": "Deny", "from": [SHOP], **then}]
        spec = {"tier": "Admin", "priority": 1, "subject": SHOP, "ingress": rules}
        kind = {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy"}
        found = findings({**kind, "metadata": {"name": "a"}, "spec": spec}, code=Code.SHADOWED_RULE)
        assert bool(found) is covered


def test_a_rule_whose_peers_no_pod_is() -> None:
    nobody = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "gone"}}}
    found = findings(admin("a", 1, ingress=[rule("Allow", nobody)]), code=Code.EMPTY_RULE)
    assert [f.subject for f in found] == ["AdminNetworkPolicy/a:ingress:0"]


def test_equal_priority_is_named_only_where_the_same_pods_are_selected() -> None:
    web = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}
    db = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}}
    allow, deny = [rule("Allow", EVERYWHERE)], [rule("Deny", EVERYWHERE)]
    both = findings(admin("a", 5, ingress=allow), admin("b", 5, subject=web, ingress=deny), code=Code.EQUAL_PRIORITY)
    assert [f.subject for f in both] == ["AdminNetworkPolicy/a and AdminNetworkPolicy/b"]
    assert "shop/web" in both[0].message
    apart = admin("a", 5, subject=db, ingress=allow), admin("b", 5, subject=web, ingress=deny)
    assert findings(*apart, code=Code.EQUAL_PRIORITY) == []
    assert findings(admin("a", 4, ingress=allow), admin("b", 5, ingress=deny), code=Code.EQUAL_PRIORITY) == []


def native(selector: dict[str, Any], *types: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": "shop"},
        "spec": {"podSelector": selector, "policyTypes": list(types)},
    }


def test_a_baseline_that_is_never_asked() -> None:
    allow = baseline(ingress=[rule("Allow", EVERYWHERE)])
    found = findings(allow, native({}, "Ingress"), code=Code.BASELINE_NEVER_ASKED)
    assert [f.subject for f in found] == ["BaselineAdminNetworkPolicy/default:ingress"]
    one_of_two = native({"matchLabels": {"app": "web"}}, "Ingress")
    assert findings(allow, one_of_two, code=Code.BASELINE_NEVER_ASKED) == []


def test_what_is_said_of_networkpolicies_alone_says_so() -> None:
    deny = native({}, "Egress")
    alone = findings(deny, code=Code.DNS_BLOCKED)
    beside = findings(deny, admin("a", 1, ingress=[rule("Allow", EVERYWHERE)]), code=Code.DNS_BLOCKED)
    assert [f.subject for f in alone] == [f.subject for f in beside]
    assert not any("cluster-wide" in f.message for f in alone)
    assert all("cluster-wide policies may decide otherwise" in f.message for f in beside)
    assert beside
