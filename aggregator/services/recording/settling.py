"""Settling: flows that waited for the cluster view become part of their Link, or of what is honest to say instead.

Enters: pending flows, oldest first. Leaves: deltas, written in the transaction that takes the pending flows out.
Invariant: a flow waits no longer than its grace period; then it is the Link under its raw address, or a counted
refusal where not even its own pod is known, or where it opened nothing and its peer's pod is gone: what is left of a
connection whose link was told of when it was opened. Only the leader does this.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np

from aggregator.errors import LinkCollisionError, StoreError
from aggregator.metrics import PENDING, PENDING_SETTLED, STORE_LEADER, STORE_RETIRED
from aggregator.model.resolution import (
    ADDRESS_CHANGED_HANDS,
    ADDRESS_LET_GO,
    NOBODY_IN_POD_RANGE,
    SERVICE_WITHOUT_BACKENDS,
    NotYet,
    Refused,
    Resolution,
    Resolved,
    Resolver,
)
from aggregator.services.recording.deliveries import I64, FlowBatch, FlowColumns, Kinds
from aggregator.services.recording.grouping import AnsweredBatch, Grouping
from aggregator.services.recording.identities import Answer
from aggregator.services.recording.identity_json import identity_from_json
from aggregator.services.recording.judging import judge
from aggregator.services.recording.rollup import RollUp
from aggregator.store import Store
from aggregator.store.deltas import CursorKey, Merge, PendingFlow
from aggregator.store.keys import moment
from aggregator.store.schema import LOSSES

log = logging.getLogger(__name__)

AT_ONCE = 5_000
# A flow that the cluster view has not got as far as waits this much longer than the grace period.
BEHIND_MS = 600_000
_UNKNOWN_POD = Refused(reason="unknown-pod")
_REMAINDER = Refused(reason="remainder-of-unknown")
_PEER_IS_GONE = (ADDRESS_CHANGED_HANDS, ADDRESS_LET_GO, NOBODY_IN_POD_RANGE, SERVICE_WITHOUT_BACKENDS)


class _Outcome(NamedTuple):
    """What a flow became, and why nobody could be named, where that is so."""

    outcome: str
    reason: str = ""


class Settler:
    """The leader's work on the store: settle what waits, let go of what is old."""

    def __init__(
        self,
        *,
        store: Store,
        resolver: Resolver,
        peers_per_workload: int = 256,
        interval_seconds: float = 1.0,
        retention_interval: timedelta = timedelta(hours=1),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._interval_seconds = interval_seconds
        self._retention_interval_seconds = retention_interval.total_seconds()
        self._now_ms = now_ms
        self._grouping = Grouping(
            grace_ms=0, rolled_up=RollUp(most=peers_per_workload, known_addresses=store.external_addresses)
        )
        self._batch_number = 0

    async def run(self) -> None:
        """Work for ever, while this process leads."""
        retained_at = -self._retention_interval_seconds
        loop = asyncio.get_running_loop()
        while True:
            leads = await asyncio.to_thread(self._store.leadership.lead)
            STORE_LEADER.set(leads)
            if leads:
                try:
                    await asyncio.to_thread(self.settle)
                    if loop.time() - retained_at >= self._retention_interval_seconds:
                        for table, removed in (await asyncio.to_thread(self._store.retain)).items():
                            STORE_RETIRED.labels(table).inc(removed)
                        retained_at = loop.time()
                except StoreError as error:
                    log.warning("the leader's work waits: %s", error)
            await asyncio.sleep(self._interval_seconds)

    def settle(self) -> int:
        """Settle what can be; how many flows were. Raises StoreError with nothing changed."""
        now_ms = self._now_ms()
        settled: dict[tuple[str, str], list[tuple[PendingFlow, Answer]]] = defaultdict(list)
        outcomes: dict[_Outcome, int] = defaultdict(int)
        waiting = self._store.pending_flows(limit=AT_ONCE)
        for flow in waiting:
            identity = identity_from_json(flow.identity)
            resolution, outcome = _decide(
                judge(self._resolver, identity, opened=moment(flow.at_ms), seen=moment(flow.last_seen_ms)),
                overdue_ms=now_ms - flow.deadline_ms,
                opened=flow.count > 0,
            )
            if resolution is not None:
                answer = Answer(identity=identity, process=flow.process, resolution=resolution)
                settled[(flow.key.cluster, flow.key.agent_id)].append((flow, answer))
                outcomes[outcome] += 1
        PENDING.set(len(waiting) - sum(outcomes.values()))
        if not settled:
            return 0
        answers: list[Answer] = []
        batches: list[AnsweredBatch] = []
        for (cluster, agent_id), flows in settled.items():
            first = len(answers)
            answers += [answer for _, answer in flows]
            batches.append(
                AnsweredBatch(
                    key=CursorKey(cluster=cluster, agent_id=agent_id, epoch=0),
                    seq=0,
                    batch=_batch_of([flow for flow, _ in flows]),
                    answers=np.arange(first, len(answers), dtype=np.int64),
                )
            )
        self._batch_number += 1
        columns = FlowColumns.joined([batch.batch.columns for batch in batches])
        deltas = self._grouping.group(batches, columns, answers, resets=self._batch_number, now_ms=now_ms)
        try:
            self._store.sink.merge(
                Merge(
                    settled=[flow.key for flows in settled.values() for flow, _ in flows],
                    activity=deltas.activity,
                    attempts=deltas.attempts,
                    links=deltas.links,
                    evidence=deltas.evidence,
                    refusals=deltas.refusals,
                )
            )
        except LinkCollisionError as collision:
            self._grouping.refuse_links(collision.link_ids)
            raise
        deltas.told()
        for outcome, count in outcomes.items():
            PENDING_SETTLED.labels(*outcome).inc(count)
        return sum(outcomes.values())


def _decide(resolution: Resolution, *, overdue_ms: int, opened: bool) -> tuple[Resolution | None, _Outcome]:
    """What a waiting flow becomes now; None = it goes on waiting."""
    match resolution:
        case Resolved():
            return resolution, _Outcome("resolved")
        case Refused(reason=reason):
            return resolution, _Outcome(reason)
        case NotYet(reason=reason, fallback=fallback, behind=behind):
            if overdue_ms < (BEHIND_MS if behind else 0):
                return None, _Outcome("waiting", reason)
            if fallback is None:
                return _UNKNOWN_POD, _Outcome(_UNKNOWN_POD.reason, reason)
            if not opened and reason in _PEER_IS_GONE:
                return _REMAINDER, _Outcome(_REMAINDER.reason, reason)
            return Resolved(link=fallback), _Outcome("raw-address", reason)


def _batch_of(flows: Sequence[PendingFlow]) -> FlowBatch:
    """Only the numbers: the answers are there already."""

    def column(name: str) -> I64:
        return np.array([getattr(flow, name) for flow in flows], np.int64)

    none = np.zeros(len(flows), np.int64)
    nothing = np.empty(0, np.int64)
    return FlowBatch(
        locals=[],
        remotes=np.empty((0, 2), np.uint64),
        processes=[],
        kinds=Kinds(protocol=nothing, direction=nothing, outcome=nothing, confidence=nothing, process=nothing),
        columns=FlowColumns.of(
            local=none,
            remote=none,
            port=none,
            kind=none,
            count=column("count"),
            tx_bytes=column("tx_bytes"),
            rx_bytes=column("rx_bytes"),
            first_ms=column("first_seen_ms"),
            last_ms=column("last_seen_ms"),
            longest_ms=none,
        ),
        losses=(0,) * len(LOSSES),
        clamped=False,
        message=b"",
    )
