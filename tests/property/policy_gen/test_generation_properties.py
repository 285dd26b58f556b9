"""What holds for every generation (the rules' names are those of the policy engine's specification, section D)."""

from dataclasses import replace

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Decisions, GeneralRule
from aggregator.model.link import Link
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.proposal import Generation, Reason
from aggregator.model.protocol import Direction
from aggregator.model.settings import Settings
from aggregator.model.verdict import DirectionOutcome, Verdict
from aggregator.model.workload import Workload
from aggregator.policy.certify import CERTIFICATE_BROKEN, certify
from aggregator.policy.generation.generate import generate
from aggregator.policy.generation.selectors import Selected, Selectors
from aggregator.policy.manifest.parse import parse_policy
from aggregator.policy.manifest.render import render
from aggregator.policy.manifest.validate import validate
from tests.property.policy_gen.worlds import (
    World,
    allowed_links,
    ends_of,
    explained,
    tries,
    universe,
    worlds,
)

BOTH = frozenset(Direction)
OPTIONS = st.builds(
    Settings,
    include_external=st.booleans(),
    close_unseen=st.sampled_from((frozenset(), frozenset({Direction.INGRESS}), BOTH)),
    compact=st.booleans(),
    cidr_budget=st.sampled_from((None, None, 1, 2)),
    synthesise_dns=st.booleans(),
)
many = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def made(world: World, options: Settings) -> Generation:
    return generate(world.links, world.decisions, world.cluster, options)


@many
@given(worlds(), OPTIONS)
def test_every_proposal_can_be_proved(world: World, options: Settings) -> None:
    certified = certify(made(world, options), world.cluster, decisions=world.decisions)
    broken = [finding.message for finding in certified.findings if finding.code == CERTIFICATE_BROKEN]
    assert not broken
    for proposal in certified.proposals:
        assert proposal.certificate is not None
        assert proposal.certificate.holds


@many
@given(worlds(), OPTIONS)
def test_soundness_and_what_is_left_out_is_denied(world: World, options: Settings) -> None:
    generation = made(world, options)
    for proposal in generation.proposals:
        for row in proposal.included:
            for connection, said in explained(generation.policies, world.cluster, row.observed.link):
                sides = {said.egress.outcome, said.ingress.outcome}
                unowned = DirectionOutcome.UNKNOWN in sides  # an address of the pod CIDR that is nobody's
                assert said.verdict is Verdict.ALLOWED or unowned, (row, connection, said)
    for left in generation.left_out:
        if left.denied:
            for connection, said in explained(generation.policies, world.cluster, left.observed.link):
                assert said.verdict is not Verdict.ALLOWED, (left, connection, said)


@few
@given(worlds(labelled=True), OPTIONS)
def test_tightness_nothing_is_open_that_is_not_listed(world: World, options: Settings) -> None:
    """Every pair of live ends that a proposal isolates is denied, included, or in a certificate's list of openings."""
    generation = certify(made(world, options), world.cluster, decisions=world.decisions)
    included = {row.observed.link for proposal in generation.proposals for row in proposal.included}
    opened = [o for p in generation.proposals if p.certificate is not None for o in p.certificate.opened]
    listed: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for pair in opened:
        listed.setdefault((pair.src, pair.dst, pair.protocol), []).append((pair.first_port, pair.last_port))
    live = [link for link in universe(world.cluster) if not _outside(link, world.cluster)]
    for link in live:
        for connection, said in explained(generation.policies, world.cluster, link):
            isolated = DirectionOutcome.ALLOWED in {said.egress.outcome, said.ingress.outcome}
            if said.verdict is Verdict.ALLOWED and isolated and link not in included:
                spans = listed.get((link.src, link.dst, link.protocol), [])
                assert any(first <= link.port <= last for first, last in spans), (
                    connection,
                    render(generation.policies),
                )
    for pair in opened:
        link = Link(src=pair.src, dst=pair.dst, protocol=pair.protocol, port=pair.first_port)
        if link in live and any(tries(world.cluster, link)):  # a CronJob between two runs has no pod to try
            assert link not in included
            assert allowed_links(generation.policies, world.cluster, [link])


