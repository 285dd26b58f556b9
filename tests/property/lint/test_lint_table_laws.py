"""The verdict table against the plain evaluator, and "without it" against removing it, on random small clusters."""

from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.model.address import IPAddress
from aggregator.model.cluster import ClusterSnapshot, ContainerPort, Namespace, Node, Pod
from aggregator.model.endpoint import Connection
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
from aggregator.model.verdict import Verdict
from aggregator.model.workload import Workload
from aggregator.policy.diff import diff
from aggregator.policy.evaluation.endpoints import pair
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.export.calico import export_calico
from aggregator.policy.export.cilium import export_cilium
from aggregator.policy.export.kustomize import export_kustomize
from aggregator.policy.lint import verdict_table
from aggregator.policy.lint.table import RuleRef, VerdictTable
from aggregator.policy.lint.universe import Universe, all_rules, bits


def _pod(namespace: str, name: str, number: int, labels: dict[str, str], *, host: bool = False) -> Pod:
    return Pod(
        namespace=namespace,
        name=name,
        workload=Workload(cluster="c", namespace=namespace, kind="Deployment", name=name.partition("-")[0]),
        labels=tuple(sorted(labels.items())),
        ips=tuple(ip_network(f"10.0.0.{number}/32").hosts()),
        ports=(ContainerPort(name="http", port=8000 + number % 2),),
        host_network=host,
        node_name="n1" if host else "",
    )


CLUSTER = ClusterSnapshot(
    name="c",
    namespaces=(Namespace(name="a", labels=(("team", "x"),)), Namespace(name="b")),
    nodes=(Node(name="n1", addresses=tuple(ip_network("192.0.2.1/32").hosts())),),
    pods=(
        _pod("a", "web-1", 1, {"app": "web"}),
        _pod("a", "web-2", 2, {"app": "web", "canary": "y"}),
        _pod("a", "db", 3, {"app": "db"}),
        _pod("b", "web", 4, {"app": "web"}),
        _pod("b", "bare", 5, {}),
    ),
)

