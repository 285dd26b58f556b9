"""Findings one by one, each on the smallest cluster that shows it and on one that does not."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml

from aggregator.cluster.scenario import Scenario, scenario_of
from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.model.cluster import ClusterSnapshot, Node, Pod, WorkloadRecord
from aggregator.model.finding import Finding
from aggregator.model.link import Link
from aggregator.model.networkpolicy import LabelSelector
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.workload import Workload
from aggregator.policy.lint import lint, verdict_table
from aggregator.policy.lint.broad import broad_rules
from aggregator.policy.lint.nearest import edit_distance
from aggregator.policy.lint.profile import check_profile
from aggregator.policy.lint.raw import check_object
from aggregator.policy.lint.summary import SUMMARY_KEYS, summary
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Answer

PODS = """
- {namespace: shop, name: web, labels: {app: web}, ip: 10.0.0.1, ports: [{name: http, port: 8080}]}
- {namespace: shop, name: api, labels: {app: api}, ip: 10.0.0.2, ports: [{name: grpc, port: 9090}]}
- {namespace: shop, name: job, labels: {app: job}, ip: 10.0.0.3}
- {namespace: pay, name: pay, labels: {app: pay}, ip: 10.0.0.4, ports: [{port: 7000, protocol: UDP}]}
- {namespace: mon, name: agent, labels: {app: agent}, ip: 192.0.2.1, hostNetwork: true, nodeIP: 192.0.2.1}
"""


def page(*specs: str, **more: Any) -> Scenario:
    """A scenario with the pods above and policies p0, p1, ... whose namespace and spec are `namespace spec`."""
    policies = []
    for number, text in enumerate(specs):
        namespace, _, spec = text.partition(" ")
        policies.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": f"p{number}", "namespace": namespace},
                "spec": yaml.safe_load(spec),
            }
        )
    return scenario_of({"name": "t", "pods": yaml.safe_load(PODS), "policies": policies} | more)


def found(scenario: Scenario, code: str, **more: Any) -> list[Finding]:
    cluster = replace(scenario.cluster, **more)
    return [f for f in lint(cluster.policies, cluster) if f.code == code]


def subjects(scenario: Scenario, code: str, **more: Any) -> list[str]:
    return [f.subject for f in found(scenario, code, **more)]


def with_pods(cluster: ClusterSnapshot, **changes: Pod) -> tuple[Pod, ...]:
    return tuple(changes.get(pod.name, pod) for pod in cluster.pods)


def workload(name: str, kind: str = "Deployment", namespace: str = "shop") -> Workload:
    return Workload(cluster="default", namespace=namespace, kind=kind, name=name)


# ---- what a policy selects


@pytest.mark.parametrize(
    ("policy", "hint"),
    [
        ("shop {podSelector: {matchLabels: {app: wbe}}}", "did you mean app=web?"),
        ("shop {podSelector: {matchLabels: {ap: web}}}", "did you mean app?"),
        ("shop {podSelector: {matchLabels: {component: web}}}", "did you mean app=web?"),
        ("shop {podSelector: {matchLabels: {app: pay}}}", "in the namespace pay"),
        ("shop {podSelector: {matchLabels: {app: something-else}}}", "selects no pod"),
        ("shop {podSelector: {matchLabels: {zone: something-else}}}", "selects no pod"),
        ("none {podSelector: {}}", "the namespace none has no pods"),
        ("shop {podSelector: {matchExpressions: [{key: app, operator: In, values: [wep]}]}}", "app=web?"),
        ("shop {podSelector: {matchExpressions: [{key: appp, operator: Exists}]}}", "did you mean app?"),
        (
            (
                "shop {podSelector: {matchLabels: {app: web},"
                " matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}"
            ),
            "app=web contradicts app NotIn web",
        ),
        (
            "shop {podSelector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: DoesNotExist}]}}",
            "app=web contradicts app DoesNotExist",
        ),
        (
            (
                "shop {podSelector: {matchLabels: {app: web}, matchExpressions:"
                " [{key: app, operator: In, values: [web]}, {key: x, operator: Exists}]}}"
            ),
            "selects no pod",
        ),
    ],
)
def test_an_unused_policy_is_told_with_what_was_probably_meant(policy: str, hint: str) -> None:
    (finding,) = found(page(policy), "unused")
    assert hint in finding.message


def test_a_policy_on_pods_of_the_hosts_network_alone_has_no_effect() -> None:
    assert subjects(page("mon {podSelector: {}}"), "unused-host-network") == ["mon/p0"]


def test_a_workload_at_rest_makes_a_policy_dormant_not_unused() -> None:
    scenario = page("shop {podSelector: {matchLabels: {app: sleepy}}}")
    record = WorkloadRecord(workload=workload("sleepy"), template_labels=(("app", "sleepy"),), replicas=0)
    (finding,) = found(scenario, "dormant", workloads=(record,))
    assert "shop/Deployment/sleepy" in finding.message
    assert subjects(scenario, "unused", workloads=(record,)) == []
    for other in (replace(record, host_network=True), replace(record, workload=workload("sleepy", namespace="pay"))):
        assert subjects(scenario, "unused", workloads=(other,)) == ["shop/p0"]


def test_finished_pods_make_a_policy_dormant() -> None:
    scenario = page("shop {podSelector: {matchLabels: {app: job}}}")
    job = scenario.pods["shop/job"]
    (finding,) = found(scenario, "dormant", pods=with_pods(scenario.cluster, job=replace(job, ended=True)))
    assert "finished pods only" in finding.message


def test_a_pod_selector_wider_than_its_rules_is_poorly_scoped() -> None:
    scenario = page("shop {podSelector: {}, ingress: [{ports: [{port: 8080}, {port: grpc, protocol: UDP}]}]}")
    (finding,) = found(scenario, "poorly-scoped")
    assert finding.subject == "shop/p0:ingress"
    assert "shop/Pod/api" in finding.message
    assert "shop/Pod/job" not in finding.message  # declares nothing, so nothing can be said of it
    for fine in (
        "shop {podSelector: {}, ingress: [{ports: [{port: http}]}, {ports: [{port: 9090}]}]}",
        "shop {podSelector: {}, ingress: [{ports: [{port: 8080}]}, {}]}",
        "shop {podSelector: {}, ingress: [{ports: [{port: 1}]}]}",
        "shop {podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 8080}]}]}",
    ):
        assert found(page(fine), "poorly-scoped") == []


@pytest.mark.parametrize(
    ("foreign", "touched"),
    [
        (ForeignPolicy(kind="CiliumNetworkPolicy", name="c", namespace="shop"), ["shop/Pod/web"]),
        (ForeignPolicy(kind="GlobalNetworkPolicy", name="c"), ["shop/Pod/web"]),
        (ForeignPolicy(kind="CiliumNetworkPolicy", name="c", namespace="pay"), []),
        (
            ForeignPolicy(
                kind="CiliumNetworkPolicy",
                name="c",
                namespace="shop",
                pod_selector=LabelSelector(match_labels=(("app", "api"),)),
            ),
            [],
        ),
        (ForeignPolicy(kind="X", name="c", namespace="shop", directions=frozenset({Direction.EGRESS})), []),
    ],
)
def test_native_and_plugin_policies_on_one_workload_are_told(foreign: ForeignPolicy, touched: list[str]) -> None:
    scenario = page("shop {podSelector: {matchLabels: {app: web}}}")
    assert subjects(scenario, "mixed-kinds", extra_policies=(foreign,)) == touched


# ---- what peers match


def test_an_empty_peer_tells_the_nearest_namespace_or_label() -> None:
    rule = "shop {podSelector: {matchLabels: {app: web}}, ingress: [{from: [%s]}]}"
    named = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}}"
    cases = {
        named
        % "pai": "no namespace has kubernetes.io/metadata.name=pai, did you mean kubernetes.io/metadata.name=pay?",
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: elsewhere-at-all}}}": "no namespace matches",
        "{namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [x]}]}}": "no namespace matches",
        "{podSelector: {matchLabels: {app: ap}}}": "did you mean app=api?",
        "{podSelector: {matchLabels: {zone: wherever}}}": "matches no pod",
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: mon}}, podSelector: {}}": "host's network",
    }
    for peer, message in cases.items():
        (finding,) = found(page(rule % peer), "empty-rule")
        assert message in finding.message, peer


def test_a_peer_at_rest_is_dormant() -> None:
    scenario = page("shop {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: sleepy}}}]}]}")
    record = WorkloadRecord(workload=workload("sleepy"), template_labels=(("app", "sleepy"),), replicas=0)
    assert subjects(scenario, "dormant-peer", workloads=(record,)) == ["shop/p0:ingress:0:0"]
    assert subjects(scenario, "empty-rule", workloads=(record,)) == []


def test_a_peer_without_fields_is_refused() -> None:
    scenario = page("shop {podSelector: {}, ingress: [{from: [{}]}]}")
    assert subjects(scenario, "peer-without-fields") == ["shop/p0:ingress:0:0"]
    assert subjects(scenario, "empty-rule") == ["shop/p0:ingress:0"]


def test_the_second_dash_is_suspected() -> None:
    both = "{namespaceSelector: {matchLabels: {a: b}}}, {podSelector: {matchLabels: {app: web}}}"
    assert subjects(page(f"shop {{podSelector: {{}}, ingress: [{{from: [{both}]}}]}}"), "and-or-dash")
    apart = "{namespaceSelector: {}}, {ipBlock: {cidr: 203.0.113.0/24}}, {podSelector: {}}"
    assert not subjects(page(f"shop {{podSelector: {{}}, ingress: [{{from: [{apart}]}}]}}"), "and-or-dash")


def test_a_named_port_that_is_declared_for_another_protocol_says_so() -> None:
    (finding,) = found(
        page("shop {podSelector: {}, egress: [{to: [{podSelector: {}}], ports: [{port: http, protocol: UDP}]}]}"),
        "unresolved-named-port",
    )
    assert "declared for TCP" in finding.message
    assert not found(page("shop {podSelector: {}, egress: [{ports: [{port: http}]}]}"), "unresolved-named-port")
    nowhere = "shop {podSelector: {matchLabels: {app: none}}, ingress: [{ports: [{port: nix}]}]}"
    assert not found(page(nowhere), "unresolved-named-port")  # unused: nothing to resolve it on


# ---- how it is written


def test_generated_and_unstable_labels_are_told_wherever_they_stand() -> None:
    scenario = page(
        "shop {podSelector: {matchLabels: {pod-template-hash: abc}}, ingress: [{from: [{podSelector:"
        " {matchLabels: {version: v1.2.3}}, namespaceSelector: {matchExpressions: [{key: controller-uid,"
        " operator: Exists}]}}, {ipBlock: {cidr: 203.0.113.0/24}}]}]}"
    )
    assert subjects(scenario, "generated-label") == [
        "shop/p0:ingress:0:0:namespaceSelector:controller-uid",
        "shop/p0:podSelector:pod-template-hash",
    ]
    assert subjects(scenario, "unstable-label") == ["shop/p0:ingress:0:0:podSelector:version"]


def test_blocks_inside_the_cluster_are_told() -> None:
    scenario = page(
        "shop {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24}},"
        " {ipBlock: {cidr: 10.96.0.10/32}}, {ipBlock: {cidr: 10.0.0.4/32}}, {ipBlock: {cidr: 203.0.113.0/24}}]}]}",
        services=[{"namespace": "kube-system", "name": "dns", "clusterIP": "10.96.0.10", "ports": [{"port": 53}]}],
    )
    cidrs = {"pod_cidrs": (ip_network("10.0.0.0/16"),), "service_cidrs": (ip_network("10.96.0.0/12"),)}
    on_pods = found(scenario, "ipblock-on-pod-ip", **cidrs)
    assert [f.subject for f in on_pods] == ["shop/p0:egress:0:10.0.0.0/24", "shop/p0:egress:0:10.0.0.4/32"]
    assert "inside the pod CIDR 10.0.0.0/16" in on_pods[0].message
    assert "the pod pay/pay" in on_pods[1].message
    for known in ({}, cidrs):
        assert subjects(scenario, "ipblock-on-service-ip", **known) == ["shop/p0:egress:0:10.96.0.10/32"]


def test_the_object_as_written_shows_host_bits_unknown_fields_and_refusals() -> None:
    written = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "podSelector": {},
            "policyType": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/24"}}], "ports": [{"port": 0}]}],
        },
    }
    codes = {(f.code, f.subject) for f in check_object(written)}
    assert codes == {
        ("missing-namespace", "default/p"),
        ("unknown-field", "default/p:spec.policyType"),
        ("host-bits", "default/p:spec.ingress[0].from[0].ipBlock.cidr"),
        ("invalid", "default/p:spec.ingress[0].ports[0].port"),
    }
    named = written | {"metadata": {"name": "p", "namespace": "shop"}}
    assert "missing-namespace" not in {f.code for f in check_object(named)}
    assert {f.code for f in check_object({"kind": "NetworkPolicy", "metadata": []})} >= {"missing-namespace", "invalid"}


# ---- how wide it is


def test_every_way_of_being_too_wide_has_its_name() -> None:
    scenario = page(
        "shop {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress, Ingress], egress: ["
        "{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}}, {ipBlock: {cidr: 203.0.0.0/16}},"
        " {ipBlock: {cidr: 198.0.0.0/8}}], ports: [{port: 1, endPort: 500}, {port: 1000, endPort: 2000}]},"
        "{to: [{ipBlock: {cidr: '::/0'}}], ports: [{protocol: UDP}]},"
        "{to: [{ipBlock: {cidr: '2001:db8::/32'}}, {namespaceSelector: {}, podSelector: {}}], ports: [{port: http}]}],"
        " ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: api}}}]}, {ports: [{port: 1}]}]}"
    )
    assert subjects(scenario, "over-broad") == [
        "shop/p0:egress:1:world",
        "shop/p0:ingress:1:any-peer",
        "shop/p0:egress:0:wide-cidr",
        "shop/p0:egress:0:wide-port-range",
        "shop/p0:egress:1:wide-port-range",
        "shop/p0:egress:2:all-namespaces",
        "shop/p0:egress:2:wide-cidr",
        "shop/p0:ingress:0:any-port",
    ]
    assert subjects(scenario, "metadata-reachable") == ["shop/p0:egress:1:metadata-server-reachable"]


def test_broad_rules_are_ordered_by_what_was_never_used() -> None:
    scenario = page(
        "shop {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}",
        "shop {podSelector: {matchLabels: {app: api}}, policyTypes: [Egress], egress: [{}]}",
    )
    web, api, job, pay = (
        workload(n, "Pod", ns) for n, ns in (("web", "shop"), ("api", "shop"), ("job", "shop"), ("pay", "pay"))
    )
    seen = [
        Link(src=api, dst=web, protocol=Protocol.TCP, port=8080),
        Link(src=pay, dst=job, protocol=Protocol.TCP, port=1),
    ]
    found_rules = broad_rules(verdict_table(scenario.cluster.policies, scenario.cluster), seen)
    assert [(b.rule, b.permitted, b.observed, b.blast_radius, b.score) for b in found_rules] == [
        ("shop/p1:egress:0", 3, 1, 2, 10),
        ("shop/p0:ingress:0", 2, 1, 1, 2),
    ]


# ---- what the whole set leaves


def test_dns_is_missed_where_none_is_known_and_no_rule_takes_its_port() -> None:
    blocked = page(
        "shop {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}"
    )
    (finding,) = found(blocked, "dns-blocked")
    assert "none is known" in finding.message
    silent = page("shop {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}")
    assert "no egress at all" in found(silent, "dns-blocked")[0].message
    open_ = page(
        "shop {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}]}"
    )
    assert not found(open_, "dns-blocked") + found(open_, "dns-tcp-blocked")


def test_dns_on_nodes_and_beside_the_cluster_counts() -> None:
    dns = {
        "services": [
            {
                "namespace": "kube-system",
                "name": "kube-dns",
                "clusterIP": "10.96.0.10",
                "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}],
            }
        ]
    }
    rule = "shop {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: %s}}]}]}"
    outside = page(rule % "198.51.100.7/32", endpoints={"kube-system/kube-dns": ["198.51.100.7:53"]}, **dns)
    assert not found(outside, "dns-blocked")
    missed = page(rule % "198.51.100.8/32", endpoints={"kube-system/kube-dns": ["198.51.100.7:53"]}, **dns)
    assert found(missed, "dns-blocked")
    on_node = page(rule % "192.0.2.1/32", endpoints={"kube-system/kube-dns": ["192.0.2.1:53"]}, **dns)
    assert not found(on_node, "dns-blocked")


def test_half_open_speaks_of_rules_that_name_their_peers() -> None:
    closed = "shop {podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress]}"
    rule = "shop {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [%s]%s}]}"
    peer = "{podSelector: {matchLabels: {app: api}}}"
    assert subjects(page(rule % (peer, ", ports: [{port: 9090}]"), closed), "half-open") == [
        "shop/Pod/web -> shop/Pod/api TCP/9090"
    ]
    assert subjects(page(rule % (peer, ", ports: [{port: grpc}]"), closed), "half-open") == [
        "shop/Pod/web -> shop/Pod/api TCP/9090"
    ]
    assert subjects(page(rule % (peer, ""), closed), "half-open") == ["shop/Pod/web -> shop/Pod/api TCP/1"]
    assert subjects(page(rule % (peer, ", ports: [{port: nix}, {port: 9090}]"), closed), "half-open") == [
        "shop/Pod/web -> shop/Pod/api TCP/9090"
    ]
    assert subjects(page(rule % ("{namespaceSelector: {}}", ""), closed), "half-open") == []
    assert subjects(page(rule % (peer, "")), "half-open") == []  # the other end is not isolated
    opened = "shop {podSelector: {matchLabels: {app: api}}, ingress: [{ports: [{port: 9090}]}]}"
    assert subjects(page(rule % (peer, ""), opened), "half-open") == []
    other_way = (
        "shop {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"
    )
    mute = "shop {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}"
    assert subjects(page(other_way, mute), "half-open") == ["shop/Pod/web -> shop/Pod/api TCP/1"]


def test_half_open_is_told_once_for_a_workload_of_many_classes() -> None:
    rule = "{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 9090}]}"
    scenario = page(
        f"shop {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{rule}, {rule}]}}",
        "shop {podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress]}",
    )
    api = scenario.pods["shop/api"]
    twin = replace(api, name="api2", labels=(*api.labels, ("canary", "y")), ips=(ip_address("10.0.0.9"),))
    assert subjects(scenario, "half-open", pods=(*scenario.cluster.pods, twin)) == [
        "shop/Pod/web -> shop/Pod/api TCP/9090"
    ]


def test_mergeable_blocks_are_named_once() -> None:
    scenario = page(
        "shop {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '2001:db8::/33'}},"
        " {ipBlock: {cidr: '2001:db8:8000::/33'}}, {ipBlock: {cidr: 203.0.113.0/25, except: [203.0.113.1/32]}},"
        " {ipBlock: {cidr: 203.0.113.128/25}}]}]}"
    )
    assert subjects(scenario, "mergeable-cidrs") == ["shop/p0:egress:2001:db8::/32"]
    table = verdict_table(scenario.cluster.policies, scenario.cluster)
    assert summary(table, lint(scenario.cluster.policies, scenario.cluster))["mergeable"] == ["2001:db8::/32"]


# ---- redundancy


def test_a_rule_that_only_the_other_end_stops_is_redundant_now() -> None:
    scenario = page(
        "shop {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress],"
        " egress: [{to: [{podSelector: {matchLabels: {app: api}}}]}]}",
        "shop {podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress]}",
    )
    (finding,) = found(scenario, "redundant-rule")
    assert "the other end denies" in finding.message


def test_rules_that_only_together_cover_one_are_told_as_such() -> None:
    scenario = page(
        "shop {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}},"
        " {podSelector: {matchLabels: {app: job}}}]}, {from: [{podSelector: {matchLabels: {app: api}}}]},"
        " {from: [{podSelector: {matchLabels: {app: job}}}]}]}"
    )
    messages = {f.subject: f.message for f in found(scenario, "redundant-rule") + found(scenario, "shadowed-rule")}
    assert "together" in messages["shop/p0:ingress:0"]
    assert "shop/p0:ingress:0 allows all" in messages["shop/p0:ingress:1"]


def test_a_policy_that_many_others_replace_is_redundant_but_not_shadowed() -> None:
    scenario = page(
        "shop {podSelector: {matchExpressions: [{key: app, operator: In, values: [web, api]}]}, ingress: [{ports:"
        " [{port: 1}]}]}",
        "shop {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 1}]}]}",
        "shop {podSelector: {matchLabels: {app: api}}, ingress: [{ports: [{port: 1}]}]}",
    )
    assert "shop/p0" in subjects(scenario, "redundant-policy")
    assert set(subjects(scenario, "shadowed-policy")) == {"shop/p1", "shop/p2"}


def test_an_empty_set_of_policies_is_not_called_vacuous() -> None:
    assert not found(page(), "vacuous")


def test_a_node_local_cache_is_a_dns_server() -> None:
    scenario = page(
        "shop {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 169.254.20.10/32}}]}]}"
    )
    cache = replace(scenario.pods["mon/agent"], name="cache", labels=(("k8s-app", "node-local-dns"),))
    assert not found(scenario, "dns-blocked", pods=(*scenario.cluster.pods, cache))


def test_every_code_but_the_sets_own_has_a_place_in_the_summary() -> None:
    from aggregator.policy.lint.codes import Code

    placed = {code for codes in SUMMARY_KEYS.values() for code in codes}
    own = {
        Code.VACUOUS,
        Code.MERGEABLE_CIDRS,
        Code.DNS_BLOCKED,
        Code.DNS_TCP_BLOCKED,
        Code.HALF_OPEN,
        Code.UNCOVERED_INGRESS,
        Code.UNCOVERED_EGRESS,
    }
    assert set(Code) - placed == own


def test_edges_of_the_address_space_are_no_edges() -> None:
    scenario = page(
        "shop {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr:"
        " 128.0.0.0/1}}]}]}"
    )
    table = verdict_table(scenario.cluster.policies, scenario.cluster, ipblock_matches_pods=False)
    pods = [c for c in table.universe.classes if c.pods and c.pods[0].namespace == "shop"]
    assert all(not table.allowed(Direction.EGRESS, a.bit, b.bit) for a in pods for b in pods if a is not b)
    node = replace(scenario.cluster, nodes=(Node(name="n", addresses=(ip_address("192.0.2.9"),)),))
    words = {t.universe.where(c) for t in [verdict_table(node.policies, node)] for c in t.universe.classes}
    assert {"nodes", "0.0.0.0/1", "128.0.0.0/1", "any other IPv6 address"} <= words


def test_edit_distance() -> None:
    assert [edit_distance(a, b) for a, b in (("", "abc"), ("abc", "abc"), ("kart", "cart"), ("ab", "ba"))] == [
        3,
        0,
        1,
        2,
    ]


def test_the_same_question_is_answered_alike_twice_and_in_another_namespace() -> None:
    typo = "{podSelector: {matchLabels: {app: pay, zone: wherever}}}"
    scenario = page(f"shop {typo}", f"shop {typo}", f"mon {typo}")
    job = scenario.pods["shop/job"]
    told = found(scenario, "unused", pods=with_pods(scenario.cluster, job=replace(job, ended=True)))
    assert len(told) == 3
    assert told[0].message == told[1].message.replace("p1", "p0")


def test_a_plugin_that_takes_something_otherwise_is_named() -> None:
    scenario = page(
        "shop {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr:"
        " 198.51.100.1/32}}, {ipBlock: {cidr: 203.0.113.0/24}}, {podSelector: {}}], ports: [{port: 1, endPort: 9},"
        " {protocol: SCTP}]}]}",
        endpoints={"default/kubernetes": ["198.51.100.1:6443"]},
    )
    profiles = {
        "generic": GENERIC,
        "blocks": replace(GENERIC, ipblock_matches_nodes=Answer.NO),
        "ports": replace(GENERIC, end_port=Answer.NO, enforced_protocols=frozenset({Protocol.TCP})),
    }
    told = {
        name: [(f.code, f.subject) for f in check_profile(scenario.cluster.policies, scenario.cluster, profile)]
        for name, profile in profiles.items()
    }
    assert told == {
        "generic": [],
        "blocks": [
            ("ipblock-on-host", "shop/p0:egress:0:192.0.2.0/24"),
            ("ipblock-on-host", "shop/p0:egress:0:198.51.100.1/32"),
        ],
        "ports": [("end-port-ignored", "shop/p0:egress:0:1"), ("protocol-not-enforced", "shop/p0:egress:0:SCTP")],
    }
