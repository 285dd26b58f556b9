"""Edges of evaluation that no case file states: what is illegal fails closed, what is not known is unknown."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import product

import numpy as np
import pytest

from aggregator.cluster.scenario import scenario_of
from aggregator.model.cluster import ClusterSnapshot, Node, Pod
from aggregator.model.endpoint import AddressEndpoint, Connection, NodeEndpoint, PodEndpoint, ServiceEndpoint
from aggregator.model.networkpolicy import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Operator,
    PolicyPort,
    Requirement,
    Rule,
    SelectorPeer,
)
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import DirectionOutcome, PolicyReason, Verdict
from aggregator.model.workload import Workload
from aggregator.policy.compiled import VERDICTS, compile_policies
from aggregator.policy.evaluation.endpoints import endpoint_of_address, pair, pod_endpoint
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.evaluation.judging import Judge
from aggregator.policy.evaluation.live import connect
from aggregator.policy.manifest.parse import parse_policy
from aggregator.policy.profiles.known import GENERIC, OVN_KUBERNETES, WEAVE
from tests.unit.policy_gen.town import TOWN

PAGE = {
    "name": "edges",
    "pods": [
        {"namespace": "x", "name": "a", "ip": "10.0.0.1", "nodeIP": "192.0.2.1"},
        {
            "namespace": "x",
            "name": "b",
            "ip": "10.0.0.2",
            "nodeIP": "192.0.2.2",
            "ports": [{"name": "web", "port": 80}],
        },
        {"namespace": "x", "name": "lost"},
        {"namespace": "x", "name": "both", "ips": ["10.0.0.4", "fd00::4"]},
    ],
    "services": [
        {
            "namespace": "x",
            "name": "s",
            "clusterIP": "10.96.0.9",
            "externalIPs": ["203.0.113.50"],
            "ports": [{"port": 80}],
        }
    ],
}
ANY = IPBlock(cidr=scenario_of(PAGE | {"pod_cidrs": ["0.0.0.0/0"]}).cluster.pod_cidrs[0])


def judged(rule, dst, *, src="x/a", port=80, protocol=Protocol.TCP, profile=GENERIC):
    """The egress explanation of x/a under one rule, after both evaluators agreed."""
    scenario = scenario_of(PAGE)
    policy = NetworkPolicy(namespace="x", name="p", policy_types=(Direction.EGRESS,), egress=(rule,))
    ends = pair(scenario.cluster, scenario.end(src), scenario.end(dst))
    connection = Connection(src=ends[0], dst=ends[1], protocol=protocol, port=port)
    said = evaluate([policy], scenario.cluster, connection, profile)
    compiled = compile_policies([policy], scenario.cluster, profile, others=ends)
    assert compiled.verdict(*ends, protocol, port) is said.verdict
    return said


@pytest.mark.parametrize(
    "rule",
    [
        Rule(peers=(SelectorPeer(),)),
        Rule(ports=(PolicyPort(end_port=90),)),
        Rule(ports=(PolicyPort(port="web", end_port=90),)),
        Rule(ports=(PolicyPort(port=81, end_port=79),)),
        Rule(ports=(PolicyPort(port=0),)),
        Rule(ports=(PolicyPort(port="80"),)),
    ],
)
def test_what_the_api_refuses_allows_nothing(rule):
    assert judged(rule, "x/b").verdict is Verdict.DENIED


def test_reasons_with_rule_numbers():
    scenario = scenario_of(PAGE)
    far = Rule(peers=(SelectorPeer(namespace_selector=LabelSelector(match_labels=(("no", "one"),))),))
    port = Rule(peers=(SelectorPeer(pod_selector=LabelSelector()),), ports=(PolicyPort(port=81),))
    both = {"namespace": "x", "policy_types": (Direction.EGRESS,)}
    policies = [
        NetworkPolicy(name="d-nothing", **both),
        NetworkPolicy(name="c-peer", egress=(far,), **both),
        NetworkPolicy(name="b-port", egress=(far, port), **both),
        NetworkPolicy(name="a-yes", egress=(far, Rule(), port, Rule()), **both),
    ]
    connection = Connection(
        **dict(zip(("src", "dst"), pair(scenario.cluster, scenario.end("x/a"), scenario.end("x/b")), strict=True)),
        protocol=Protocol.TCP,
        port=80,
    )
    said = evaluate(policies, scenario.cluster, connection).egress
    assert said.outcome is DirectionOutcome.ALLOWED
    assert [(f.policy, f.reason, f.rules) for f in said.policies] == [
        ("x/a-yes", PolicyReason.ALLOWED, (2, 4)),
        ("x/b-port", PolicyReason.PORT_NOT_MATCHED, (2,)),
        ("x/c-peer", PolicyReason.PEER_NOT_MATCHED, ()),
        ("x/d-nothing", PolicyReason.NO_RULES, ()),
    ]


def test_a_service_port_is_translated_before_policies_see_it():
    assert judged(Rule(), "ip:10.96.0.9").verdict is Verdict.ALLOWED
    said = judged(Rule(ports=(PolicyPort(port=80),)), "ip:10.96.0.9")
    assert said.egress.outcome is DirectionOutcome.UNKNOWN
    assert said.egress.policies[0].reason is PolicyReason.UNKNOWN
    assert said.egress.policies[0].rules == (1,)
    assert judged(Rule(peers=(ANY,)), "ip:10.96.0.9").verdict is Verdict.DENIED
    assert (
        judged(Rule(peers=(SelectorPeer(pod_selector=LabelSelector()),)), "ip:203.0.113.50").verdict is Verdict.DENIED
    )
    assert judged(Rule(ports=(PolicyPort(port="web"),)), "ip:10.96.0.9").verdict is Verdict.DENIED


def test_a_pod_whose_address_is_not_stated():
    eight = IPBlock(cidr=parse_cidr_text("10.0.0.0/8"))
    all_but = IPBlock(cidr=ANY.cidr, excepts=(eight.cidr,))
    six = IPBlock(cidr=parse_cidr_text("::/0"))
    for block, verdict in (
        (ANY, Verdict.ALLOWED),
        (eight, Verdict.UNKNOWN),
        (all_but, Verdict.UNKNOWN),
        (six, Verdict.UNKNOWN),
    ):
        assert judged(Rule(peers=(block,)), "x/lost").verdict is verdict
    assert judged(Rule(peers=(SelectorPeer(pod_selector=LabelSelector()),)), "x/lost").verdict is Verdict.ALLOWED


def parse_cidr_text(text):
    return (
        parse_policy(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "p"},
                "spec": {"ingress": [{"from": [{"ipBlock": {"cidr": text}}]}]},
            }
        )
        .ingress[0]
        .peers[0]
        .cidr
    )


def test_one_plug_in_may_match_nodes_by_all_namespaces():
    everyone = Rule(peers=(SelectorPeer(namespace_selector=LabelSelector()),))
    assert judged(everyone, "ip:192.0.2.2").verdict is Verdict.DENIED
    said = judged(everyone, "ip:192.0.2.2", profile=OVN_KUBERNETES)
    assert said.verdict is Verdict.UNKNOWN
    assert "whether selectors match nodes" in said.egress.cause
    named = Rule(peers=(SelectorPeer(namespace_selector=LabelSelector(match_labels=(("a", "b"),))),))
    assert judged(named, "ip:192.0.2.2", profile=OVN_KUBERNETES).verdict is Verdict.DENIED


def test_a_plug_in_without_port_ranges_or_sctp():
    ranged = Rule(ports=(PolicyPort(port=80, end_port=90),))
    assert judged(ranged, "x/b", port=90).verdict is Verdict.ALLOWED
    assert judged(ranged, "x/b", port=90, profile=WEAVE).verdict is Verdict.DENIED
    assert judged(ranged, "x/b", port=80, profile=WEAVE).verdict is Verdict.ALLOWED
    sctp = Rule(ports=(PolicyPort(protocol=Protocol.SCTP),))
    assert judged(sctp, "x/b", protocol=Protocol.SCTP, profile=WEAVE).verdict is Verdict.UNKNOWN
    assert judged(sctp, "x/b", profile=WEAVE).verdict is Verdict.DENIED


def test_an_ended_pod_is_nobodys_subject_and_nobodys_peer():
    scenario = scenario_of(PAGE)
    pods = tuple(replace(pod, ended=pod.name == "b") for pod in scenario.cluster.pods)
    cluster = replace(scenario.cluster, pods=pods)
    a, b = (PodEndpoint(pod=pod, ip=pod.ips[0]) for pod in pods[:2])
    deny = NetworkPolicy(namespace="x", name="d", policy_types=tuple(Direction))
    peers = NetworkPolicy(
        namespace="x",
        name="p",
        policy_types=tuple(Direction),
        egress=(Rule(peers=(SelectorPeer(pod_selector=LabelSelector()),)),),
    )
    into = Connection(src=a, dst=b, protocol=Protocol.TCP, port=80)
    assert evaluate([deny], cluster, into).ingress.outcome is DirectionOutcome.NOT_A_POD
    assert evaluate([peers], cluster, into).egress.outcome is DirectionOutcome.DENIED


def test_endpoints_by_address():
    scenario = scenario_of(PAGE | {"pods": [*PAGE["pods"], {"name": "h", "hostNetwork": True, "nodeIP": "192.0.2.2"}]})
    cluster = scenario.cluster
    assert isinstance(endpoint_of_address(cluster, "10.0.0.1"), PodEndpoint)
    assert isinstance(endpoint_of_address(cluster, "::ffff:10.0.0.1"), PodEndpoint)
    assert isinstance(endpoint_of_address(cluster, "192.0.2.2"), NodeEndpoint)  # not the pod that shares it
    assert isinstance(endpoint_of_address(cluster, "10.96.0.9"), ServiceEndpoint)
    assert isinstance(endpoint_of_address(cluster, "203.0.113.50"), ServiceEndpoint)
    assert endpoint_of_address(cluster, "203.0.113.9") == AddressEndpoint(ip=ip_address("203.0.113.9"))


def test_a_connection_keeps_to_one_family():
    scenario = scenario_of(PAGE)
    both, six = scenario.end("x/both"), ip_address("2001:db8::1")
    assert pair(scenario.cluster, both, six)[0].ip == ip_address("fd00::4")
    assert pair(scenario.cluster, six, both)[1].ip == ip_address("fd00::4")
    assert pair(scenario.cluster, both, scenario.end("x/a"))[0].ip == ip_address("10.0.0.4")
    assert pair(scenario.cluster, scenario.end("x/lost"), six)[0].ip == ip_address("0.0.0.0")


# ---- the compiled form's own surface ----


def some_pods(count):
    return tuple(
        Pod(
            namespace="x",
            name=f"p{n}",
            workload=Workload(cluster="c", namespace="x", kind="Pod", name=f"p{n}"),
            labels=(("n", str(n)), ("parity", "odd" if n % 2 else "even")),
            ips=(ip_address(0x0A000000 + n + 1),),
        )
        for n in range(count)
    )


def select(operator, *values, key="parity"):
    return LabelSelector(match_expressions=(Requirement(key=key, operator=operator, values=values),))


def test_many_classes_and_every_operator():
    cluster = ClusterSnapshot(pods=some_pods(150))
    selectors = [
        select(Operator.IN, "odd"),
        select(Operator.NOT_IN, "odd", "none"),
        select(Operator.EXISTS),
        select(Operator.DOES_NOT_EXIST),
        select(Operator.DOES_NOT_EXIST, key="zone"),
        *(select(Operator.IN, str(n), key="n") for n in range(150)),
    ]
    policies = [
        NetworkPolicy(
            namespace="x",
            name=f"p{i}",
            pod_selector=chosen,
            policy_types=(Direction.INGRESS,),
            ingress=(Rule(peers=(SelectorPeer(pod_selector=selectors[(i * 7) % 155]),), ports=(PolicyPort(port=i),)),),
        )
        for i, chosen in enumerate(selectors)
        if i != 2
    ]
    compiled = compile_policies(policies, cluster)
    ends = [PodEndpoint(pod=pod, ip=pod.ips[0]) for pod in cluster.pods]
    for port in (1, 40, 150):
        for src, dst in zip(ends, ends[3:], strict=False):
            connection = Connection(src=src, dst=dst, protocol=Protocol.TCP, port=port)
            said = evaluate(policies, cluster, connection)
            assert compiled.verdict(src, dst, Protocol.TCP, port) is said.verdict
    assert len(compiled.policies) == 154
    assert compiled.port_classes[0].first == 0
    assert compiled.isolated(Direction.INGRESS).all()
    assert not compiled.isolated(Direction.EGRESS).any()


def test_nothing_compiled_allows_everything():
    compiled = compile_policies([], ClusterSnapshot(pods=some_pods(2)))
    assert [VERDICTS[code] for code in compiled.verdicts(np.array([0, 1]), np.array([1, 0]), Protocol.UDP, 53)] == [
        Verdict.ALLOWED,
        Verdict.ALLOWED,
    ]
    assert compiled.without_policy(NetworkPolicy(namespace="x", name="none")).policies == ()
    assert compile_policies([], ClusterSnapshot()).ends.all == ()


def test_an_end_that_was_not_compiled_in_is_refused():
    compiled = compile_policies([], ClusterSnapshot(pods=some_pods(1)))
    with pytest.raises(KeyError):
        compiled.number(NodeEndpoint(node=Node(name="n"), ip=ip_address("192.0.2.1")))


def test_a_policy_added_changed_and_taken_away():
    cluster = ClusterSnapshot(pods=some_pods(4))
    ends = [PodEndpoint(pod=pod, ip=pod.ips[0]) for pod in cluster.pods]
    isolates = NetworkPolicy(namespace="x", name="p", policy_types=(Direction.INGRESS,))
    opens = replace(isolates, ingress=(Rule(ports=(PolicyPort(port=8443),)),))
    first = compile_policies([], cluster)
    second = first.with_policy(isolates)
    third = second.with_policy(opens)
    last = third.without_policy(opens)

    def verdicts(compiled):
        return [compiled.verdict(ends[0], ends[1], Protocol.TCP, port) for port in (80, 8443)]

    assert verdicts(first) == verdicts(last) == [Verdict.ALLOWED, Verdict.ALLOWED]
    assert verdicts(second) == [Verdict.DENIED, Verdict.DENIED]
    assert verdicts(third) == [Verdict.DENIED, Verdict.ALLOWED]
    assert [len(compiled.policies) for compiled in (first, second, third, last)] == [0, 1, 1, 0]


def test_two_addresses_of_one_pod_are_one_pod():
    scenario = scenario_of(PAGE)
    pod = scenario.end("x/both")
    ends = [PodEndpoint(pod=pod, ip=ip) for ip in pod.ips]
    deny = NetworkPolicy(namespace="x", name="d", policy_types=tuple(Direction))
    connection = Connection(src=ends[0], dst=ends[1], protocol=Protocol.TCP, port=80)
    assert evaluate([deny], scenario.cluster, connection).egress.outcome is DirectionOutcome.SELF
    assert compile_policies([deny], scenario.cluster).verdict(*ends, Protocol.TCP, 80) is Verdict.ALLOWED


def test_a_pair_asked_often_gets_the_verdicts_of_one_asked_once() -> None:
    """`between` leaves out what cannot mean the other end; it must never leave out the isolation itself."""
    here = [pod for pod in TOWN.pods if not pod.host_network]
    apps = sorted({label for pod in here for label in pod.labels})
    peers = tuple(SelectorPeer(pod_selector=LabelSelector(match_labels=(label,))) for label in apps[:3])
    policies = [
        NetworkPolicy(
            namespace=namespace,
            name=f"p{number}",
            policy_types=types,
            ingress=(Rule(peers=peers[:2], ports=(PolicyPort(port=80),)), Rule(peers=peers[2:])),
            egress=(Rule(peers=peers),) if number else (),
        )
        for namespace in {pod.namespace for pod in here}
        for number, types in enumerate((None, (Direction.INGRESS, Direction.EGRESS)))
    ]
    judge = Judge(policies, TOWN, GENERIC)
    verdicts = set()
    for src, dst in product(here, here):
        ends = pod_endpoint(src), pod_endpoint(dst)
        explain = judge.between(*ends)
        for port in (80, 81):
            connection = connect(*ends, Protocol.TCP, port)
            assert explain(connection).verdict is judge.explain(connection).verdict, connection
            verdicts.add(explain(connection).verdict)
    assert len(verdicts) > 1
