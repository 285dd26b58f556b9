"""One contract for both sinks: everything or nothing, once, and additive."""

import numpy as np
import pytest

from aggregator.errors import CursorMovedError, LinkCollisionError, StoreError, StoreRefusedError
from aggregator.model.link import ObservedLink, link_id
from aggregator.store import Cloned, Opened, Scope, Span, Store
from aggregator.store.deltas import (
    ActivityArray,
    AttemptDelta,
    CursorKey,
    CursorMove,
    EvidenceKind,
    EvidenceSighting,
    GapDelta,
    Merge,
    PendingFlow,
    PendingKey,
    QuarantinedBatch,
    Sides,
)
from aggregator.store.keys import COARSE_MINUTES, bucket_of, moment
from aggregator.store.sink import CursorOpening
from tests.contract.store.rows import LINK, NOW_MS, OTHER, activity, sighting
from tests.flowlink import CLUSTER, workload

KEY = CursorKey(cluster=CLUSTER, agent_id="node-1", epoch=0xFFFF_FFFF_FFFF_FFF1)  # above 2^63 on purpose
INSTANCE = 0x8000_0000_0000_0001


def opening(
    key: CursorKey = KEY, *, instance: int = INSTANCE, lineage: tuple[int, ...] = (), first_seq: int = 1
) -> CursorOpening:
    return CursorOpening(key=key, instance=instance, lineage=lineage or (instance,), first_seq=first_seq, now_ms=NOW_MS)


def take_cursor(store: Store, *, instance: int = INSTANCE, first_seq: int = 1, key: CursorKey = KEY) -> int:
    (opened,) = store.sink.open_cursors([opening(key, instance=instance, first_seq=first_seq)])
    assert isinstance(opened, Opened)
    return opened.committed_seq


def move(from_seq: int, to_seq: int, *, instance: int = INSTANCE, key: CursorKey = KEY) -> CursorMove:
    return CursorMove(key=key, instance=instance, from_seq=from_seq, to_seq=to_seq, at_ms=NOW_MS)


def joined(*rows: ActivityArray) -> ActivityArray:
    together = np.concatenate(rows)
    return together[np.lexsort((together["bucket_minute"], together["link_id"]))]


def only_link(store: Store, span: Span | None = None) -> ObservedLink:
    (observed,) = store.links(Scope(cluster=CLUSTER), span)
    return observed


def test_a_merge_adds_to_what_is_there(store: Store) -> None:
    take_cursor(store)
    for seq in (0, 1, 2):
        store.sink.merge(
            Merge(
                cursors=[move(seq, seq + 1)],
                links=[sighting(LINK)],
                activity=activity(LINK, client_count=2, client_tx_bytes=10, client_rx_bytes=20),
            )
        )
    evidence = only_link(store).evidence
    assert (evidence.connections, evidence.tx_bytes, evidence.rx_bytes) == (6, 30, 60)
    assert store.committed_seq(KEY) == 3


def test_the_hour_holds_the_sum_of_its_five_minutes(store: Store) -> None:
    take_cursor(store)
    hour_ms = NOW_MS // 3_600_000 * 3_600_000
    rows = joined(*(activity(LINK, at_ms=hour_ms + minute * 60_000, server_count=minute) for minute in (0, 5, 55)))
    store.sink.merge(Merge(cursors=[move(0, 1)], links=[sighting(LINK)], activity=rows))
    span = Span(start=moment(hour_ms), end=moment(hour_ms + 3_600_000))
    fine = store.activity(CLUSTER, link_id(LINK), span)
    assert [point.server_count for point in fine] == [0, 5, 55]
    wide = Span(start=moment(hour_ms - 27 * 3_600_000), end=moment(hour_ms + 3_600_000))
    assert [(point.minutes, point.server_count) for point in store.activity(CLUSTER, link_id(LINK), wide)] == [(60, 60)]


def test_a_merge_is_written_once(store: Store) -> None:
    take_cursor(store)
    merge = Merge(cursors=[move(0, 1)], links=[sighting(LINK)], activity=activity(LINK, client_count=1))
    store.sink.merge(merge)
    with pytest.raises(CursorMovedError) as moved:
        store.sink.merge(merge)
    assert moved.value.actual == {KEY.as_tuple(): 1}
    assert only_link(store).evidence.connections == 1


def test_one_moved_cursor_stops_the_whole_merge(store: Store) -> None:
    second = CursorKey(cluster=CLUSTER, agent_id="node-2", epoch=7)
    take_cursor(store)
    take_cursor(store, key=second)
    with pytest.raises(CursorMovedError) as moved:
        store.sink.merge(
            Merge(
                cursors=[move(0, 1), move(5, 6, key=second)],
                links=[sighting(LINK)],
                activity=activity(LINK, client_count=1),
            )
        )
    assert moved.value.actual == {second.as_tuple(): 0}
    assert store.links(Scope(cluster=CLUSTER)) == []
    assert store.committed_seq(KEY) == 0


