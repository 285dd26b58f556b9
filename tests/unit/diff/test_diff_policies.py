"""What changes between two sets of policies, and the smallest rule that would open a connection."""

from typing import Any

import pytest
import yaml

from aggregator.cluster.scenario import Scenario, scenario_of
from aggregator.model.protocol import Protocol
from aggregator.policy.describing.native import peer_words
from aggregator.policy.describing.words import port_words
from aggregator.policy.diff import diff
from aggregator.policy.fix import minimal_fix
from aggregator.policy.manifest.render import to_object
from aggregator.policy.profiles.known import GENERIC
from aggregator.services.offline.judge import judge, traffic_of
from aggregator.services.offline.load import Offline

PODS = """
- {namespace: shop, name: web, labels: {app: web}, ip: 10.0.0.1, nodeIP: 192.0.2.1}
- {namespace: shop, name: api, labels: {app: api}, ip: 10.0.0.2}
- {namespace: pay, name: pay, labels: {app: pay}, ip: 10.0.0.4}
- {namespace: pay, name: bare, ip: 10.0.0.5}
- {namespace: mon, name: agent, labels: {app: agent}, hostNetwork: true, nodeIP: 192.0.2.2}
"""


def page(**specs: str) -> Scenario:
    policies: list[dict[str, Any]] = [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": yaml.safe_load(spec),
        }
        for name, spec in specs.items()
    ]
    return scenario_of({"name": "t", "pods": yaml.safe_load(PODS), "policies": policies})


API = "{podSelector: {matchLabels: {app: api}}, ingress: [%s]}"
FROM_WEB = "{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: 8000, endPort: 8080}]}"


def test_effect_and_text_are_two_things() -> None:
    before = page(api=API % FROM_WEB, old="{podSelector: {matchLabels: {app: web}}}")
    after = page(api=API % FROM_WEB.replace("8080", "9000"), new="{podSelector: {matchLabels: {app: web}}}")
    found = diff(before.cluster.policies, after.cluster.policies, after.cluster)
    assert (found.added, found.removed, found.changed) == (("shop/new",), ("shop/old",), ("shop/api",))
    assert [str(change) for change in found.opened] == ["shop/Pod/web -> shop/Pod/api TCP/8081-9000"]
    assert found.closed == ()
    assert not found.same_effect
    assert "-      endPort: 8080\n+      endPort: 9000\n" in found.text
    assert "--- before/shop/old" in found.text
    assert "+++ after/shop/new" in found.text


def test_another_spelling_has_the_same_effect() -> None:
    split = FROM_WEB.replace(", {port: 8000, endPort: 8080}", "")
    rest = FROM_WEB.replace("{port: 80}, ", "")
    before, after = page(api=API % FROM_WEB), page(api=API % f"{split}, {rest}")
    found = diff(before.cluster.policies, after.cluster.policies, after.cluster)
    assert found.same_effect
    assert not found.is_empty
    assert diff(before.cluster.policies, before.cluster.policies, before.cluster).is_empty


def test_isolation_that_comes_or_goes_is_seen_from_both_ends() -> None:
    nothing, closed = (
        page(),
        page(api=API % FROM_WEB, out="{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}"),
    )
    found = diff(nothing.cluster.policies, closed.cluster.policies, closed.cluster)
    words = {f"{change.src} -> {change.dst}" for change in found.closed}
    assert {"any other IPv4 address -> shop/Pod/api", "nodes -> shop/Pod/api", "shop/Pod/web -> nodes"} <= words
    assert "pay/Pod/pay -> shop/Pod/api TCP/1-65535" in map(str, found.closed)
    assert len({str(change) for change in found.closed}) == len(found.closed)
    assert diff(closed.cluster.policies, nothing.cluster.policies, closed.cluster).opened == found.closed


@pytest.mark.parametrize(
    ("src", "dst", "port", "fixes"),
    [
        ("shop/web", "shop/api", 81, ["shop/api Ingress pods with app=web of the namespace shop TCP 81"]),
        ("pay/pay", "shop/api", 80, ["shop/api Ingress pods with app=pay of the namespace pay TCP 80"]),
        ("203.0.113.9", "shop/api", 80, ["shop/api Ingress the address 203.0.113.9 TCP 80"]),
        ("mon/agent", "shop/api", 80, ["shop/api Ingress the address 192.0.2.2 TCP 80"]),
        ("pay/bare", "shop/api", 80, []),  # nothing selects it alone
        ("shop/web", "shop/api", 80, []),  # allowed
        (
            "shop/api",
            "shop/web",
            1,
            [
                "shop/out Egress pods with app=web of the namespace shop TCP 1",
                "shop/mute Ingress pods with app=api of the namespace shop TCP 1",
            ],
        ),
    ],
)
def test_the_smallest_rule_that_would_open_it(src: str, dst: str, port: int, fixes: list[str]) -> None:
    scenario = page(
        api=API % FROM_WEB,
        also="{podSelector: {matchLabels: {app: api}}}",
        out="{podSelector: {matchLabels: {app: api}}, policyTypes: [Egress]}",
        mute="{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}",
    )
    offline = Offline(name="t", file="", cluster=scenario.cluster, policies=scenario.policies, objects=())
    (judged,) = judge(offline, [traffic_of(src, dst, port, Protocol.TCP)], GENERIC)
    said = []
    for fix in judged.fixes:
        (peer,), (entry,) = fix.rule.peers, fix.rule.ports
        said.append(f"{fix.policy} {fix.direction.value} {peer_words(peer, 'shop')} {port_words(entry)}")
    assert said == fixes


def test_an_admin_deny_has_no_smallest_rule() -> None:
    scenario = page(api=API % "")
    admin = {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": "a"},
        "spec": {
            "priority": 1,
            "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        },
    }
    mixed = scenario_of(
        {
            "name": "t",
            "pods": yaml.safe_load(PODS),
            "policies": [admin, *(to_object(p) for p in scenario.cluster.policies)],
        }
    )
    offline = Offline(name="t", file="", cluster=mixed.cluster, policies=mixed.policies, objects=())
    (judged,) = judge(offline, [traffic_of("shop/web", "shop/api", 80, Protocol.TCP)], GENERIC)
    connection = mixed.connection(judged.traffic)
    assert minimal_fix(judged.explanation.ingress, connection, mixed.cluster) is None
    assert judged.fixes == ()
