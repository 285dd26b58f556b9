"""Reads what the kernel counted.

Enters: descriptors of the flow maps and of the counters. Leaves: `Drained`, numpy arrays without a Python object per
flow, at most 5,000 at a time, and counters summed over CPUs.
Invariant: an entry is read once. Two maps stand behind a map of maps; the active one is exchanged first, the kernel
returns when no program uses the other any more, and only that one is drained.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from agent.errors import LayoutError
from agent.flow import FlowKey, FlowStats
from agent.kernel import bpf
from agent.kernel.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.kernel.stage import Place

_POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")

Array = NDArray[np.void]


class Counter(IntEnum):
    """enum counter of flows.h."""

    MAP_FULL = 0
    RING_LOST = 1
    UNCOUNTED_UDP = 2
    UNKNOWN_CLOSE = 3
    EVENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """Both clocks, read together."""

    boot_ns: int
    wall_ns: int

    @classmethod
    def now(cls) -> Instant:
        return cls(boot_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME), wall_ns=time.time_ns())


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From one swap to the next."""

    start: Instant
    end: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Flows of one interval; parallel arrays that may stand in memory which the next drain fills again."""

    keys: Array
    stats: Array
    start: Instant
    end: Instant

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, first: int, last: int) -> Drained:
        return replace(self, keys=self.keys[first:last], stats=self.stats[first:last])


def possible_cpus(path: Path = _POSSIBLE_CPUS) -> int:
    """Per-CPU maps hold a value for every CPU that may ever come, not only for those online."""
    last = path.read_text(encoding="ascii").strip().rsplit(",", 1)[-1]
    return int(last.rsplit("-", 1)[-1]) + 1


class FlowMaps:
    """The two flow maps, the map that names the active one, and the stage they are drained through."""

    def __init__(
        self, *, outer_fd: int, inner_fds: tuple[int, int], stage: Stage | None = None, in_use: bool = False
    ) -> None:
        """`in_use`: programs count into them already, and go on."""
        self.entries = check_layout(inner_fds[0]).max_entries
        self.stage = stage or Stage()
        self._outer_fd, self._inner_fds = outer_fd, inner_fds
        self._active = int(bpf.inner_map_id(outer_fd) == bpf.map_info(inner_fds[1]).map_id) if in_use else 0
        bpf.set_inner_map(outer_fd, inner_fds[self._active])
        self._opened = Instant.now()

    def swap(self) -> Interval:
        """End the interval: events from now on go to the other map."""
        self._active = 1 - self._active
        start = self._opened
        bpf.set_inner_map(self._outer_fd, self._inner_fds[self._active])
        self._opened = Instant.now()
        return Interval(start=start, end=self._opened)

    def drain(self, interval: Interval) -> Iterator[Drained]:
        """What was counted before the last swap, part by part; each is gone when the next is asked for."""
        for keys, stats in self.stage.drain(self._inner_fds[1 - self._active]):
            yield Drained(keys=keys, stats=stats, start=interval.start, end=interval.end)

    def left_behind(self, took: Callable[[Place], bool]) -> Iterator[Drained]:
        """What the agent before had not delivered, from its stage and from both maps, with what was counted since."""
        yield from leftovers(self.stage, self._inner_fds[1 - self._active], took)
        self.swap()
        yield from leftovers(self.stage, self._inner_fds[1 - self._active], took)

    def peek(self) -> Drained:
        """What the active map holds; it stays there."""
        keys, stats = np.empty(self.entries, FlowKey), np.empty(self.entries, FlowStats)
        cursor = bpf.BatchCursor(self._inner_fds[self._active])
        filled = 0
        while not cursor.exhausted and filled < self.entries:
            filled += cursor.read(keys[filled:].ctypes.data, stats[filled:].ctypes.data, self.entries - filled)
        return Drained(keys=keys[:filled], stats=stats[:filled], start=self._opened, end=Instant.now())


def leftovers(stage: Stage, inner_fd: int, took: Callable[[Place], bool]) -> Iterator[Drained]:
    """What stands in a stage and in a map that nobody writes to; an interval that begins with its first event."""
    keys, stats = stage.left(took)
    if len(keys):
        yield _since_its_first_event(keys, stats)
    stage.clear()
    for keys, stats in stage.drain(inner_fd):
        yield _since_its_first_event(keys, stats)


def _since_its_first_event(keys: Array, stats: Array) -> Drained:
    now = Instant.now()
    begin = int(stats["first_ns"].min())
    start = Instant(boot_ns=begin, wall_ns=now.wall_ns - (now.boot_ns - begin))
    return Drained(keys=keys, stats=stats, start=start, end=now)


def check_layout(inner_fd: int) -> bpf.MapInfo:
    info = bpf.map_info(inner_fd)
    if (info.key_bytes, info.value_bytes) != (FlowKey.itemsize, FlowStats.itemsize):
        raise LayoutError(
            f"opening the flow map: its entries are {info.key_bytes} + {info.value_bytes} bytes, "
            f"this agent reads {FlowKey.itemsize} + {FlowStats.itemsize}"
        )
    return info


class Counters:
    """Cumulative since the programs were loaded."""

    def __init__(self, map_fd: int) -> None:
        self._map_fd = map_fd
        self._cpus = possible_cpus()

    def read(self) -> Mapping[Counter, int]:
        totals = {}
        for counter in Counter:
            raw = bpf.lookup(self._map_fd, struct.pack("<I", counter), 8 * self._cpus)
            totals[counter] = sum(struct.unpack(f"<{self._cpus}Q", raw)) if raw else 0
        return totals
