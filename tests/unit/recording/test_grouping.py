"""From batches to deltas: exact sums, nothing asked or told twice, no address that changed hands unseen."""

from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address

import pytest

from aggregator.model.link import Outcome
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Refused, Resolution
from aggregator.model.workload import Address
from aggregator.services.recording.identity_json import identity_from_json, identity_to_json
from aggregator.services.recording.openings import Openings
from aggregator.store.deltas import EvidenceKind, Sides
from tests.flowlink import CLUSTER, FakeResolver, Flow, flows
from tests.unit.recording.desk import NOW_MS, Desk
from wattle.v1 import flowlink_pb2


def test_rows_of_one_link_are_summed_exactly() -> None:
    desk = Desk(FakeResolver())
    large = 2**52 + 1  # a float would lose the last bit of the sum
    deltas = desk.group([Flow(tx_bytes=large)], [Flow(tx_bytes=large, count=4)])
    (row,) = deltas.activity
    assert (row["client_count"], row["client_tx_bytes"], row["server_count"]) == (5, 2 * large, 0)


def test_few_rows_among_many_answers_are_summed_alike() -> None:
    """Where most answers are not in the group, the sums are kept by those that are."""
    desk = Desk(FakeResolver())
    desk.group(flows(400))
    deltas = desk.group([Flow(port=8080, count=2), Flow(port=8080, count=3)], [Flow(port=8080, count=4)])
    assert deltas.activity["client_count"].tolist() == [9]


def test_client_and_server_meet_in_one_link() -> None:
    resolver = FakeResolver(addresses={"10.0.0.2": "uid-server", "10.0.0.1": "uid-client"})
    server = Flow(pod_uid="uid-server", remote="10.0.0.1", direction=flowlink_pb2.DIRECTION_INGRESS, count=2)
    deltas = Desk(resolver).group([Flow(count=3), server])
    (row,) = deltas.activity
    assert (row["client_count"], row["server_count"]) == (3, 2)
    (link,) = deltas.links
    assert link.sides == Sides.CLIENT | Sides.SERVER


def test_what_is_known_is_not_asked_again_within_a_generation() -> None:
    resolver = FakeResolver()
    desk = Desk(resolver)
    desk.group(flows(20))
    desk.group(flows(20), flows(20))
    assert resolver.asked == 20
    resolver.generation = 2
    desk.group(flows(20))
    assert resolver.asked == 40


def test_links_and_evidence_are_told_once_the_merge_is_committed() -> None:
    desk = Desk(FakeResolver())
    first = desk.group([Flow()])
    assert len(first.links) == 1
    assert {(seen.kind, seen.value) for seen in first.evidence} == {
        (EvidenceKind.CLIENT_PROCESS, "java"),
        (EvidenceKind.SRC_POD, "shop/uid-client-pod"),
    }
    again = desk.group([Flow()])
    assert (len(again.links), len(again.evidence)) == (1, 2), "the first was not committed"
    again.told()
    third = desk.group([Flow()])
    assert (len(third.links), len(third.evidence)) == (0, 0)
    later = desk.group([Flow()], end_ms=NOW_MS + 14_000 + 20_000 - 20_000)
    assert len(later.links) == 0
    desk.now_ms = NOW_MS + 60_000
    assert len(desk.group([Flow()], end_ms=NOW_MS + 60_000).links) == 1


@pytest.mark.parametrize(
    ("outcome", "established", "attempts", "rows"),
    [
        (flowlink_pb2.OUTCOME_ESTABLISHED, True, 0, 1),
        (flowlink_pb2.OUTCOME_OPEN, True, 0, 1),
        (flowlink_pb2.OUTCOME_REFUSED, False, 7, 0),
        (flowlink_pb2.OUTCOME_TIMED_OUT, False, 7, 0),
        (flowlink_pb2.OUTCOME_ABORTED, False, 7, 0),
    ],
)
def test_only_established_flows_make_a_link(outcome: int, established: bool, attempts: int, rows: int) -> None:
    deltas = Desk(FakeResolver()).group([Flow(outcome=outcome, count=7)])
    assert deltas.links[0].established is established
    assert sum(delta.attempts for delta in deltas.attempts) == attempts
    assert len(deltas.activity) == rows
    if outcome == flowlink_pb2.OUTCOME_OPEN:
        assert deltas.activity["client_count"].tolist() == [0]


def test_low_confidence_is_recorded_as_such() -> None:
    low = replace(Flow(), confidence=flowlink_pb2.CONFIDENCE_LOW)
    desk = Desk(FakeResolver())
    assert not desk.group([low]).links[0].high_confidence
    assert desk.group([low, Flow()]).links[0].high_confidence


