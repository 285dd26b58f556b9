"""Admin and baseline tiers (NP-61), by cases computed by hand, as objects of both API generations."""

from dataclasses import replace
from itertools import product

import pytest

from aggregator.cluster.scenario import scenario_of
from aggregator.errors import InputError
from aggregator.model.adminpolicy import AdminPort, DomainNamesPeer, ForeignPolicy, NetworksPeer, NodesPeer
from aggregator.model.networkpolicy import LabelSelector
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import DirectionOutcome, PolicyReason, Verdict
from aggregator.policy.compiled import compile_policies
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.manifest.adminparse import parse_admin_policy, parse_any
from aggregator.policy.profiles.known import CILIUM, GENERIC, WEAVE
from aggregator.policy.profiles.profile import Answer

WORLD = {
    "name": "tiers",
    "nodes": [{"name": "n1", "ip": "192.0.2.1", "labels": {"role": "worker"}}, {"name": "n2", "ip": "192.0.2.2"}],
    "pods": [
        {"namespace": "x", "name": "a", "labels": {"app": "a"}, "ip": "10.0.0.1", "nodeIP": "192.0.2.1"},
        {
            "namespace": "y",
            "name": "b",
            "labels": {"app": "b"},
            "ip": "10.0.0.2",
            "nodeIP": "192.0.2.2",
            "ports": [{"name": "http", "port": 8080}],
        },
        {"namespace": "y", "name": "host", "hostNetwork": True, "nodeIP": "192.0.2.1", "labels": {"app": "b"}},
    ],
}
X = {"matchLabels": {"kubernetes.io/metadata.name": "x"}}
Y = {"matchLabels": {"kubernetes.io/metadata.name": "y"}}


def anp(name="anp", *, priority=10, subject=None, **rules):
    spec = {"priority": priority, "subject": subject or {"namespaces": X}, **rules}
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def banp(**rules):
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "BaselineAdminNetworkPolicy",
        "metadata": {"name": "default"},
        "spec": {"subject": {"namespaces": X}, **rules},
    }


def cnp(name="cnp", *, tier="Admin", priority=10, version="v1alpha2", **rules):
    return {
        "apiVersion": f"policy.networking.k8s.io/{version}",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": priority, "subject": {"namespaces": X}, **rules},
    }


def np(**spec):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "np", "namespace": "x"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], **spec},
    }


def judged(*objects, dst="y/b", port=8080, profile=GENERIC, foreign=()):
    """The explanation of x/a -> dst; the compiled evaluator must give the same verdict."""
    traffic = {"from": "x/a", "to": dst, "port": port, "allowed": True}
    scenario = scenario_of(WORLD | {"policies": list(objects), "expectations": [traffic]})
    policies = (*scenario.policies, *foreign)
    connection = scenario.connection(scenario.expectations[0].traffic)
    said = evaluate(policies, scenario.cluster, connection, profile)
    compiled = compile_policies(policies, scenario.cluster, profile, others=[connection.src, connection.dst])
    assert compiled.verdict(connection.src, connection.dst, connection.protocol, connection.port) is said.verdict
    return said


ALL = [{"namespaces": {}}]


def rule(action, to=None, **more):
    return {"action": action, "to": ALL if to is None else to, **more}


def test_deny_of_the_admin_tier_is_final():
    said = judged(anp(egress=[rule("Deny")]), np(egress=[{}]))
    assert said.egress.outcome is DirectionOutcome.DENIED
    assert [(f.policy, f.reason, f.rules) for f in said.egress.policies] == [
        ("AdminNetworkPolicy/anp", PolicyReason.DENIED, (1,))
    ]


def test_allow_of_the_admin_tier_is_final():
    said = judged(anp(egress=[rule("Allow")]), np())
    assert said.egress.outcome is DirectionOutcome.ALLOWED
    assert [f.reason for f in said.egress.policies] == [PolicyReason.ALLOWED]


