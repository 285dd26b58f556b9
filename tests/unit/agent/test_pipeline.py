"""Drain to spool with everything faked: each event is in a batch or in a counter, once."""

import asyncio
import os
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from agent import metrics
from agent.errors import BpfSyscallError
from agent.flow import FlowKey, FlowStats
from agent.identity.resolver import Attributed, FirstSight, Unreported
from agent.kernel import maps
from agent.kernel.capture import Announcement, CgroupCreatedEvent, FirstSightEvent
from agent.kernel.maps import Counter, Drained, Instant
from agent.pipeline import Pipeline
from tests.property.agent.test_columns import resolver as column_resolver
from wattle.v1 import flowlink_pb2


def drained(flows: int) -> Drained:
    keys, stats = np.zeros(flows, FlowKey), np.zeros(flows, FlowStats)
    keys["cgroup_id"] = 3
    keys["remote"][:, 0] = np.arange(1, flows + 1)
    return Drained(keys=keys, stats=stats, start=Instant.now(), end=Instant.now())


class Source:
    flow_entries = 100

    def __init__(self) -> None:
        self.full = 0
        self.full_of_itself = 0
        self.flows = 1
        self.news: list[Announcement] = []

    def swap_and_drain(self) -> Drained:
        return drained(self.flows)

    def counters(self) -> Mapping[Counter, int]:
        return {counter: self.full if counter is Counter.MAP_FULL else 0 for counter in Counter}

    def missed(self) -> int:
        return self.full_of_itself

    def announcements(self) -> Iterator[Announcement]:
        while self.news:
            yield self.news.pop(0)


class Sink:
    def __init__(self) -> None:
        self.batches: list[flowlink_pb2.Batch] = []
        self.records = 0

    def append(self, batch: flowlink_pb2.Batch, *, flow_records: int | None = None) -> None:
        self.batches.append(batch)
        self.records += flow_records or 0


class Ears:
    """A resolver that only listens."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.heard_something = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    def saw(self, sight: FirstSight) -> None:
        self.heard.append(sight.cgroup_id)
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.heard_something.set)

    def cgroup_created(self, cgroup_id: int, path: str) -> None:
        self.heard.append((cgroup_id, path))

    def attribute(self, drained: Drained) -> Attributed:
        self.heard.append("attributed")
        columns = column_resolver().attribute(drained).columns
        return Attributed(columns=columns, unreported=Unreported(not_a_pod=2))


def test_losses_are_differences_and_are_told_once() -> None:
    source, sink = Source(), Sink()
    pipeline = Pipeline(source=source, resolver=column_resolver(), sink=sink)
    source.full = 5
    pipeline.turn()
    source.full = 7
    pipeline.turn()
    pipeline.turn()
    source.full_of_itself = 3
    pipeline.turn()
    pipeline.turn()
    assert [batch.loss.map_full for batch in sink.batches] == [5, 2, 0, 0, 0]
    assert [batch.loss.program_missed for batch in sink.batches] == [0, 0, 0, 3, 0]
    pipeline.close()


def test_what_came_before_the_first_interval_is_in_it_and_then_confirmed() -> None:
    source, sink = Source(), Sink()
    confirmed: list[int] = []
    pipeline = Pipeline(source=source, resolver=column_resolver(), sink=sink)
    pipeline.begin_with(drained(3))
    pipeline.begin_with(drained(2), then=lambda: confirmed.append(sink.records))
    pipeline.turn()
    assert sink.records == 6
    assert confirmed == [6], "confirmed after it was appended"
    pipeline.turn()
    assert confirmed == [6]
    pipeline.close()


def test_announcements_are_heard_before_the_flows_they_explain() -> None:
    source, sink, ears = Source(), Sink(), Ears()
    source.news = [
        CgroupCreatedEvent(cgroup_id=9, path="/kubepods"),
        FirstSightEvent(pid=1, cgroup_id=9, netns_cookie=2, netns_inode=3),
    ]
    pipeline = Pipeline(source=source, resolver=ears, sink=sink)  # type: ignore[arg-type]
    pipeline.turn()
    assert ears.heard == [(9, "/kubepods"), 9, "attributed"]
    assert sink.batches[0].loss.not_a_pod == 2
    pipeline.close()


async def test_ring_is_read_as_soon_as_it_is_readable() -> None:
    source, ears = Source(), Ears()
    pipeline = Pipeline(source=source, resolver=ears, sink=Sink())  # type: ignore[arg-type]
    ears.loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    listening = asyncio.create_task(pipeline.listen(reading))
    source.news = [FirstSightEvent(pid=1, cgroup_id=42, netns_cookie=2, netns_inode=3)]
    os.write(writing, b"!")
    async with asyncio.timeout(10):
        await ears.heard_something.wait()
    assert ears.heard == [42]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    os.close(reading)
    os.close(writing)
    pipeline.close()


def test_a_drain_that_is_cut_keeps_what_it_read_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not read stays in the map: late, not lost."""

    class Cursor:
        exhausted = False

        def __init__(self, map_fd: int, *, remove: bool) -> None:
            self.calls = [7]
            assert (map_fd, remove) == (5, True)

        def read(self, keys_address: int, values_address: int, capacity: int) -> int:
            assert keys_address
            assert values_address
            if not self.calls:
                raise BpfSyscallError("draining a map", 12)
            assert capacity == 100
            return self.calls.pop()

    monkeypatch.setattr(maps.bpf, "BatchCursor", Cursor)
    before = metrics.DRAINS_CUT.labels("ENOMEM")._value.get()
    assert maps.drain(5, np.empty(100, FlowKey), np.empty(100, FlowStats)) == 7
    assert metrics.DRAINS_CUT.labels("ENOMEM")._value.get() == before + 1
