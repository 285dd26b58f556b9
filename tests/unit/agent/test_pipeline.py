"""Drain to spool with everything faked: each event is in a batch or in a counter, once."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from agent import metrics
from agent.errors import BpfSyscallError
from agent.flow import FlowKey, FlowStats
from agent.identity.resolver import Attributed, FirstSight, Unreported
from agent.kernel import bpf
from agent.kernel.capture import Announcement, CgroupCreatedEvent, FirstSightEvent
from agent.kernel.maps import Counter, Drained, Instant, Interval
from agent.kernel.stage import Place, Stage
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
        self.stage = Stage()

    def swap(self) -> Interval:
        return Interval(start=Instant.now(), end=Instant.now())

    def drain(self, interval: Interval) -> Iterator[Drained]:
        del interval
        yield drained(self.flows)

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
        self.epoch, self.next_seq = 1, 1

    def took(self, *, epoch: int, seq: int) -> bool:
        return epoch == self.epoch and seq < self.next_seq

    def append(self, batch: flowlink_pb2.Batch, *, flow_records: int | None = None) -> None:
        self.batches.append(batch)
        self.records += flow_records or 0
        self.next_seq += 1


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

    def begin_interval(self) -> None:
        """Nothing is kept."""

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


def test_what_an_earlier_agent_left_comes_first_and_once() -> None:
    source, sink = Source(), Sink()
    told: list[int] = []

    def leftovers(took: Callable[[Place], bool]) -> Iterator[tuple[Drained, Stage]]:
        assert not took(Place(epoch=1, seq=1))
        yield drained(3), source.stage
        assert took(Place(epoch=1, seq=1)), "it is in the spool before the next part is asked for"
        yield drained(2), source.stage
        told.append(sink.records)

    pipeline = Pipeline(source=source, resolver=column_resolver(), sink=sink)
    pipeline.begin_with(leftovers)
    pipeline.turn()
    assert told == [5], "only then the earlier agent's folder goes"
    assert sink.records == 6
    pipeline.turn()
    assert sink.records == 7
    pipeline.close()


def test_rows_that_are_too_many_bytes_for_one_batch_are_several_and_each_is_announced() -> None:
    """The stage knows by its rows what is in the spool: a batch is one span of them."""
    pods = 4_000

    class Wordy(Source):
        def drain(self, interval: Interval) -> Iterator[Drained]:
            rows = next(super().drain(interval))
            rows.keys["cgroup_id"] = 3 * np.arange(1, pods + 1)
            yield rows

    source, sink = Wordy(), Sink()
    source.flows = pods
    announced: list[tuple[int, int, int]] = []
    source.stage.about_to_append = lambda first, last, place: announced.append((first, last, place.seq))  # type: ignore[method-assign]
    pipeline = Pipeline(source=source, resolver=column_resolver(wordy=True), sink=sink)
    pipeline.turn()
    assert len(sink.batches) > 1
    assert [seq for _first, _last, seq in announced] == list(range(1, len(sink.batches) + 1))
    assert [0, *(last for _first, last, _seq in announced)] == [*(first for first, _last, _seq in announced), pods]
    assert sink.records == pods
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
    stage = Stage()
    answers: list[int] = [7]

    def take(address: int) -> bool:
        if not answers:
            raise BpfSyscallError("draining a map", 12)
        words = (ctypes.c_uint64 * 32).from_address(address)
        words[4], words[16] = answers.pop(), 1
        return False

    monkeypatch.setattr(bpf, "take_batch", take)
    before = metrics.DRAINS_CUT.labels("ENOMEM")._value.get()
    assert [len(keys) for keys, _stats in stage.drain(5)] == [7]
    assert metrics.DRAINS_CUT.labels("ENOMEM")._value.get() == before + 1


def test_a_stage_knows_which_rows_the_spool_has_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()

    def take(address: int) -> bool:
        words = (ctypes.c_uint64 * 32).from_address(address)
        assert words[16] == 0xFFFF_FFFF, "while the call is not made, the stage is empty"
        words[4], words[16] = 10, 1
        return True

    def left(*taken: int) -> int:
        return len(stage.left(lambda place: place.epoch == 5 and place.seq in taken)[0])

    monkeypatch.setattr(bpf, "take_batch", take)
    parts = stage.drain(5)
    next(parts)
    assert left() == 10
    stage.about_to_append(0, 4, Place(epoch=5, seq=8))
    assert (left(), left(8)) == (10, 6)
    stage.about_to_append(4, 10, Place(epoch=5, seq=9))
    assert (left(8), left(8, 9)) == (6, 0)
    assert list(parts) == []
    assert left() == 0