def test_pass_leaves_it_to_network_policies_and_skips_the_rest_of_the_tier():
    said = judged(anp(egress=[rule("Pass")]), anp("later", priority=20, egress=[rule("Allow")]), np())
    assert said.verdict is Verdict.DENIED
    assert [f.reason for f in said.egress.policies] == [PolicyReason.PASSED, PolicyReason.NO_RULES]


def test_network_policy_that_selects_the_pod_is_final_over_the_baseline():
    assert judged(banp(egress=[rule("Deny")]), np(egress=[{}])).verdict is Verdict.ALLOWED
    assert judged(banp(egress=[rule("Allow")]), np()).verdict is Verdict.DENIED


def test_baseline_is_asked_where_no_network_policy_selects_the_pod():
    assert judged(banp(egress=[rule("Deny")])).verdict is Verdict.DENIED
    assert judged(anp(egress=[rule("Pass")]), banp(egress=[rule("Deny")])).verdict is Verdict.DENIED
    assert judged(banp(egress=[rule("Deny", [{"namespaces": X}])])).egress.outcome is DirectionOutcome.DEFAULT_ALLOW


def test_lower_priority_numbers_come_first_and_rules_are_in_order():
    low, high = anp("low", priority=1, egress=[rule("Allow")]), anp("high", priority=2, egress=[rule("Deny")])
    assert judged(high, low).verdict is Verdict.ALLOWED
    first = anp(egress=[rule("Allow", [{"namespaces": X}]), rule("Deny"), rule("Allow")])
    said = judged(first)
    assert said.verdict is Verdict.DENIED
    assert said.egress.policies[0].rules == (2,)


def test_equal_priorities_that_disagree_are_unknown():
    said = judged(anp("one", egress=[rule("Allow")]), anp("two", egress=[rule("Deny")]))
    assert said.egress.outcome is DirectionOutcome.UNKNOWN
    assert "equal priority" in said.egress.cause
    agreeing = judged(anp("one", egress=[rule("Deny")]), anp("two", egress=[rule("Deny")]))
    assert agreeing.verdict is Verdict.DENIED


def test_cluster_network_policy_of_both_tiers():
    assert judged(cnp(egress=[rule("Deny")]), np(egress=[{}])).verdict is Verdict.DENIED
    assert judged(cnp(egress=[rule("Accept")], version="v1beta1"), np()).verdict is Verdict.ALLOWED
    assert judged(cnp(tier="Baseline", egress=[rule("Deny")])).verdict is Verdict.DENIED
    two = (
        cnp("a", tier="Baseline", priority=5, egress=[rule("Accept")]),
        cnp("b", tier="Baseline", priority=9, egress=[rule("Deny")]),
    )
    assert judged(*two).verdict is Verdict.ALLOWED


def test_a_subject_of_pods():
    chosen = anp(subject={"pods": {"namespaceSelector": X, "podSelector": {"matchLabels": {"app": "a"}}}})
    other = anp(subject={"pods": {"namespaceSelector": X, "podSelector": {"matchLabels": {"app": "z"}}}})
    for policy, verdict in ((chosen, Verdict.DENIED), (other, Verdict.ALLOWED)):
        policy["spec"]["egress"] = [rule("Deny")]
        assert judged(policy).verdict is verdict


def test_pods_peer_without_namespace_selector_means_all_namespaces():
    assert judged(cnp(egress=[rule("Deny", [{"pods": {"podSelector": {"matchLabels": {"app": "b"}}}}])])).verdict is (
        Verdict.DENIED
    )


