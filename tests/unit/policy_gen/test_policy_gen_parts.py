"""Ports, rules, covers, names, splitting, rendering, intervals: the small parts of generation."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
import yaml

from aggregator.model.adminpolicy import Action as AdminAction
from aggregator.model.adminpolicy import AdminPolicy, AdminPort, AdminRule, ForeignPolicy, PodsPeer, Tier
from aggregator.model.cluster import ContainerPort, Pod
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
from aggregator.model.workload import Workload
from aggregator.policy.evaluation.intervals import intervals, merged, without
from aggregator.policy.generation.cidrs import Cover, budgeted, exact
from aggregator.policy.generation.minimise import MAX_CONCEPTS, by_peers, greedy, lines, maximal, minimise
from aggregator.policy.generation.naming import MAX_NAME, Names
from aggregator.policy.generation.ports import code, codes, compact, dynamic_ranges
from aggregator.policy.generation.rules import port_key, sort_rules, typed_block
from aggregator.policy.manifest.readback import read_back
from aggregator.policy.manifest.render import quote, render, render_one
from aggregator.policy.manifest.split import split

TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP


def test_consecutive_ports_become_a_range_only_from_three_on() -> None:
    numbers = codes([(TCP, 80), (TCP, 81), (TCP, 82), (UDP, 83), (UDP, 84), (SCTP, 9)])
    assert compact(numbers) == (
        PolicyPort(protocol=TCP, port=80, end_port=82),
        PolicyPort(protocol=UDP, port=83),
        PolicyPort(protocol=UDP, port=84),
        PolicyPort(protocol=SCTP, port=9),
    )
    assert compact(frozenset()) == ()


def test_a_run_does_not_leave_its_protocol() -> None:
    assert compact(codes([(TCP, 65534), (TCP, 65535), (UDP, 1)])) == (
        PolicyPort(protocol=TCP, port=65534),
        PolicyPort(protocol=TCP, port=65535),
        PolicyPort(protocol=UDP, port=1),
    )


def test_many_high_ports_look_dynamic_unless_they_are_declared_or_dense() -> None:
    high = {code(UDP, port) for port in (50000, 50100, 50200, 50300, 50400)}
    (found,) = dynamic_ranges(high)
    assert (found.protocol, found.first, found.last) == (UDP, 50000, 50400)
    assert not dynamic_ranges(high, [(UDP, 50000)])
    assert not dynamic_ranges({code(TCP, port) for port in range(8000, 8005)})


def test_no_cross_product_and_the_shorter_way_round() -> None:
    relation = {"a": {1, 2, 3}, "b": {1, 2}, "c": {3}}
    rules = minimise(relation, order=str)
    assert {(peer, port) for peers, ports in rules for peer in peers for port in ports} == {
        (peer, port) for peer, ports in relation.items() for port in ports
    }
    assert minimise({"a": {1}, "b": {1}}, order=str) == [(frozenset({"a", "b"}), frozenset({1}))]
    assert by_peers({"a": set()}) == []


def test_overlapping_rules_only_where_they_save_lines() -> None:
    wide = {
        peer: {
            port
            for low, high, at in ((1, 6, "abcdef"), (5, 10, "efghij"))
            if peer in at
            for port in range(low, high + 1)
        }
        for peer in "abcdefghij"
    }
    overlapping = minimise(wide, order=str, overlapping=True)
    assert lines(overlapping) < lines(minimise(wide, order=str))
    assert {(p, q) for ps, qs in overlapping for p in ps for q in qs} == {(p, q) for p, qs in wide.items() for q in qs}
    small = {"a": {1}}
    assert minimise(small, order=str, overlapping=True) == by_peers(small)


def test_a_relation_with_too_many_bicliques_is_not_searched() -> None:
    crown = {n: {m for m in range(14) if m != n} for n in range(14)}
    assert MAX_CONCEPTS < 2**14
    assert maximal(crown) is None
    assert greedy(crown, str) is None
    assert minimise(crown, order=str, overlapping=True)


def test_greedy_drops_what_later_rules_cover() -> None:
    relation = {"a": {1, 2}, "b": {2, 3}, "c": {3, 1}, "d": {1, 2, 3}}
    found = greedy(relation, str)
    assert found is not None
    assert {(p, q) for ps, qs in found for p in ps for q in qs} == {(p, q) for p, qs in relation.items() for q in qs}


def networks(*texts: str) -> list:  # type: ignore[type-arg]
    return [ip_network(text) for text in texts]


def test_exact_cover_adds_no_address() -> None:
    assert list(exact(networks("203.0.113.8/32", "203.0.113.9/32", "2001:db8::/128"))) == networks(
        "203.0.113.8/31", "2001:db8::/128"
    )


def test_budgeted_cover_adds_the_fewest_addresses() -> None:
    wanted = networks("203.0.113.0/32", "203.0.113.1/32", "203.0.113.3/32", "203.0.113.64/32")
    assert budgeted(wanted, 2) == Cover(networks=tuple(networks("203.0.113.0/30", "203.0.113.64/32")), extra=1)
    assert budgeted(wanted, 3) == Cover(networks=exact(wanted), extra=0)
    assert budgeted(wanted, 1) == Cover(networks=tuple(networks("203.0.113.0/25")), extra=124)


def test_budgeted_cover_never_touches_what_is_forbidden_nor_grows_too_wide() -> None:
    wanted = networks("203.0.113.0/32", "203.0.113.3/32")
    assert budgeted(wanted, 1, forbidden=networks("203.0.113.2/32")) is None
    assert budgeted(networks("203.0.113.0/32", "203.0.115.0/32"), 1) is None  # wider than a /24
    six = networks("2001:db8::1/128", "2001:db8::2/128")
    assert budgeted(six, 1) == Cover(networks=tuple(networks("2001:db8::/126")), extra=2)


def test_names_are_stable_valid_and_never_shared() -> None:
    one = Workload(cluster="c", namespace="app", kind="Deployment", name="web")
    other = replace(one, kind="StatefulSet")
    long = replace(one, name="x" * 253)
    names = Names([one, other, long], "wattle-")
    assert (names.of(one), names.of(other)) == ("wattle-web-deployment", "wattle-web-statefulset")
    assert len(names.of(long)) <= MAX_NAME
    assert names.of(long) != Names([], "wattle-").of(replace(one, name="x" * 252 + "y"))
    assert names.default_deny(Direction.EGRESS) == "wattle-default-deny-egress"


POLICY = NetworkPolicy(
    namespace="app",
    name="p",
    pod_selector=LabelSelector(
        match_labels=(("app", "1e3"), ("on", "y")),
        match_expressions=(Requirement(key="x", operator=Operator.IN, values=("a", "null")),),
    ),
    policy_types=(Direction.INGRESS, Direction.EGRESS),
    ingress=(
        Rule(),
        Rule(
            peers=(
                SelectorPeer(pod_selector=LabelSelector()),
                SelectorPeer(namespace_selector=LabelSelector(match_labels=(("kubernetes.io/metadata.name", "d"),))),
            ),
            ports=(PolicyPort(protocol=UDP), PolicyPort(port="http"), PolicyPort(port=80, end_port=82)),
        ),
    ),
    egress=(
        Rule(peers=(IPBlock(cidr=ip_network("10.0.0.0/8"), excepts=(ip_network("10.1.0.0/16"),)),)),
        Rule(ports=(PolicyPort(port=53),)),
    ),
    labels=(("a", "b"),),
    annotations=(("note", 'a\n"quoted" \u00e9 \x7f \U0001f600 \\ud83d\\ude00'),),
)


def test_round_trip_of_everything_that_a_policy_can_say() -> None:
    assert read_back(render([POLICY, replace(POLICY, name="q", policy_types=None)])) == (
        POLICY,
        replace(POLICY, name="q", policy_types=None),
    )
    assert read_back(render([])) == ()


@pytest.mark.parametrize("text", ["1e3", "on", "null", "", "~", "0x1F", "2024-01-01", "a\x7fb", "\U0001f600", "\\U"])
def test_quoted_scalars_come_back_as_they_were(text: str) -> None:
    assert quote(text).isascii()
    assert yaml.safe_load(quote(text)) == text


def test_a_large_policy_is_split_into_parts_that_add_up() -> None:
    peers = tuple(IPBlock(cidr=ip_network(ip_address(n + (11 << 24)))) for n in range(40))
    policy = replace(
        POLICY, ingress=(Rule(peers=peers, ports=(PolicyPort(port=80),)), Rule(peers=peers[:2])), egress=()
    )
    assert split(policy, max_peers=100, max_bytes=1 << 20) == (policy,)
    parts = split(policy, max_peers=16, max_bytes=1 << 20)
    assert len(parts) > 1
    assert {part.name for part in parts} <= {f"p-{n}" for n in range(1, 65)}
    assert {(peer, rule.ports) for part in parts for rule in part.ingress for peer in rule.peers} == {
        (peer, rule.ports) for rule in policy.ingress for peer in rule.peers
    }
    small = split(policy, max_peers=100, max_bytes=1500)
    assert all(len(render_one(part)) <= 1500 for part in small)


def test_world_rules_spare_the_cluster_and_cloud_metadata() -> None:
    inside = networks("10.244.0.0/16", "10.96.0.0/12", "fd00::/64")
    world = typed_block(
        ip_network("0.0.0.0/0"), excluded=[ip_address("203.0.113.9")], cluster_cidrs=inside, reaches_metadata=False
    )
    assert list(world.excepts) == networks("10.96.0.0/12", "10.244.0.0/16", "169.254.0.0/16", "203.0.113.9/32")
    kept = typed_block(ip_network("0.0.0.0/0"), excluded=[], cluster_cidrs=[], reaches_metadata=True)
    assert kept.excepts == ()
    narrow = typed_block(ip_network("169.254.169.0/24"), excluded=[], cluster_cidrs=[], reaches_metadata=False)
    assert list(narrow.excepts) == networks("169.254.169.254/32")
    itself = typed_block(
        ip_network("203.0.113.9/32"), excluded=[ip_address("203.0.113.9")], cluster_cidrs=[], reaches_metadata=False
    )
    assert itself.excepts == ()
    nested = typed_block(
        ip_network("10.0.0.0/8"),
        excluded=[ip_address("10.244.1.1")],
        cluster_cidrs=networks("10.244.0.0/16"),
        reaches_metadata=False,
    )
    assert list(nested.excepts) == networks("10.244.0.0/16")


def test_rules_are_sorted_by_first_peer_then_ports() -> None:
    far = Rule(peers=(IPBlock(cidr=ip_network("10.0.0.0/8")),))
    near = Rule(peers=(SelectorPeer(pod_selector=LabelSelector(match_labels=(("a", "b"),))),))
    assert sort_rules("app", [far, near, near]) == (near, far)
    assert sort_rules("app", [far, Rule(ports=(PolicyPort(port=1),))])[0].peers == ()
    ordered = [PolicyPort(port=80), PolicyPort(port="a"), PolicyPort(protocol=UDP, port=1)]
    assert sorted([ordered[2], ordered[1], ordered[0]], key=port_key) == ordered


def test_intervals_break_at_every_port_that_a_policy_names() -> None:
    named = Pod(
        namespace="app",
        name="p",
        workload=Workload(cluster="c", namespace="app", kind="Pod", name="p"),
        ports=(ContainerPort(name="http", port=8080),),
    )
    every = LabelSelector()
    admin = AdminPolicy(
        kind="AdminNetworkPolicy",
        name="a",
        tier=Tier.ADMIN,
        subject=PodsPeer(namespace_selector=every),
        ingress=(
            AdminRule(
                action=AdminAction.DENY,
                peers=(),
                ports=(AdminPort(first=22), AdminPort(name="http"), AdminPort(protocol=TCP)),
            ),
        ),
    )
    policy = replace(
        POLICY, ingress=(Rule(ports=(PolicyPort(port=80, end_port=82), PolicyPort(port="http"))),), egress=()
    )
    found = intervals([policy, admin, ForeignPolicy(kind="X", name="f")], named)
    assert found[TCP] == [(1, 21), (22, 22), (23, 79), (80, 80), (81, 82), (83, 8079), (8080, 8080), (8081, 65535)]
    assert found[UDP] == [(1, 21), (22, 22), (23, 65535)]
    assert intervals([policy], None)[TCP] == [(1, 79), (80, 80), (81, 82), (83, 65535)]
    assert intervals([replace(policy, ingress=(Rule(ports=(PolicyPort(),)),))], None)[TCP] == [(1, 65535)]


def test_spans_are_merged_and_cut() -> None:
    assert merged([(5, 9), (1, 4), (20, 30), (21, 22)]) == [(1, 9), (20, 30)]
    assert without([(1, 9)], [1, 5, 9, 77]) == [(2, 4), (6, 8)]


def test_an_object_that_cannot_be_parted_any_further_is_left_as_it_is() -> None:
    one = replace(POLICY, ingress=(Rule(peers=(IPBlock(cidr=ip_network("10.0.0.0/8")),)),), egress=())
    assert [part.ingress for part in split(one, max_peers=1, max_bytes=10)] == [one.ingress]


def test_a_plain_policy_without_labels_renders_without_them() -> None:
    bare = NetworkPolicy(namespace="app", name="p", policy_types=(Direction.INGRESS,))
    assert "labels" not in render_one(bare)
    assert read_back(render_one(bare)) == (bare,)


def test_the_cheaper_way_to_the_same_number_of_prefixes_wins() -> None:
    wanted = networks(*(f"203.0.113.{n}/32" for n in (0, 3, 8, 9, 11, 32, 34, 64, 127)))
    costs = [found.extra for k in range(1, 10) if (found := budgeted(wanted, k)) is not None]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 0
