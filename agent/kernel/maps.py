"""Reads what the kernel counted.

Enters: descriptors of the flow maps and of the counters. Leaves: `Drained`, numpy arrays without a Python object per
flow, and counters summed over CPUs.
Invariant: an entry is read once. Two maps stand behind a map of maps; the active one is exchanged first, the kernel
returns when no program uses the other any more, and only that one is drained.
"""

from __future__ import annotations

import errno
import logging
import struct
import time
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from agent import metrics
from agent.errors import BpfSyscallError, LayoutError
from agent.flow import FlowKey, FlowStats
from agent.kernel import bpf

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

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
class Drained:
    """One interval's flows; parallel arrays, valid until the next drain."""

    keys: Array
    stats: Array
    start: Instant
    end: Instant

    def __len__(self) -> int:
        return len(self.keys)

    def copied(self) -> Drained:
        """Valid beyond the next drain."""
        return replace(self, keys=self.keys.copy(), stats=self.stats.copy())

    def joined(self, later: Drained) -> Drained:
        """Both intervals as one; a flow may appear twice."""
        return Drained(
            keys=np.concatenate((self.keys, later.keys)),
            stats=np.concatenate((self.stats, later.stats)),
            start=self.start,
            end=later.end,
        )


def possible_cpus(path: Path = _POSSIBLE_CPUS) -> int:
    """Per-CPU maps hold a value for every CPU that may ever come, not only for those online."""
    last = path.read_text(encoding="ascii").strip().rsplit(",", 1)[-1]
    return int(last.rsplit("-", 1)[-1]) + 1


def drain(map_fd: int, keys: Array, values: Array, *, remove: bool = True) -> int:
    """Fill `keys` and `values` from a map that nobody writes to; the entries read.

    What a failing call leaves stays in the map and comes with a later drain: late, and counted as such, but not lost.
    """
    cursor = bpf.BatchCursor(map_fd, remove=remove)
    filled = 0
    while not cursor.exhausted and filled < len(keys):
        try:
            got = cursor.read(
                keys.ctypes.data + filled * keys.itemsize,
                values.ctypes.data + filled * values.itemsize,
                len(keys) - filled,
            )
        except BpfSyscallError as exc:
            metrics.DRAINS_CUT.labels(errno.errorcode.get(exc.errno, str(exc.errno))).inc()
            log.warning("the rest of this interval comes with a later one: %s", exc)
            break
        if not got and not cursor.exhausted:
            break  # ENOSPC with the whole map's room left cannot happen: a bucket holds less than the map
        filled += got
    return filled


class FlowMaps:
    """The two flow maps and the map that names the active one."""

    def __init__(self, *, outer_fd: int, inner_fds: tuple[int, int]) -> None:
        info = check_layout(inner_fds[0])
        self.entries = info.max_entries
        self._outer_fd, self._inner_fds = outer_fd, inner_fds
        self._active = 0
        # Lazily backed by memory: only what a drain touches becomes resident.
        self._keys = np.empty(self.entries, FlowKey)
        self._values = np.empty(self.entries, FlowStats)
        bpf.set_inner_map(outer_fd, inner_fds[0])
        self._opened = Instant.now()

    def swap_and_drain(self) -> Drained:
        """End the interval: events from now on go to the other map."""
        closing, self._active = self._active, 1 - self._active
        start = self._opened
        bpf.set_inner_map(self._outer_fd, self._inner_fds[self._active])
        self._opened = end = Instant.now()
        filled = drain(self._inner_fds[closing], self._keys, self._values)
        return Drained(keys=self._keys[:filled], stats=self._values[:filled], start=start, end=end)


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