@pytest.mark.parametrize(
    ("peer", "dst", "denied"),
    [
        ({"nodes": {}}, "ip:192.0.2.2", True),
        ({"nodes": {"matchLabels": {"role": "worker"}}}, "ip:192.0.2.2", False),
        ({"nodes": {}}, "ip:203.0.113.1", False),
        ({"nodes": {}}, "y/b", False),
        ({"networks": ["203.0.113.0/24"]}, "ip:203.0.113.1", True),
        ({"networks": ["203.0.113.0/24"]}, "ip:198.51.100.1", False),
        ({"networks": ["10.0.0.0/8"]}, "y/b", True),
        ({"namespaces": {}}, "ip:203.0.113.1", False),
        ({"namespaces": {}}, "ip:192.0.2.2", False),
        ({"domainNames": ["example.org"]}, "y/b", False),
    ],
)
def test_peers(peer, dst, denied):
    assert judged(anp(egress=[rule("Deny", [peer])]), dst=dst).verdict is (
        Verdict.DENIED if denied else Verdict.ALLOWED
    )


def test_a_host_network_pod_is_its_node():
    away = {"namespace": "x", "name": "a", "labels": {"app": "a"}, "ip": "10.0.0.1", "nodeIP": "192.0.2.2"}
    world = WORLD | {"pods": [away, *WORLD["pods"][1:]]}
    for peer, verdict in (
        ({"nodes": {"matchLabels": {"role": "worker"}}}, Verdict.DENIED),
        ({"nodes": {"matchLabels": {"role": "other"}}}, Verdict.ALLOWED),
        ({"namespaces": {}}, Verdict.ALLOWED),
    ):
        page = world | {
            "policies": [anp(egress=[rule("Deny", [peer])])],
            "expectations": [{"from": "x/a", "to": "y/host", "port": 80, "allowed": True}],
        }
        scenario = scenario_of(page)
        connection = scenario.connection(scenario.expectations[0].traffic)
        assert evaluate(scenario.policies, scenario.cluster, connection).verdict is verdict
        compiled = compile_policies(scenario.policies, scenario.cluster)
        assert compiled.verdict(connection.src, connection.dst, Protocol.TCP, 80) is verdict


def test_a_host_network_pod_whose_node_nobody_knows_is_no_node_by_label():
    nowhere = {"namespace": "y", "name": "nowhere", "hostNetwork": True}
    page = WORLD | {
        "pods": [*WORLD["pods"], nowhere],
        "policies": [anp(egress=[rule("Deny", [{"nodes": {}}])])],
        "expectations": [{"from": "x/a", "to": "y/nowhere", "port": 80, "allowed": True}],
    }
    scenario = scenario_of(page)
    connection = scenario.connection(scenario.expectations[0].traffic)
    assert evaluate(scenario.policies, scenario.cluster, connection).verdict is Verdict.ALLOWED
    compiled = compile_policies(scenario.policies, scenario.cluster)
    assert compiled.verdict(connection.src, connection.dst, Protocol.TCP, 80) is Verdict.ALLOWED


def test_domain_names_are_known_to_the_resolver_alone():
    named, world = [{"domainNames": ["example.org"]}], [{"networks": ["0.0.0.0/0"]}]
    said = judged(anp(egress=[rule("Allow", named), rule("Deny", world)]), dst="ip:203.0.113.1")
    assert said.egress.outcome is DirectionOutcome.UNKNOWN
    assert "example.org" in said.egress.cause
    assert said.egress.policies[0].rules == (1, 2)
    harmless = judged(anp(egress=[rule("Allow", [{"domainNames": ["example.org"]}])]), dst="ip:203.0.113.1")
    assert harmless.verdict is Verdict.ALLOWED
    assert harmless.egress.policies[0].reason is PolicyReason.UNKNOWN


@pytest.mark.parametrize(
    ("ports", "denied"),
    [
        ([{"portNumber": {"protocol": "TCP", "port": 8080}}], True),
        ([{"portNumber": {"port": 8080}}], True),
        ([{"portNumber": {"protocol": "UDP", "port": 8080}}], False),
        ([{"portRange": {"protocol": "TCP", "start": 8000, "end": 8080}}], True),
        ([{"portRange": {"protocol": "TCP", "start": 8000, "end": 8079}}], False),
        ([{"namedPort": "http"}], True),
        ([{"namedPort": "https"}], False),
    ],
)
def test_ports_of_v1alpha1(ports, denied):
    assert judged(anp(egress=[rule("Deny", ports=ports)])).verdict is (Verdict.DENIED if denied else Verdict.ALLOWED)


