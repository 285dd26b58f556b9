"""Recorder: deliveries of all agents, gathered for a moment, become one transaction each.

Enters: Delivery values, in the order of each spool. Leaves: rows in the Sink, and to every delivery what became of it.
Invariant: a delivery is reported COMMITTED only after COMMIT. A group is written whole or not at all; while the
database is away the group waits, the queue fills, and agents keep their spools: nothing is dropped here.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import assert_never

import numpy as np

from aggregator.errors import CursorMovedError, LinkCollisionError, StoreError, StoreRefusedError
from aggregator.metrics import (
    INGEST_BATCHES,
    INGEST_FLOW_RECORDS,
    INGEST_GAPS,
    INGEST_REJECTS,
    RECORDING_ALIVE,
    RECORDING_COMMIT_SECONDS,
    RECORDING_GROUP_BATCHES,
    RECORDING_REFUSED,
    RECORDING_RETRIES,
)
from aggregator.model.resolution import Resolver
from aggregator.services.recording.deliveries import DeclaredGap, Delivery, FlowBatch, FlowColumns, Poison, Recorded
from aggregator.services.recording.grouping import AnsweredBatch, Deltas, Grouping
from aggregator.services.recording.identities import Identities
from aggregator.services.recording.inbox import Inbox
from aggregator.services.recording.openings import Openings
from aggregator.services.recording.rollup import KnownAddresses, RollUp
from aggregator.store.deltas import (
    AgentDelta,
    CursorMove,
    GapDelta,
    LossDelta,
    Merge,
    QuarantinedBatch,
)
from aggregator.store.keys import COARSE_MINUTES, bucket_of
from aggregator.store.sink import Sink

log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 1.0
_Verdict = tuple[Delivery, Recorded, str]


class Recorder:
    """One a process. `submit` waits while the queue is full; `run` never returns."""

    def __init__(
        self,
        *,
        sink: Sink,
        resolver: Resolver,
        known_addresses: KnownAddresses,
        grace: timedelta = timedelta(seconds=30),
        linger_seconds: float = 0.2,
        waiting_bytes: int = 64 << 20,
        peers_per_workload: int = 256,
        openings: Openings | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._sink = sink
        self._now_ms = now_ms
        self._linger_seconds = linger_seconds
        self._inbox = Inbox(most_bytes=waiting_bytes)
        self._identities = Identities(resolver)
        self._grouping = Grouping(
            grace_ms=round(grace.total_seconds() * 1000),
            rolled_up=RollUp(most=peers_per_workload, known_addresses=known_addresses),
            openings=openings,
        )

    async def submit(self, delivery: Delivery) -> None:
        """Hand over; waits for room, and so holds the agent's stream back."""
        await self._inbox.put(delivery)

    async def run(self) -> None:
        """Record for ever."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder") as executor:
            loop = asyncio.get_running_loop()
            while True:
                group = await self._next_group()
                wait_seconds = 0.1
                while group:
                    try:
                        verdicts = await loop.run_in_executor(executor, self.record, group)
                    except StoreError as error:
                        RECORDING_RETRIES.labels("unavailable").inc()
                        log.warning("%s; %d deliveries wait", error, len(group))
                        RECORDING_ALIVE.set_to_current_time()
                        await asyncio.sleep(wait_seconds)
                        wait_seconds = min(wait_seconds * 2, 2.0)
                        continue
                    for delivery, recorded, reason in verdicts:
                        delivery.on_recorded(delivery, recorded, reason)
                    group = []

    async def _next_group(self) -> list[Delivery]:
        while True:
            RECORDING_ALIVE.set_to_current_time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT_SECONDS + self._linger_seconds):
                    return await self._inbox.take(linger_seconds=self._linger_seconds)

    # ---- one group, in the recorder's thread ------------------------------------------------------------------------

    def record(self, group: Sequence[Delivery]) -> list[_Verdict]:
        """Write the group, and say what became of each delivery. Raises StoreError with nothing decided."""
        verdicts: list[_Verdict] = []
        with RECORDING_COMMIT_SECONDS.time():
            for chunk in _chunks(group):
                verdicts += self._record_chunk(chunk)
        return verdicts

    def _record_chunk(self, chunk: Sequence[Delivery]) -> list[_Verdict]:
        verdicts: list[_Verdict] = []
        left = list(chunk)
        while left:
            try:
                self._commit(left)
            except CursorMovedError as moved:
                RECORDING_RETRIES.labels("cursor-moved").inc()
                left = _without_moved(left, moved, verdicts)
            except LinkCollisionError as collision:
                RECORDING_RETRIES.labels("link-id-collision").inc()
                log.error("%s: the flows of the newer links are refused", collision)  # noqa: TRY400 - expected
                self._grouping.refuse_links(collision.link_ids)
            except StoreRefusedError as error:
                RECORDING_RETRIES.labels("refused").inc()
                return [*verdicts, *self._apart(left, str(error))]
            except StoreError:
                raise
            except Exception as error:
                # A batch that breaks the code must not be met again and again: it is set aside like one the store
                # refuses.
                RECORDING_RETRIES.labels("unexpected").inc()
                log.exception("recording %d deliveries failed", len(left))
                return [*verdicts, *self._apart(left, f"recording it failed: {type(error).__name__}")]
            else:
                RECORDING_GROUP_BATCHES.observe(len(left))
                verdicts += [(delivery, Recorded.COMMITTED, _reason(delivery)) for delivery in left]
                left = []
        return verdicts

    def _apart(self, deliveries: Sequence[Delivery], reason: str) -> list[_Verdict]:
        """One by one, to find the delivery that cannot be written; that one goes to the quarantine."""
        if len(deliveries) > 1:
            return [verdict for delivery in deliveries for verdict in self._record_chunk([delivery])]
        poisoned = _poisoned(deliveries[0], reason)
        if poisoned is None:
            return [(deliveries[0], Recorded.FENCED, reason)]
        return self._record_chunk([poisoned])

    def _commit(self, deliveries: Sequence[Delivery]) -> None:
        now_ms = self._now_ms()
        self._identities.begin()
        batches = [(delivery, delivery.content) for delivery in deliveries if isinstance(delivery.content, FlowBatch)]
        deltas = Deltas()
        if batches:
            columns = FlowColumns.joined([batch.columns for _, batch in batches])
            found = self._identities.look_up(
                [(delivery.key.cluster, delivery.key.agent_id, batch) for delivery, batch in batches], columns
            )
            ends = np.cumsum([len(batch.columns) for _, batch in batches])
            answered = [
                AnsweredBatch(key=delivery.key, seq=delivery.to_seq, batch=batch, answers=answers)
                for (delivery, batch), answers in zip(batches, np.split(found, ends[:-1]), strict=True)
            ]
            deltas = self._grouping.group(
                answered, columns, self._identities.answers, resets=self._identities.resets, now_ms=now_ms
            )
        self._sink.merge(_merge(deliveries, deltas, now_ms))
        deltas.told()
        _count(deliveries, deltas)


def _merge(deliveries: Sequence[Delivery], deltas: Deltas, now_ms: int) -> Merge:
    losses: dict[tuple[str, str], list[int]] = {}
    agents: dict[tuple[str, str], AgentDelta] = {}
    gaps, quarantined = [], []
    for delivery in deliveries:
        who = (delivery.key.cluster, delivery.key.agent_id)
        taken = agents.get(who) or AgentDelta(cluster=who[0], agent_id=who[1], last_batch_ms=now_ms)
        match delivery.content:
            case FlowBatch() as batch:
                taken = replace(
                    taken,
                    flow_records=taken.flow_records + len(batch.columns),
                    clamped_batches=taken.clamped_batches + batch.clamped,
                )
                if any(batch.losses):
                    total = losses.setdefault(who, [0] * len(batch.losses))
                    losses[who] = [one + other for one, other in zip(total, batch.losses, strict=True)]
            case DeclaredGap() as gap:
                gaps.append(
                    GapDelta(
                        key=delivery.key,
                        from_seq=delivery.from_seq,
                        to_seq=delivery.to_seq,
                        reason=gap.reason,
                        flow_records=gap.flow_records,
                        at_ms=now_ms,
                    )
                )
            case Poison() as poison:
                taken = replace(taken, rejected_batches=taken.rejected_batches + 1)
                quarantined.append(
                    QuarantinedBatch(
                        key=delivery.key,
                        seq=delivery.to_seq,
                        reason=poison.reason,
                        message=poison.message,
                        at_ms=now_ms,
                    )
                )
            case other:
                assert_never(other)
        agents[who] = taken
    return Merge(
        cursors=_moves(deliveries, now_ms),
        activity=deltas.activity,
        attempts=deltas.attempts,
        links=deltas.links,
        evidence=deltas.evidence,
        pending=deltas.pending,
        refusals=deltas.refusals,
        gaps=gaps,
        quarantined=quarantined,
        losses=[
            LossDelta(
                cluster=cluster,
                agent_id=agent_id,
                bucket_minute=bucket_of(now_ms, COARSE_MINUTES),
                losses=tuple(total),
            )
            for (cluster, agent_id), total in losses.items()
        ],
        agents=list(agents.values()),
    )


def _moves(deliveries: Sequence[Delivery], now_ms: int) -> list[CursorMove]:
    """One move a spool, from before its first delivery to its last."""
    by_spool: dict[tuple[str, str, int], list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        by_spool[delivery.key.as_tuple()].append(delivery)
    return [
        CursorMove(
            key=own[0].key,
            instance=own[0].instance,
            from_seq=own[0].from_seq - 1,
            to_seq=own[-1].to_seq,
            at_ms=now_ms,
        )
        for own in by_spool.values()
    ]


def _chunks(group: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Parts in which every spool's deliveries follow each other.

    An agent that has reconnected sends again what its last stream had handed over already: that copy must find the
    cursor where the first one has moved it.
    """
    chunk: list[Delivery] = []
    last: dict[tuple[str, str, int], tuple[int, int]] = {}
    for delivery in group:
        key = delivery.key.as_tuple()
        follows = (delivery.instance, delivery.from_seq - 1)
        if last.get(key, follows) != follows:
            yield chunk
            chunk, last = [], {}
        chunk.append(delivery)
        last[key] = (delivery.instance, delivery.to_seq)
    if chunk:
        yield chunk