def _outside(link: Link, cluster: ClusterSnapshot) -> bool:
    """Has it an end that is nobody's in the cluster?"""
    live = {end for end in ends_of(cluster) if isinstance(end, Workload)}
    return not {link.src, link.dst} <= live


@many
@given(worlds(), OPTIONS, st.randoms(use_true_random=False))
def test_the_order_of_links_changes_no_byte(world: World, options: Settings, random: object) -> None:
    shuffled = list(world.links)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = made(world, options), made(replace(world, links=tuple(shuffled)), options)
    assert render(one.policies) == render(other.policies)
    assert one.findings == other.findings
    assert one.left_out == other.left_out


@many
@given(worlds(decided=False, plain=True), st.booleans())
def test_idempotence(world: World, compact: bool) -> None:
    options = Settings(include_external=True, close_unseen=BOTH, compact=compact)
    first = made(world, options)
    included = {row.observed for proposal in first.proposals for row in proposal.included}
    kept = [row for row in world.links if row in included]
    again = generate(kept, Decisions(), world.cluster, options)
    subjects = {proposal.workload for proposal in again.proposals}
    assert render(again.policies) == render(
        policy for proposal in first.proposals if proposal.workload in subjects for policy in proposal.policies
    )


@few
@given(worlds(labelled=True, plain=True, decided=False), st.data())
def test_monotonicity_on_workloads_isolated_in_both(world: World, data: st.DataObject) -> None:
    options = Settings(include_external=True, close_unseen=BOTH)
    some = [row for row in world.links if data.draw(st.booleans())]
    small = generate(some, Decisions(), world.cluster, options)
    large = generate(world.links, Decisions(), world.cluster, options)
    both = {p.workload for p in small.proposals} & {p.workload for p in large.proposals}
    pairs = [link for link in universe(world.cluster) if link.src in both and link.dst in both]
    assert allowed_links(small.policies, world.cluster, pairs) <= allowed_links(large.policies, world.cluster, pairs)


@many
@given(worlds(plain=True, decided=False), st.data())
def test_locality_a_link_changes_the_policies_of_its_two_ends_only(world: World, data: st.DataObject) -> None:
    if not world.links:
        return
    extra = data.draw(st.sampled_from(world.links))
    options = Settings(include_external=True)
    without = generate([row for row in world.links if row is not extra], Decisions(), world.cluster, options)
    with_it = generate(world.links, Decisions(), world.cluster, options)
    touched = {extra.link.src, extra.link.dst}
    assert _untouched(without, touched) == _untouched(with_it, touched)


def _untouched(generation: Generation, touched: set[object]) -> dict[Workload, tuple[NetworkPolicy, ...]]:
    return {p.workload: p.policies for p in generation.proposals if p.workload not in touched}


@many
@given(worlds(), OPTIONS)
def test_round_trip_and_the_api_takes_it(world: World, options: Settings) -> None:
    policies = made(world, options).policies
    objects = list(yaml.safe_load_all(render(policies))) if policies else []
    assert tuple(parse_policy(obj) for obj in objects) == policies
    for obj in objects:
        assert not validate(obj, strict_cidrs=True)


@many
@given(worlds())
def test_selectors_select_exactly_their_workload(world: World) -> None:
    selectors = Selectors(world.cluster, world.decisions.labels.workload_labels)
    worn = [(pod.workload, dict(pod.labels)) for pod in world.cluster.pods]
    worn += [(record.workload, dict(record.template_labels)) for record in world.cluster.workloads]
    for workload, _ in worn:
        selection = selectors.select(workload)
        if isinstance(selection, Selected):
            assert not selection.selector.is_empty
            matched = {
                w for w, labels in worn if w.namespace == workload.namespace and selection.selector.matches(labels)
            }
            assert matched == {workload}
            assert all(selection.selector.matches(labels) for w, labels in worn if w == workload)