@pytest.mark.parametrize(
    ("protocols", "denied"),
    [
        ([{"tcp": {"destinationPort": {"number": 8080}}}], True),
        ([{"tcp": {"destinationPort": {"range": {"start": 1, "end": 9000}}}}], True),
        ([{"tcp": {}}], True),
        ([{"udp": {}}], False),
        ([{"sctp": {"destinationPort": {"number": 8080}}}], False),
        ([{"destinationNamedPort": "http"}], True),
    ],
)
def test_protocols_of_v1alpha2(protocols, denied):
    said = judged(cnp(egress=[rule("Deny", protocols=protocols)]))
    assert said.verdict is (Verdict.DENIED if denied else Verdict.ALLOWED)


def test_the_first_cluster_network_policies_still_had_ports():
    ports = [{"portNumber": {"protocol": "UDP", "port": 53}}]
    assert judged(cnp(egress=[rule("Deny", ports=ports)])).verdict is Verdict.ALLOWED


def test_a_service_port_is_not_the_one_that_policies_see():
    world = WORLD | {"services": [{"namespace": "y", "name": "s", "clusterIP": "10.96.0.9", "ports": [{"port": 80}]}]}
    ports = [{"portNumber": {"port": 80}}]
    page = world | {
        "policies": [anp(egress=[rule("Deny", [{"networks": ["10.96.0.0/12"]}, *ALL], ports=ports)])],
        "expectations": [{"from": "x/a", "to": "ip:10.96.0.9", "port": 80, "allowed": True}],
    }
    scenario = scenario_of(page)
    connection = scenario.connection(scenario.expectations[0].traffic)
    said = evaluate(scenario.policies, scenario.cluster, connection)
    assert said.verdict is Verdict.ALLOWED  # neither networks nor pods match a Service's address
    seen = replace(GENERIC, ipblock_matches_services=Answer.YES)
    assert evaluate(scenario.policies, scenario.cluster, connection, seen).verdict is Verdict.UNKNOWN


def test_an_address_of_the_pod_network_that_nobody_has_may_be_any_pod():
    page = WORLD | {
        "pod_cidrs": ["10.0.0.0/8"],
        "policies": [anp(egress=[rule("Deny")])],
        "expectations": [{"from": "x/a", "to": "ip:10.9.9.9", "port": 80, "allowed": True}],
    }
    scenario = scenario_of(page)
    connection = scenario.connection(scenario.expectations[0].traffic)
    said = evaluate(scenario.policies, scenario.cluster, connection)
    assert said.egress.outcome is said.ingress.outcome is DirectionOutcome.UNKNOWN
    assert "no known pod has 10.9.9.9" in said.egress.cause
    compiled = compile_policies(scenario.policies, scenario.cluster, others=[connection.dst])
    assert compiled.verdict(connection.src, connection.dst, Protocol.TCP, 80) is Verdict.UNKNOWN
    open_to_all = compile_policies([], scenario.cluster, others=[connection.dst])
    assert open_to_all.verdict(connection.src, connection.dst, Protocol.TCP, 80) is Verdict.UNKNOWN
    assert open_to_all.verdict(connection.dst, connection.dst, Protocol.TCP, 80) is Verdict.ALLOWED


def test_a_plug_in_without_admin_policies_ignores_them():
    assert judged(anp(egress=[rule("Deny")]), profile=WEAVE).verdict is Verdict.ALLOWED