def test_another_instance_fences_the_first(store: Store) -> None:
    take_cursor(store)
    assert store.sink.open_cursors([opening(instance=5, lineage=(INSTANCE, 5))]) == [Opened(committed_seq=0)]
    with pytest.raises(CursorMovedError) as moved:
        store.sink.merge(Merge(cursors=[move(0, 1)]))
    assert moved.value.actual == {KEY.as_tuple(): None}
    store.sink.merge(Merge(cursors=[move(0, 1, instance=5)]))


def test_a_copy_of_a_spool_is_told_so(store: Store) -> None:
    take_cursor(store)
    assert store.sink.open_cursors([opening(instance=5, lineage=(4, 5))]) == [Cloned(last_instance=INSTANCE)]


def test_many_cursors_are_opened_at_once_and_each_gets_its_own_answer(store: Store) -> None:
    take_cursor(store)
    store.sink.merge(Merge(cursors=[move(0, 3)]))
    others = [CursorKey(cluster=CLUSTER, agent_id=f"node-{number}", epoch=2**63 + number) for number in range(600)]
    opened = store.sink.open_cursors(
        [
            *(opening(key, first_seq=number + 1) for number, key in enumerate(others)),
            opening(instance=9, lineage=(8, 9)),
        ]
    )
    assert opened == [*(Opened(committed_seq=number) for number in range(600)), Cloned(last_instance=INSTANCE)]
    assert store.committed_seq(KEY) == 3


def test_a_spool_that_is_ahead_of_the_database_leaves_a_gap(store: Store) -> None:
    """The database was restored from a backup, or is a new one."""
    take_cursor(store)
    store.sink.merge(Merge(cursors=[move(0, 3)]))
    assert take_cursor(store, first_seq=10) == 9
    (gap,) = store.gaps(CLUSTER)
    assert (gap.from_seq, gap.to_seq, gap.reason, gap.epoch) == (4, 9, "forgotten", KEY.epoch)


def test_a_first_connection_starts_where_the_spool_starts(store: Store) -> None:
    assert take_cursor(store, first_seq=100) == 99
    assert store.gaps(CLUSTER) == []


def test_a_collision_of_ids_writes_nothing(store: Store) -> None:
    take_cursor(store)
    store.sink.merge(Merge(cursors=[move(0, 1)], links=[sighting(LINK)]))
    with pytest.raises(LinkCollisionError) as collision:
        store.sink.merge(Merge(cursors=[move(1, 2)], links=[sighting(OTHER, link_id=link_id(LINK))]))
    assert collision.value.link_ids == {link_id(LINK)}
    assert store.committed_seq(KEY) == 1
    assert only_link(store).link == LINK


def test_a_sum_beyond_64_bits_is_refused_whole(store: Store) -> None:
    take_cursor(store)
    largest = activity(LINK, client_tx_bytes=2**63 - 1)
    store.sink.merge(Merge(cursors=[move(0, 1)], links=[sighting(LINK)], activity=largest))
    with pytest.raises(StoreRefusedError):
        store.sink.merge(Merge(cursors=[move(1, 2)], activity=largest))
    assert store.committed_seq(KEY) == 1
    assert only_link(store).evidence.tx_bytes == 2**63 - 1


def test_the_server_s_count_stands_in_for_a_client_that_did_not_report(store: Store) -> None:
    take_cursor(store)
    store.sink.merge(
        Merge(
            cursors=[move(0, 1)],
            links=[sighting(LINK, sides=Sides.SERVER), sighting(OTHER, sides=Sides.CLIENT | Sides.SERVER)],
            activity=joined(
                activity(LINK, server_count=4, server_tx_bytes=40, server_rx_bytes=7),
                activity(OTHER, client_count=3, client_tx_bytes=30, server_count=4, server_tx_bytes=40),
            ),
        )
    )
    found = {observed.link: observed.evidence for observed in store.links(Scope(cluster=CLUSTER))}
    assert (found[LINK].connections, found[LINK].tx_bytes, found[LINK].rx_bytes) == (4, 7, 40)
    assert (found[OTHER].connections, found[OTHER].tx_bytes) == (3, 30)


def test_flags_of_a_link_only_grow(store: Store) -> None:
    take_cursor(store)
    uncertain = sighting(LINK, established=False, high_confidence=False, probe_only=True, last_seen_ms=NOW_MS + 5)
    certain = sighting(LINK, sides=Sides.SERVER, first_seen_ms=NOW_MS - 5)
    for seq, one in enumerate((uncertain, certain, uncertain)):
        store.sink.merge(Merge(cursors=[move(seq, seq + 1)], links=[one]))
    observed = only_link(store)
    assert observed.established
    assert len(observed.evidence.sides) == 2
    assert observed.evidence.confidence.value == "high"
    assert not observed.evidence.same_node_probe
    assert observed.evidence.first_seen == moment(NOW_MS - 5)
    assert observed.evidence.last_seen == moment(NOW_MS + 5)