@many
@given(worlds(), OPTIONS)
def test_a_generated_label_changes_nothing(world: World, options: Settings) -> None:
    def renamed(cluster: ClusterSnapshot) -> ClusterSnapshot:
        pods = tuple(
            replace(pod, labels=tuple((k, "other" if k == "pod-template-hash" else v) for k, v in pod.labels))
            for pod in cluster.pods
        )
        records = tuple(
            replace(
                record,
                template_labels=tuple((k, "x" if k == "pod-template-hash" else v) for k, v in record.template_labels),
            )
            for record in cluster.workloads
        )
        return replace(cluster, pods=pods, workloads=records)

    changed = replace(world, cluster=renamed(world.cluster))
    assert render(made(world, options).policies) == render(made(changed, options).policies)


@few
@given(worlds(labelled=True), OPTIONS)
def test_a_split_policy_says_what_the_whole_says(world: World, options: Settings) -> None:
    whole = made(world, options)
    parts = made(world, replace(options, max_peers=1))
    pairs = universe(world.cluster)
    assert allowed_links(whole.policies, world.cluster, pairs) == allowed_links(parts.policies, world.cluster, pairs)


@few
@given(worlds(labelled=True, plain=True, decided=False), OPTIONS)
def test_merged_rules_say_what_single_rules_say(world: World, options: Settings) -> None:
    generation = made(world, replace(options, cidr_budget=None))
    single = tuple(_unmerged(policy) for policy in generation.policies)
    pairs = universe(world.cluster)
    assert allowed_links(generation.policies, world.cluster, pairs) == allowed_links(single, world.cluster, pairs)


def _unmerged(policy: NetworkPolicy) -> NetworkPolicy:
    def cut(rules: tuple) -> tuple:  # type: ignore[type-arg]
        return tuple(
            replace(rule, peers=peers, ports=ports)
            for rule in rules
            for peers in ([(peer,) for peer in rule.peers] or [()])
            for ports in ([(port,) for port in rule.ports] or [()])
        )

    return replace(policy, ingress=cut(policy.ingress), egress=cut(policy.egress))


@many
@given(worlds(), OPTIONS)
def test_a_direction_in_which_nothing_was_seen_is_left_open(world: World, options: Settings) -> None:
    options = replace(options, close_unseen=frozenset())
    generation = made(world, options)
    decided = {(w, d) for w, d, _ in world.decisions.directions}
    decided |= {(typed.workload, typed.direction) for typed in world.decisions.typed_cidrs}
    said = {(f.subject, f.message.split()[0]) for f in generation.findings if f.code == "direction-left-open"}
    for proposal in generation.proposals:
        seen = {
            direction
            for row in (*proposal.included, *proposal.left_out)
            if getattr(row, "reason", None) is not Reason.SAME_NODE_PROBE
            for direction, end in (
                (Direction.EGRESS, row.observed.link.src),
                (Direction.INGRESS, row.observed.link.dst),
            )
            if end == proposal.workload
        }
        for direction in Direction:
            closed = direction in seen or (proposal.workload, direction) in decided
            assert all((direction in policy.directions) is closed for policy in proposal.policies)
            assert ((str(proposal.workload), direction.value.lower()) in said) is not closed


@many
@given(worlds(), OPTIONS)
def test_general_rules_replace_the_rows_of_their_direction(world: World, options: Settings) -> None:
    generation = made(world, options)
    rules = world.decisions.rule_by_direction
    for proposal in generation.proposals:
        for direction in Direction:
            found = [rule for policy in proposal.policies for rule in policy.rules(direction)]
            match rules.get((proposal.workload, direction)):
                case GeneralRule.ALLOW_ALL:
                    assert [(rule.peers, rule.ports) for rule in found] == [((), ())]
                case GeneralRule.BLOCK_ALL:
                    assert len(found) == len(world.decisions.typed_cidrs_of(proposal.workload, direction))
                case _:
                    assert all(rule.peers for rule in found)