def test_a_plug_in_that_may_enforce_them_makes_what_they_change_unknown():
    said = judged(anp(egress=[rule("Deny")]), profile=CILIUM)
    assert said.verdict is Verdict.UNKNOWN
    assert "not defined for this network plug-in" in said.egress.cause
    assert judged(anp(egress=[rule("Allow")]), profile=CILIUM).verdict is Verdict.ALLOWED
    names = [{"domainNames": ["example.org"]}]
    assert judged(anp(egress=[rule("Deny", names)]), dst="ip:203.0.113.1", profile=CILIUM).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("foreign", "verdict"),
    [
        (ForeignPolicy(kind="CiliumNetworkPolicy", namespace="x", name="f"), Verdict.UNKNOWN),
        (ForeignPolicy(kind="GlobalNetworkPolicy", name="f"), Verdict.UNKNOWN),
        (ForeignPolicy(kind="CiliumNetworkPolicy", namespace="z", name="f"), Verdict.ALLOWED),
        (
            ForeignPolicy(
                kind="CiliumNetworkPolicy",
                namespace="x",
                name="f",
                pod_selector=LabelSelector(match_labels=(("app", "z"),)),
            ),
            Verdict.ALLOWED,
        ),
        (
            ForeignPolicy(kind="C", namespace="x", name="f", directions=frozenset({Direction.INGRESS})),
            Verdict.ALLOWED,
        ),
    ],
)
def test_a_policy_that_nobody_evaluates_here_makes_its_pods_unknown(foreign, verdict):
    said = judged(foreign=[foreign])
    assert said.verdict is verdict
    assert (str(foreign) in said.egress.cause) == (verdict is Verdict.UNKNOWN)


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        (anp() | {"apiVersion": "policy.networking.k8s.io/v1"}, "apiVersion"),
        (banp() | {"metadata": {"name": "other"}}, "metadata.name"),
        (cnp(tier="Other"), "spec.tier"),
        (anp(priority=1001), "spec.priority"),
        (anp(priority="1"), "spec.priority"),
        (anp(subject={"namespaces": {}, "pods": {}}), "spec.subject"),
        (anp(subject={"namespaces": {"sameLabels": ["a"]}}), "spec.subject.namespaces.sameLabels"),
        (anp(egress=[rule("Accept")]), "spec.egress[0].action"),
        (cnp(egress=[rule("Allow")]), "spec.egress[0].action"),
        (banp(egress=[rule("Pass")]), "spec.egress[0].action"),
        (anp(ingress=[{"action": "Allow", "from": [{"nodes": {}}]}]), "spec.ingress[0].from[0]"),
        (anp(egress=[rule("Allow", [{}])]), "spec.egress[0].to[0]"),
        (anp(egress=[rule("Allow", [{"networks": ["nope"]}])]), "spec.egress[0].to[0].networks[0]"),
        (anp(egress=[rule("Allow", ports=[{"portNumber": {"port": "x"}}])]), "spec.egress[0].ports[0].portNumber.port"),
        (anp(egress=[rule("Allow", protocols=[{"tcp": {}}])]), "spec.egress[0].protocols"),
        ({"kind": "CiliumNetworkPolicy"}, "kind"),
    ],
)
def test_a_refusal_names_the_field(obj, field):
    with pytest.raises(InputError) as refused:
        parse_any(obj)
    assert refused.value.field == field


def test_what_is_parsed():
    policy = parse_admin_policy(
        anp(
            egress=[
                rule(
                    "Pass",
                    [{"nodes": {}}, {"networks": ["10.0.0.0/8"]}, {"domainNames": ["a.example"]}],
                    name="named",
                    ports=[{"namedPort": "http"}],
                )
            ]
        )
    )
    (only,) = policy.rules(Direction.EGRESS)
    assert policy.rules(Direction.INGRESS) == ()
    assert only.name == "named"
    assert [type(peer) for peer in only.peers] == [NodesPeer, NetworksPeer, DomainNamesPeer]
    assert only.ports == (AdminPort(name="http"),)
    assert str(policy) == "AdminNetworkPolicy/anp"


def test_admin_policies_never_isolate_by_being_there():
    for tier, direction in product(("Admin", "Baseline"), ("ingress", "egress")):
        assert judged(cnp(tier=tier, **{direction: []})).verdict is Verdict.ALLOWED
