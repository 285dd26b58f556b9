"""Spool: batches in, messages for the stream out, in order of their sequence numbers.

Enters: Batch without a number. Leaves: serialised AgentMessages, each number exactly once as a Batch or inside a Gap.
Invariant: memory and disk stay below their bounds whatever the aggregator does. What no longer fits is evicted, oldest
first and never while it is in flight, and becomes a Gap; what the disk no longer gives back becomes one, too.

A batch is on the disk (in the page cache, which kill -9 does not touch) when `append` returns; a thread syncs once a
second, so a power loss costs that second. Without a directory, or while the disk is full, memory is all there is.
"""

from __future__ import annotations

import bisect
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from agent.errors import SpoolError
from agent.metrics import SPOOL_BATCHES, SPOOL_BYTES, SPOOL_DEGRADED, SPOOL_LIMIT_BYTES, SPOOL_LOST_RECORDS
from agent.spool.journal import Journal, Segment, new_epoch
from wattle.v1 import flowlink_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from agent.spool.records import Record

Listener = Callable[[], None]
SYNC_SECONDS = 1.0
DISK_RETRY_SECONDS = 5.0
_REASON_LABELS = {
    flowlink_pb2.GAP_REASON_EVICTED: "evicted",
    flowlink_pb2.GAP_REASON_CORRUPT: "corrupt",
    flowlink_pb2.GAP_REASON_TORN: "torn",
    flowlink_pb2.GAP_REASON_CLONED: "cloned",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """Bounds. 18 bytes a record and 1,200 records in 5 s make 4.3 kB/s: 128 MiB last eight hours."""

    memory_bytes: int = 8 << 20
    disk_bytes: int = 128 << 20
    segment_bytes: int = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """The next thing to send: `message` is a serialised AgentMessage that covers from_seq..to_seq."""

    from_seq: int
    to_seq: int
    message: bytes


@dataclass(slots=True, kw_only=True)
class _Stored:
    flow_records: int
    size_bytes: int
    message: bytes | None
    place: tuple[Segment, Record] | None


@dataclass(slots=True, kw_only=True)
class _Hole:
    """Numbers that will never be sent as batches."""

    from_seq: int
    to_seq: int
    reason: flowlink_pb2.GapReason.ValueType
    flow_records: int


class Spool:
    """Thread-safe: the capture side appends from its thread, the stream reads from the event loop."""

    def __init__(
        self,
        directory: Path | None,
        *,
        boot_id: str = "",
        limits: SpoolLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits or SpoolLimits()
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        self._batches: dict[int, _Stored] = {}
        self._order: list[int] = []  # the keys of _batches, ascending; [_head:] are alive
        self._head = 0
        self._holes: list[_Hole] = []
        self._memory_bytes = 0
        self._waiting_bytes = 0
        self._acknowledged = 0
        self._in_flight_through = 0
        self._evicted_untold = 0
        self._disk_retry_at = 0.0
        self._instance = secrets.randbits(64) | 1
        self._epoch = new_epoch()
        self._next_seq = 1
        self._lineage = [self._instance]
        self._journal: Journal | None = None
        self._stop = threading.Event()
        self._syncer: threading.Thread | None = None
        SPOOL_LIMIT_BYTES.set(self._limits.disk_bytes if directory is not None else self._limits.memory_bytes)
        if directory is not None:
            self._open(directory, boot_id)
        self._publish()

    # ---- the capture side -------------------------------------------------------------------------------------------

    def append(self, batch: flowlink_pb2.Batch, *, flow_records: int | None = None) -> None:
        """Give `batch` its number and keep it. Never waits for the aggregator; a full or broken disk costs no batch.

        `flow_records` spares counting the batch's records when the caller knows.
        """
        with self._lock:
            seq = self._next_seq
            batch.seq = seq
            batch.loss.spool_evicted += self._evicted_untold
            self._evicted_untold = 0
            message = flowlink_pb2.AgentMessage(batch=batch).SerializeToString()
            stored = _Stored(
                flow_records=_rows(batch) if flow_records is None else flow_records,
                size_bytes=len(message),
                message=message,
                place=None,
            )
            self._write(seq, stored)
            if stored.place is not None and self._memory_bytes + len(message) > self._limits.memory_bytes:
                stored.message = None  # on the disk; the older ones in memory are wanted first
            else:
                self._memory_bytes += len(message)
            self._next_seq = seq + 1
            self._keep(seq, stored)
            self._evict()
            self._publish()
        for listener in self._listeners:
            listener()

    def listen(self, listener: Listener) -> None:
        """Call `listener` after every append, in the appending thread."""
        self._listeners.append(listener)

    # ---- the stream -------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def instance(self) -> int:
        return self._instance

    @property
    def lineage(self) -> list[int]:
        """The instance of the last Welcome and every one that has opened this spool since; ends with `instance`."""
        return list(self._lineage)

    @property
    def first_seq(self) -> int:
        """The lowest number not yet acknowledged, or `next_seq`."""
        with self._lock:
            lowest = self._order[self._head] if self._head < len(self._order) else self._next_seq
            return min(lowest, self._holes[0].from_seq) if self._holes else lowest

    @property
    def next_seq(self) -> int:
        return self._next_seq

    def took(self, *, epoch: int, seq: int) -> bool:
        """Whether a batch was given this number and kept, or is known to the aggregator since."""
        with self._lock:
            known = epoch == self._epoch and seq < self._next_seq
            return known and not any(hole.from_seq <= seq <= hole.to_seq for hole in self._holes)

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    @property
    def waiting_batches(self) -> int:
        return len(self._order) - self._head

    def next_after(self, seq: int) -> Pending | None:
        """What covers seq + 1; None when nothing waits. What it covers counts as in flight."""
        with self._lock:
            wanted = seq + 1
            if wanted >= self._next_seq:
                return None
            stored = self._batches.get(wanted)
            if stored is not None:
                message = stored.message if stored.message is not None else self._read(stored)
                if message is not None:
                    self._in_flight_through = max(self._in_flight_through, wanted)
                    return Pending(from_seq=wanted, to_seq=wanted, message=message)
                self._give_up(wanted, flowlink_pb2.GAP_REASON_CORRUPT)
            return self._gap_from(wanted)

    def give_up(self, seq: int) -> None:
        """The aggregator cannot take this batch, it is too large: a Gap stands for it."""
        with self._lock:
            if seq in self._batches:
                self._give_up(seq, flowlink_pb2.GAP_REASON_EVICTED)

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` is committed: forget it."""
        with self._lock:
            if seq <= self._acknowledged:
                return
            self._acknowledged = seq
            while self._head < len(self._order) and self._order[self._head] <= seq:
                self._forget_head()
            self._holes = [hole for hole in self._holes if hole.to_seq > seq]
            for hole in self._holes:
                hole.from_seq = max(hole.from_seq, seq + 1)
            if self._journal is not None:
                self._journal.forget_through(seq)
            self._publish()

    def disconnected(self) -> None:
        """Nothing is in flight any more (what was sent may still have been committed)."""
        with self._lock:
            self._in_flight_through = self._acknowledged

    def welcomed(self) -> None:
        """The server has taken this instance for the cursor's last one."""
        with self._lock:
            self._lineage = [self._instance]
            if self._journal is not None:
                self._on_disk(lambda journal: journal.set_lineage(self._lineage))

    def start_new_epoch(self) -> None:
        """This spool turned out to be a copy: give up what it holds, count it, and number from 1 again."""
        with self._lock:
            lost = sum(self._batches[seq].flow_records for seq in self._order[self._head :])
            SPOOL_LOST_RECORDS.labels("cloned").inc(lost)
            self._batches.clear()
            self._order.clear()
            self._head = 0
            self._holes.clear()
            self._memory_bytes = self._waiting_bytes = 0
            self._acknowledged = self._in_flight_through = 0
            self._epoch = new_epoch()
            self._next_seq = 1
            self._lineage = [self._instance]
            if self._journal is not None:
                self._on_disk(lambda journal: journal.restart(epoch=self._epoch, lineage=self._lineage))
            if lost:
                self._next_seq = 2
                self._holes.append(
                    _Hole(from_seq=1, to_seq=1, reason=flowlink_pb2.GAP_REASON_CLONED, flow_records=lost)
                )
            self._publish()

    def close(self) -> None:
        """Sync and let the directory go."""
        self._stop.set()
        if self._syncer is not None:
            self._syncer.join()
        with self._lock:
            if self._journal is not None:
                self._journal.close()
                self._journal = None

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _open(self, directory: Path, boot_id: str) -> None:
        try:
            journal = Journal(directory, boot_id=boot_id, segment_bytes=self._limits.segment_bytes)
        except OSError as error:
            message = f"the spool cannot use {directory}: {error.strerror or error}"
            raise SpoolError(message) from error
        self._journal = journal
        try:
            found = journal.open()
        except OSError:
            journal.close()
            self._journal = None
            SPOOL_DEGRADED.set(1)
            return
        self._epoch, self._next_seq = found.epoch, found.next_seq
        self._lineage = [*found.lineage, self._instance]
        self._on_disk(lambda opened: opened.set_lineage(self._lineage))
        for segment, record in found.records:
            place = (segment, record)
            size = record.length_bytes
            self._keep(
                record.seq, _Stored(flow_records=record.flow_records, size_bytes=size, message=None, place=place)
            )
        self._note_holes()
        self._syncer = threading.Thread(target=self._sync_forever, name="spool-sync", daemon=True)
        self._syncer.start()

    def _note_holes(self) -> None:
        """Numbers missing between and after what was found. Those before the first were acknowledged or evicted."""
        for before, after in pairwise([*self._order, self._next_seq]):
            if after > before + 1:
                reason = flowlink_pb2.GAP_REASON_CORRUPT if after < self._next_seq else flowlink_pb2.GAP_REASON_TORN
                self._holes.append(_Hole(from_seq=before + 1, to_seq=after - 1, reason=reason, flow_records=0))

    def _write(self, seq: int, stored: _Stored) -> None:
        """Put one batch on the disk, or say that memory is all there is for a while."""
        journal = self._journal
        if journal is None or self._monotonic() < self._disk_retry_at:
            return
        assert stored.message is not None
        try:
            while journal.size_bytes + stored.size_bytes > self._limits.disk_bytes and self._evict_segment(journal):
                pass
            journal.take(seq)
            stored.place = journal.append(seq=seq, flow_records=stored.flow_records, payload=stored.message)
        except OSError:
            self._disk_retry_at = self._monotonic() + DISK_RETRY_SECONDS
            SPOOL_DEGRADED.set(1)
            self._on_disk(lambda opened: opened.set_degraded(degraded=True))
        else:
            SPOOL_DEGRADED.set(0)

    def _keep(self, seq: int, stored: _Stored) -> None:
        self._batches[seq] = stored
        self._order.append(seq)
        self._waiting_bytes += stored.size_bytes

    def _on_disk(self, write: Callable[[Journal], None]) -> None:
        if self._journal is not None:
            try:
                write(self._journal)
            except OSError:
                SPOOL_DEGRADED.set(1)

    def _read(self, stored: _Stored) -> bytes | None:
        if stored.place is None or self._journal is None:
            return None
        return self._journal.read(*stored.place)

    def _evict_segment(self, journal: Journal) -> bool:
        """Make room on the disk. What has a copy in memory lives on in memory."""
        dropped = journal.drop_oldest()
        if dropped is None:
            return False
        for seq in self._order[self._head :]:
            if seq > dropped.last_seq:
                break
            stored = self._batches[seq]
            stored.place = None
            if stored.message is None:
                self._give_up(seq, flowlink_pb2.GAP_REASON_EVICTED)
        return True

    def _evict(self) -> None:
        """Make room in memory, oldest first: to the disk's copy where there is one, else to a hole."""
        if self._memory_bytes <= self._limits.memory_bytes:
            return
        for seq in self._order[self._head : -1]:
            if self._memory_bytes <= self._limits.memory_bytes:
                return
            stored = self._batches.get(seq)
            if stored is None or stored.message is None or seq <= self._in_flight_through:
                continue
            if stored.place is not None:
                self._memory_bytes -= stored.size_bytes
                stored.message = None
            else:
                self._give_up(seq, flowlink_pb2.GAP_REASON_EVICTED)

    def _give_up(self, seq: int, reason: flowlink_pb2.GapReason.ValueType) -> None:
        """Turn a batch into a hole, and count it."""
        stored = self._batches.pop(seq)
        self._waiting_bytes -= stored.size_bytes
        if stored.message is not None:
            self._memory_bytes -= stored.size_bytes
        index = bisect.bisect_left(self._order, seq, lo=self._head)
        del self._order[index]
        SPOOL_LOST_RECORDS.labels(_REASON_LABELS[reason]).inc(stored.flow_records)
        if reason == flowlink_pb2.GAP_REASON_EVICTED:
            self._evicted_untold += stored.flow_records
        position = bisect.bisect_left([hole.from_seq for hole in self._holes], seq)
        before = self._holes[position - 1] if position else None
        # One that was sent may have been committed: it stays by itself, so that its records are not counted then.
        if before and before.to_seq == seq - 1 and before.reason == reason and seq - 1 > self._in_flight_through:
            before.to_seq = seq
            before.flow_records += stored.flow_records
            return
        self._holes.insert(position, _Hole(from_seq=seq, to_seq=seq, reason=reason, flow_records=stored.flow_records))

    def _gap_from(self, wanted: int) -> Pending:
        """One Gap from `wanted` to the end of its hole, or to the next batch when nobody knows what was there."""
        for hole in self._holes:
            if hole.from_seq <= wanted <= hole.to_seq:
                to_seq, reason, flow_records = hole.to_seq, hole.reason, hole.flow_records
                break
        else:
            index = bisect.bisect_left(self._order, wanted, lo=self._head)
            next_batch = self._order[index] if index < len(self._order) else self._next_seq
            next_hole = min((hole.from_seq for hole in self._holes if hole.from_seq > wanted), default=self._next_seq)
            to_seq, reason, flow_records = min(next_batch, next_hole) - 1, flowlink_pb2.GAP_REASON_EVICTED, 0
        gap = flowlink_pb2.Gap(from_seq=wanted, to_seq=to_seq, reason=reason, records=flow_records)
        self._in_flight_through = max(self._in_flight_through, to_seq)
        message = flowlink_pb2.AgentMessage(gap=gap).SerializeToString()
        return Pending(from_seq=wanted, to_seq=to_seq, message=message)

    def _forget_head(self) -> None:
        stored = self._batches.pop(self._order[self._head])
        self._waiting_bytes -= stored.size_bytes
        if stored.message is not None:
            self._memory_bytes -= stored.size_bytes
        self._head += 1
        if self._head > 1024 and self._head * 2 > len(self._order):
            del self._order[: self._head]
            self._head = 0

    def _sync_forever(self) -> None:
        while not self._stop.wait(SYNC_SECONDS):
            journal = self._journal
            if journal is not None:
                journal.sync()

    def _publish(self) -> None:
        SPOOL_BATCHES.set(self.waiting_batches)
        SPOOL_BYTES.set(self._memory_bytes + (self._journal.size_bytes if self._journal is not None else 0))


def _rows(batch: flowlink_pb2.Batch) -> int:
    return len(flowlink_pb2.Columns.FromString(batch.columns).count)
