"""The agent's data flow, on one screen.

    kernel map --swap_and_drain--> Drained --attribute--> FlowColumns --encode--> Batch --append--> Spool --> stream

Enters: an attached Capture. Leaves: batches in the spool; the stream takes them from there.
Invariant: every event is in a batch, or in a counter of the batch that follows. Nothing here waits for the aggregator.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from agent import metrics
from agent.encode import encode
from agent.identity.resolver import FirstSight
from agent.kernel.capture import Announcement, CgroupCreatedEvent, FirstSightEvent
from agent.kernel.maps import Counter, Instant
from wattle.v1 import flowlink_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.flow import FlowColumns
    from agent.identity.resolver import Resolver, Unreported
    from agent.kernel.maps import Drained

log = logging.getLogger(__name__)


class FlowSource(Protocol):
    """The kernel, as the pipeline needs it."""

    @property
    def flow_entries(self) -> int: ...
    def swap_and_drain(self) -> Drained: ...
    def counters(self) -> Mapping[Counter, int]: ...
    def missed(self) -> int: ...
    def announcements(self) -> Iterator[Announcement]: ...


class Sink(Protocol):
    """The spool, as the pipeline needs it: takes a batch at once, whatever the aggregator does."""

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
        self._counted: Mapping[Counter, int] = dict.fromkeys(Counter, 0)
        self._missed = 0
        self._pending: Drained | None = None
        self._on_first_turn: Callable[[], None] | None = None
        self._turned_at = time.monotonic()
        self.map_fill = 0.0
        self.interval_seconds = interval_seconds

    def begin_with(self, drained: Drained, *, then: Callable[[], None] | None = None) -> None:
        """What was drained before the first interval belongs to it; `then` is called when it is in the spool."""
        self._pending = drained if self._pending is None else self._pending.joined(drained)
        self._on_first_turn = then or self._on_first_turn

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
        """One interval: drain, attribute, encode, append. Returns the flow records sent."""
        self.hear()
        with metrics.DRAIN_SECONDS.labels("drain").time():
            drained = self._source.swap_and_drain()
        self.map_fill = len(drained) / self._source.flow_entries
        self.hear()
        if self._pending is not None:
            drained, self._pending = self._pending.joined(drained), None
        with metrics.DRAIN_SECONDS.labels("attribute").time():
            attributed = self._resolver.attribute(drained)
        loss = self._loss(attributed.unreported)
        with metrics.DRAIN_SECONDS.labels("encode").time():
            self._append(attributed.columns, drained.start, drained.end, loss)
        metrics.FLOW_RECORDS.inc(len(drained))
        metrics.MAP_FILL.set(self.map_fill)
        metrics.DRAIN_ALIVE.set_to_current_time()
        self._turned_at = time.monotonic()
        if self._on_first_turn is not None:
            self._on_first_turn()
            self._on_first_turn = None
        return len(attributed.columns)

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

    def _loss(self, unreported: Unreported) -> flowlink_pb2.Loss:
        counted = self._source.counters()
        since = {counter: counted[counter] - self._counted[counter] for counter in Counter}
        self._counted = counted
        missed = self._source.missed()
        missed_since, self._missed = missed - self._missed, missed
        metrics.FLOW_EVENTS.inc(since[Counter.EVENTS])
        for reason, events in (
            ("map_full", since[Counter.MAP_FULL]),
            ("program_missed", missed_since),
            ("ring_lost", since[Counter.RING_LOST]),
            ("uncounted_udp", since[Counter.UNCOUNTED_UDP]),
        ):
            metrics.EVENTS_LOST.labels(reason).inc(events)
        for reason, events in (
            ("unresolved", unreported.unresolved),
            ("not_a_pod", unreported.not_a_pod),
            ("mesh_loopback", unreported.mesh_loopback),
            ("close_of_unknown_connection", since[Counter.UNKNOWN_CLOSE]),
        ):
            metrics.EVENTS_UNREPORTED.labels(reason).inc(events)
        return flowlink_pb2.Loss(
            map_full=since[Counter.MAP_FULL],
            program_missed=missed_since,
            ring_lost=since[Counter.RING_LOST],
            unresolved=unreported.unresolved,
            not_a_pod=unreported.not_a_pod,
            mesh_loopback=unreported.mesh_loopback,
            uncounted_udp=since[Counter.UNCOUNTED_UDP],
        )