def test_attempts_make_no_established_link(store: Store) -> None:
    take_cursor(store)
    attempt = AttemptDelta(
        cluster=CLUSTER,
        link_id=link_id(LINK),
        bucket_minute=bucket_of(NOW_MS, COARSE_MINUTES),
        outcome="refused",
        attempts=3,
    )
    store.sink.merge(Merge(cursors=[move(0, 1)], links=[sighting(LINK, established=False)], attempts=[attempt]))
    store.sink.merge(Merge(cursors=[move(1, 2)], attempts=[attempt]))
    observed = only_link(store)
    assert not observed.established
    assert (observed.evidence.failed_attempts, observed.evidence.connections) == (6, 0)


def test_evidence_is_kept_once(store: Store) -> None:
    take_cursor(store)
    seen = EvidenceSighting(
        cluster=CLUSTER,
        link_id=link_id(LINK),
        kind=EvidenceKind.SERVICE,
        value="shop/server:80",
        first_seen_ms=NOW_MS,
        last_seen_ms=NOW_MS,
    )
    for seq in (0, 1):
        store.sink.merge(Merge(cursors=[move(seq, seq + 1)], links=[sighting(LINK)], evidence=[seen]))
    assert only_link(store).evidence.services == ("shop/server:80",)


def test_a_span_sees_only_what_happened_in_it(store: Store) -> None:
    take_cursor(store)
    old_ms = NOW_MS - 3 * 3_600_000
    store.sink.merge(
        Merge(
            cursors=[move(0, 1)],
            links=[sighting(LINK), sighting(OTHER)],
            activity=joined(activity(LINK, client_count=1), activity(OTHER, at_ms=old_ms, client_count=1)),
        )
    )
    span = Span(start=moment(NOW_MS - 3_600_000), end=moment(NOW_MS + 1))
    assert [observed.link for observed in store.links(Scope(cluster=CLUSTER), span)] == [LINK]
    assert len(store.links(Scope(cluster=CLUSTER))) == 2


def test_a_scope_sees_only_its_own(store: Store) -> None:
    take_cursor(store)
    store.sink.merge(Merge(cursors=[move(0, 1)], links=[sighting(LINK)], activity=activity(LINK, client_count=1)))
    assert store.links(Scope(cluster="elsewhere")) == []
    assert store.links(Scope(cluster=CLUSTER, namespace="other")) == []
    assert len(store.links(Scope(cluster=CLUSTER, namespace="shop"))) == 1
    assert len(store.links(Scope(cluster=CLUSTER, workload=workload("server")))) == 1
    assert store.links(Scope(cluster=CLUSTER, workload=workload("stranger"))) == []


def pending(row: int) -> PendingFlow:
    return PendingFlow(
        key=PendingKey(cluster=CLUSTER, agent_id="node-1", epoch=KEY.epoch, seq=1, row=row),
        identity="{}",
        process="curl",
        at_ms=NOW_MS,
        first_seen_ms=NOW_MS,
        last_seen_ms=NOW_MS,
        deadline_ms=NOW_MS + row,
        count=1,
        tx_bytes=2,
        rx_bytes=3,
    )


def test_a_pending_flow_is_settled_once(store: Store) -> None:
    take_cursor(store)
    store.sink.merge(Merge(cursors=[move(0, 1)], pending=[pending(1), pending(0)]))
    assert store.pending_flows(limit=10) == [pending(0), pending(1)]
    settled = Merge(settled=[pending(0).key], links=[sighting(LINK)], activity=activity(LINK, client_count=1))
    store.sink.merge(settled)
    with pytest.raises(StoreError):
        store.sink.merge(settled)
    assert store.pending_flows(limit=10) == [pending(1)]
    assert only_link(store).evidence.connections == 1


def test_gaps_and_quarantine_are_shown(store: Store) -> None:
    take_cursor(store)
    store.sink.merge(
        Merge(
            cursors=[move(0, 4)],
            gaps=[GapDelta(key=KEY, from_seq=1, to_seq=3, reason="evicted", flow_records=12, at_ms=NOW_MS)],
            quarantined=[QuarantinedBatch(key=KEY, seq=4, reason="checksum", message=b"\x00\xff", at_ms=NOW_MS)],
        )
    )
    (gap,) = store.gaps(CLUSTER)
    (batch,) = store.quarantined(CLUSTER)
    assert (gap.from_seq, gap.to_seq, gap.flow_records) == (1, 3, 12)
    assert (batch.seq, batch.reason, batch.size_bytes) == (4, "checksum", 2)