def _without_moved(deliveries: Sequence[Delivery], moved: CursorMovedError, verdicts: list[_Verdict]) -> list[Delivery]:
    """Keep what can still be written. What a cursor has passed is committed: by a COMMIT whose answer was not heard, or
    by the stream that this agent had before.
    """
    kept: list[Delivery] = []
    at = dict(moved.actual)
    for delivery in deliveries:
        key = delivery.key.as_tuple()
        if key not in at:
            kept.append(delivery)
            continue
        cursor = at[key]
        if cursor is not None and delivery.to_seq <= cursor:
            verdicts.append((delivery, Recorded.COMMITTED, _reason(delivery)))
        elif cursor is not None and delivery.from_seq == cursor + 1:
            kept.append(delivery)
            at[key] = delivery.to_seq
        else:
            INGEST_BATCHES.labels("fenced").inc()
            verdicts.append((delivery, Recorded.FENCED, "the cursor was moved by another stream"))
    return kept


def _poisoned(delivery: Delivery, reason: str) -> Delivery | None:
    """The same place in the spool, as something that the store can take; None when there is nothing left to leave
    out.
    """
    match delivery.content:
        case FlowBatch(message=message):
            return replace(delivery, content=Poison(reason=reason, message=message))
        case Poison(message=message) if message:
            return replace(delivery, content=Poison(reason=reason, message=b""))
        case DeclaredGap():
            return replace(delivery, content=Poison(reason=reason, message=b""))
        case Poison():
            return None


def _reason(delivery: Delivery) -> str:
    return delivery.content.reason if isinstance(delivery.content, Poison) else ""


def _count(deliveries: Sequence[Delivery], deltas: Deltas) -> None:
    kinds = Counter(type(delivery.content) for delivery in deliveries)
    INGEST_BATCHES.labels("committed").inc(kinds[FlowBatch])
    INGEST_BATCHES.labels("rejected").inc(kinds[Poison])
    INGEST_FLOW_RECORDS.inc(
        sum(len(delivery.content.columns) for delivery in deliveries if isinstance(delivery.content, FlowBatch))
    )
    for delivery in deliveries:
        match delivery.content:
            case DeclaredGap(reason=reason):
                INGEST_GAPS.labels(reason).inc(delivery.to_seq - delivery.from_seq + 1)
            case Poison():
                INGEST_REJECTS.labels("poison").inc()
            case FlowBatch():
                pass
            case other:
                assert_never(other)
    for refusal in deltas.refusals:
        RECORDING_REFUSED.labels(refusal.reason).inc(refusal.flow_records)
