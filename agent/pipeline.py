"""The agent's data flow, on one screen.

    kernel map --swap, drain--> Drained --attribute--> FlowColumns --encode--> Batch --append--> Spool --> stream

Enters: an attached Capture. Leaves: batches in the spool; the stream takes them from there.
Invariant: every event is in one batch, or in a counter of the batch that follows, also where the agent is killed
between any two steps: what is drained stands in the `Stage` until its batch is in the spool. Nothing here waits for the
aggregator.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from agent import metrics
from agent.encode import encode
from agent.flow import no_flows
from agent.identity.resolver import FirstSight
from agent.kernel.capture import Announcement, CgroupCreatedEvent, FirstSightEvent
from agent.kernel.maps import Counter, Instant
from agent.kernel.stage import Place, Stage
from wattle.v1 import flowlink_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.flow import FlowColumns
    from agent.identity.resolver import Resolver, Unreported
    from agent.kernel.maps import Drained, Interval

    Leftovers = Callable[[Callable[[Place], bool]], Iterator[tuple[Drained, Stage]]]

log = logging.getLogger(__name__)

_STAGES = ("drain", "attribute", "encode")


class FlowSource(Protocol):
    """The kernel, as the pipeline needs it."""

    @property
    def flow_entries(self) -> int: ...
    @property
    def stage(self) -> Stage: ...
    def swap(self) -> Interval: ...
    def drain(self, interval: Interval) -> Iterator[Drained]: ...
    def counters(self) -> Mapping[Counter, int]: ...
    def missed(self) -> int: ...
    def announcements(self) -> Iterator[Announcement]: ...


class Sink(Protocol):
    """The spool, as the pipeline needs it: takes a batch at once, whatever the aggregator does."""

    @property
    def epoch(self) -> int: ...
    @property
    def next_seq(self) -> int: ...
    def took(self, *, epoch: int, seq: int) -> bool: ...
    def append(self, batch: flowlink_pb2.Batch, *, flow_records: int | None = None) -> None: ...


class Pipeline:
    """One node's capture, from the kernel to the spool.

    One thread does it all: the ring, the maps and the resolver have one reader each, and the event loop stays free.
    """

    def __init__(
        self,
        *,
        source: FlowSource,
        resolver: Resolver,
        sink: Sink,
        open_flows: Callable[[], FlowColumns] | None = None,
        interval_seconds: float = 5.0,
    ) -> None:
        self._source = source
        self._resolver = resolver
        self._sink = sink
        self._open_flows = open_flows
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="capture")
        *told, missed = source.stage.told[: len(Counter) + 1]
        self._counted: Mapping[Counter, int] = dict(zip(Counter, told, strict=True))
        self._missed = missed
        self._leftovers: Leftovers | None = None
        self._turned_at = time.monotonic()
        self.map_fill = 0.0
        self.interval_seconds = interval_seconds

    def begin_with(self, leftovers: Leftovers) -> None:
        """What earlier agents left is delivered before the first interval."""
        self._leftovers = leftovers

    # ---- the event loop's side ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Turn for ever; cancel it, then `turn_once` to flush."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.turn_once()
            await asyncio.sleep(max(0.0, self.interval_seconds - (loop.time() - began)))

    async def turn_once(self) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.turn)

    async def listen(self, ring_fd: int) -> None:
        """Hear announcements for ever, as they come."""
        loop = asyncio.get_running_loop()
        while True:
            waiting = asyncio.Event()
            loop.add_reader(ring_fd, waiting.set)
            try:
                await waiting.wait()
            finally:
                loop.remove_reader(ring_fd)
            await loop.run_in_executor(self._thread, self.hear)

    async def look_at_open(self) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.look)

    def silent_seconds(self) -> float:
        return time.monotonic() - self._turned_at

    def close(self) -> None:
        self._thread.shutdown()

    # ---- the capture thread ------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """Announcements, as soon as they come: the process that made one may live a second."""
        for announcement in self._source.announcements():
            match announcement:
                case CgroupCreatedEvent():
                    metrics.ANNOUNCEMENTS.labels("cgroup").inc()
                    self._resolver.cgroup_created(announcement.cgroup_id, announcement.path)
                case FirstSightEvent():
                    metrics.ANNOUNCEMENTS.labels("first-sight").inc()
                    self._resolver.saw(
                        FirstSight(
                            pid=announcement.pid,
                            cgroup_id=announcement.cgroup_id,
                            netns_cookie=announcement.netns_cookie,
                            netns_inode=announcement.netns_inode,
                        )
                    )

    def turn(self) -> int:
        """One interval: drain, attribute, encode, append, 5,000 flows at a time. Returns the flow records sent."""
        self.hear()
        sent = self._deliver_leftovers()
        interval = self._source.swap()
        self.hear()
        self._resolver.begin_interval()
        loss = self._loss()
        taken, times = 0, dict.fromkeys(_STAGES, 0.0)
        began = time.perf_counter()
        for drained in self._source.drain(interval):
            times["drain"] += time.perf_counter() - began
            taken += len(drained)
            sent += self._deliver(drained, self._source.stage, loss, times)
            loss = flowlink_pb2.Loss()  # told once
            began = time.perf_counter()
        times["drain"] += time.perf_counter() - began
        if not taken:
            self._append(no_flows(), interval.start, interval.end, loss)  # an interval without flows is news, too
        self._source.stage.remember_told((*(self._counted[counter] for counter in Counter), self._missed))
        for stage, seconds in times.items():
            metrics.DRAIN_SECONDS.labels(stage).observe(seconds)
        self.map_fill = taken / self._source.flow_entries
        metrics.FLOW_RECORDS.inc(taken)
        metrics.MAP_FILL.set(self.map_fill)
        metrics.DRAIN_ALIVE.set_to_current_time()
        self._turned_at = time.monotonic()
        return sent

    def _deliver_leftovers(self) -> int:
        if self._leftovers is None:
            return 0
        leftovers, self._leftovers = self._leftovers, None
        records = sent = 0
        for drained, stage in leftovers(lambda place: self._sink.took(epoch=place.epoch, seq=place.seq)):
            records += len(drained)
            sent += self._deliver(drained, stage, flowlink_pb2.Loss(), dict.fromkeys(_STAGES, 0.0))
        if records:
            log.info("an earlier agent left %d flow records", records)
            metrics.FLOW_RECORDS.inc(records)
        return sent

    def _deliver(self, drained: Drained, stage: Stage, loss: flowlink_pb2.Loss, times: dict[str, float]) -> int:
        """Rows that stand in `stage`, into the spool: one batch, or, where they are too many bytes, several."""
        sent, spans = 0, [(0, len(drained))]
        while spans:
            first, last = spans.pop(0)
            began = time.perf_counter()
            attributed = self._resolver.attribute(drained.rows(first, last))
            attributed_at = time.perf_counter()
            batches = list(encode(attributed.columns, start=drained.start, end=drained.end, loss=loss))
            if len(batches) > 1 and last - first > 1:
                middle = (first + last) // 2
                spans[:0] = [(first, middle), (middle, last)]
                continue
            stage.about_to_append(first, last, Place(epoch=self._sink.epoch, seq=self._sink.next_seq))
            for records, batch in batches:
                _add_unreported(batch.loss, attributed.unreported)
                self._sink.append(batch, flow_records=records)
            times["attribute"] += attributed_at - began
            times["encode"] += time.perf_counter() - attributed_at
            loss = flowlink_pb2.Loss()
            sent += len(attributed.columns)
        return sent

    def look(self) -> int:
        """Connections that are open now keep their link alive; they count no new connection."""
        if self._open_flows is None:
            return 0
        start = Instant.now()
        columns = self._open_flows()
        metrics.OPEN_CONNECTIONS.set(len(columns))
        if len(columns):
            self._append(columns, start, Instant.now(), flowlink_pb2.Loss())
        return len(columns)

    def _append(self, columns: FlowColumns, start: Instant, end: Instant, loss: flowlink_pb2.Loss) -> None:
        for records, batch in encode(columns, start=start, end=end, loss=loss):
            self._sink.append(batch, flow_records=records)

    def _loss(self) -> flowlink_pb2.Loss:
        """What the kernel counted as lost since the last turn."""
        counted = self._source.counters()
        since = {counter: counted[counter] - self._counted[counter] for counter in Counter}
        self._counted = counted
        missed = self._source.missed()
        missed_since, self._missed = max(0, missed - self._missed), missed
        metrics.FLOW_EVENTS.inc(since[Counter.EVENTS])
        for reason, events in (
            ("map_full", since[Counter.MAP_FULL]),
            ("program_missed", missed_since),
            ("ring_lost", since[Counter.RING_LOST]),
            ("uncounted_udp", since[Counter.UNCOUNTED_UDP]),
        ):
            metrics.EVENTS_LOST.labels(reason).inc(events)
        metrics.EVENTS_UNREPORTED.labels("close_of_unknown_connection").inc(since[Counter.UNKNOWN_CLOSE])
        return flowlink_pb2.Loss(
            map_full=since[Counter.MAP_FULL],
            program_missed=missed_since,
            ring_lost=since[Counter.RING_LOST],
            uncounted_udp=since[Counter.UNCOUNTED_UDP],
        )


def _add_unreported(loss: flowlink_pb2.Loss, unreported: Unreported) -> None:
    for reason in ("unresolved", "not_a_pod", "mesh_loopback"):
        events = getattr(unreported, reason)
        metrics.EVENTS_UNREPORTED.labels(reason).inc(events)
        setattr(loss, reason, events)