def test_what_cannot_be_resolved_waits_and_what_must_not_be_is_counted() -> None:
    def answer(flow: FlowIdentity, _at: datetime) -> Resolution | None:
        if flow.port == 1:
            return NotYet(reason="pod", fallback=None)
        return Refused(reason="pod-on-other-node") if flow.port == 2 else None

    deltas = Desk(FakeResolver(answer=answer)).group([Flow(port=1, count=5), Flow(port=2, count=6), Flow(port=3)])
    (waiting,) = deltas.pending
    assert (waiting.count, waiting.deadline_ms, waiting.key.row) == (5, NOW_MS + 30_000, 0)
    (refusal,) = deltas.refusals
    assert (refusal.reason, refusal.flow_records, refusal.count) == ("pod-on-other-node", 1, 6)
    assert len(deltas.activity) == 1


def test_a_link_whose_id_is_taken_is_refused_and_counted() -> None:
    desk = Desk(FakeResolver())
    taken = desk.group([Flow()]).links[0].link_id
    desk.grouping.refuse_links(frozenset({taken}))
    deltas = desk.group([Flow()])
    assert (len(deltas.links), len(deltas.activity)) == (0, 0)
    assert [refusal.reason for refusal in deltas.refusals] == ["link-id-collision"]


def test_too_many_outside_addresses_become_networks() -> None:
    desk = Desk(FakeResolver(), most=4)
    outside = [Flow(remote=f"203.0.{third}.{fourth}") for third in range(6) for fourth in range(1, 4)]
    deltas = desk.group(outside)
    ends = {link.link.dst for link in deltas.links}
    by_length: dict[int | None, int] = {}
    for end in ends:
        assert isinstance(end, Address)
        by_length[end.prefix_length] = by_length.get(end.prefix_length, 0) + 1
    assert by_length == {None: 4, 24: 4, 16: 1}
    assert sum(deltas.activity["client_count"].tolist()) == len(outside), "rolled up, not lost"


def test_buckets_are_five_minutes_of_the_flow_s_own_time() -> None:
    desk = Desk(FakeResolver())
    start = NOW_MS // 300_000 * 300_000
    early = desk.group([Flow(first_ms=0, last_ms=0)], end_ms=start + 4_999)
    assert early.activity["bucket_minute"].tolist() == [start // 60_000 - 5]
    both = desk.group([Flow(first_ms=0, last_ms=0), Flow(first_ms=4_000, last_ms=4_999)], end_ms=start + 1_000)
    assert both.activity["bucket_minute"].tolist() == [start // 60_000 - 5, start // 60_000]


def test_a_waiting_identity_comes_back_as_it_was() -> None:
    identity = FlowIdentity(
        cluster=CLUSTER,
        node="node-1",
        pod_uid="uid",
        local_ip=ip_address("2001:db8::1"),
        remote_ip=ip_address("10.0.0.1"),
        port=53,
        protocol=Protocol.UDP,
        direction=Direction.INGRESS,
        outcome=Outcome.OPEN,
    )
    assert identity_from_json(identity_to_json(identity)) == identity


def test_openings_are_told_after_the_commit_and_never_of_attempts_quiet_links_or_clamped_batches() -> None:
    openings = Openings()
    openings.listen(CLUSTER, listening=True)
    desk = Desk(FakeResolver(), openings=openings)
    attempt = Flow(port=1, outcome=flowlink_pb2.OUTCOME_REFUSED)
    found_open = Flow(port=2, outcome=flowlink_pb2.OUTCOME_OPEN, count=0)
    only_bytes = Flow(port=3, count=0)
    deltas = desk.group([Flow(port=4), attempt, found_open, only_bytes])
    assert openings.take(CLUSTER) == []
    deltas.told()
    taken = {opening.link.port: opening for opening in openings.take(CLUSTER)}
    assert set(taken) == {2, 4}
    assert taken[2].opened_ms is None
    assert taken[4].opened_ms == NOW_MS - 5_000 + 1_000
    assert taken[4].seen_ms == NOW_MS - 5_000 + 2_000
    openings.judged([taken[4].link], quiet=True)
    desk.group([Flow(port=4), Flow(port=5)]).told()
    assert [opening.link.port for opening in openings.take(CLUSTER)] == [5]
    desk.group([Flow(port=6)], end_ms=NOW_MS + 24 * 3600_000).told()  # a clock that nobody believes
    assert openings.take(CLUSTER) == []