_labels = st.sampled_from([(), (("app", "web"),), (("app", "db"),), (("canary", "y"),), (("app", "none"),)])
_requirements = st.lists(
    st.sampled_from(
        [
            Requirement(key="app", operator=Operator.NOT_IN, values=("db",)),
            Requirement(key="canary", operator=Operator.EXISTS),
            Requirement(key="app", operator=Operator.DOES_NOT_EXIST),
            Requirement(key="app", operator=Operator.IN, values=("db", "web")),
        ]
    ),
    max_size=1,
).map(tuple)
_selectors = st.builds(LabelSelector, match_labels=_labels, match_expressions=_requirements)
_namespace_selectors = st.sampled_from(
    [
        LabelSelector(),
        LabelSelector(match_labels=(("kubernetes.io/metadata.name", "b"),)),
        LabelSelector(match_labels=(("team", "x"),)),
    ]
)
_peers = st.one_of(
    st.builds(SelectorPeer, pod_selector=_selectors),
    st.builds(SelectorPeer, pod_selector=st.none() | _selectors, namespace_selector=_namespace_selectors),
    st.sampled_from(
        [
            IPBlock(cidr=ip_network("203.0.113.0/24"), excepts=(ip_network("203.0.113.128/25"),)),
            IPBlock(cidr=ip_network("10.0.0.2/31")),
            IPBlock(cidr=ip_network("0.0.0.0/0")),
            IPBlock(cidr=ip_network("2001:db8::/32")),
        ]
    ),
)
_ports = st.sampled_from(
    [
        PolicyPort(port=80),
        PolicyPort(port=8000, end_port=8001),
        PolicyPort(port="http"),
        PolicyPort(port="http", protocol=Protocol.UDP),
        PolicyPort(protocol=Protocol.UDP),
        PolicyPort(port=65535, protocol=Protocol.SCTP),
        PolicyPort(),
    ]
)
_rules = st.builds(
    Rule, peers=st.lists(_peers, max_size=2).map(tuple), ports=st.lists(_ports, max_size=2, unique=True).map(tuple)
)
_policies = st.lists(
    st.builds(
        NetworkPolicy,
        namespace=st.sampled_from(["a", "b"]),
        name=st.just("p"),
        pod_selector=_selectors,
        policy_types=st.sampled_from(
            [(Direction.INGRESS,), (Direction.EGRESS,), (Direction.INGRESS, Direction.EGRESS), None]
        ),
        ingress=st.lists(_rules, max_size=2).map(tuple),
        egress=st.lists(_rules, max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=3,
).map(lambda policies: [replace(p, name=f"p{i}") for i, p in enumerate(policies)])


def ends(universe: Universe, bit: int, *, second: bool = False) -> Pod | IPAddress:
    c = universe.classes[bit]
    if c.pods:
        return c.pods[-1 if second else 0]
    assert c.address is not None
    return c.address


def verdicts(table: VerdictTable) -> dict[tuple[int, int], int]:
    classes = table.universe.classes
    return {
        (src.bit, dst.bit): table.verdict(src.bit, dst.bit)
        for src in classes
        for dst in classes
        if (src.pods or dst.pods) and (src is not dst or len(src.pods) > 1)
    }


@settings(max_examples=80, deadline=None)
@given(_policies)
def test_the_table_is_what_the_evaluator_says(policies: list[NetworkPolicy]) -> None:
    table = verdict_table(policies, CLUSTER)
    universe = table.universe
    for (src, dst), mask in verdicts(table).items():
        for interval in bits(universe.every_port):
            protocol, port = universe.port_at(1 << interval)
            both = pair(CLUSTER, ends(universe, src), ends(universe, dst, second=True))
            connection = Connection(src=both[0], dst=both[1], protocol=protocol, port=port)
            expected = evaluate(policies, CLUSTER, connection).verdict is Verdict.ALLOWED
            assert bool(mask >> interval & 1) == expected, (connection, policies)


@settings(max_examples=80, deadline=None)
@given(_policies)
def test_without_it_is_what_removing_it_gives(policies: list[NetworkPolicy]) -> None:
    policies = [replace(p, policy_types=tuple(sorted(p.directions, key=lambda d: d.value))) for p in policies]
    table = VerdictTable(Universe(policies, CLUSTER, beside=policies))
    whole = verdicts(table)
    for number, policy in enumerate(policies):
        rest = [p for p in policies if p is not policy]
        changed = verdicts(VerdictTable(Universe(rest, CLUSTER, beside=policies))) != whole
        assert table.changes_without_policy(number) == changed
        for direction, index, _, _ in all_rules(policy):
            kept = tuple(r for i, r in enumerate(policy.rules(direction)) if i != index)
            field = "ingress" if direction is Direction.INGRESS else "egress"
            less = [replace(p, **{field: kept}) if p is policy else p for p in policies]
            changed = verdicts(VerdictTable(Universe(less, CLUSTER, beside=policies))) != whole
            ref = RuleRef(policy=number, direction=direction, index=index)
            assert table.changes_without_rule(ref) == changed
    denied = any(mask != table.universe.every_port for mask in whole.values())
    assert table.is_vacuous() == (not denied)


@settings(max_examples=60, deadline=None)
@given(_policies, _policies)
def test_a_diff_is_empty_exactly_when_every_verdict_is_the_same(
    before: list[NetworkPolicy], after: list[NetworkPolicy]
) -> None:
    found = diff(before, after, CLUSTER)
    tables = [verdicts(VerdictTable(Universe(p, CLUSTER, beside=(*before, *after)))) for p in (before, after)]
    assert found.same_effect == (tables[0] == tables[1])
    back = diff(after, before, CLUSTER)
    assert (back.opened, back.closed) == (found.closed, found.opened)
    assert diff(before, before, CLUSTER).is_empty


@settings(max_examples=60, deadline=None)
@given(_policies)
def test_exports_are_judged_like_what_they_were_made_from(policies: list[NetworkPolicy]) -> None:
    assert export_calico(policies, CLUSTER).certified
    assert export_kustomize(policies, CLUSTER).certified
    assert export_cilium(policies, CLUSTER).certified
