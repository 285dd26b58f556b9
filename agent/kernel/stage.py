"""Where a drain puts what it took out of the kernel's map, until that is in the spool.

Enters: a flow map that nobody writes to. Leaves: its entries, at most `ROWS` at a time, each once, although the agent
may be killed at any instruction.
Invariant: the stage is the kernel's memory (an array map that user space maps), pinned beside the flow maps. One
system call takes entries out of a flow map, puts them here and writes here how many; a killed process still finishes
it. Before a batch is appended to the spool, its number stands here. So whoever finds the stage asks the spool whether
it took that number, and knows which rows are left.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from agent import metrics
from agent.errors import BpfSyscallError, LayoutError
from agent.flow import FlowKey, FlowStats
from agent.kernel import bpf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.kernel.maps import Array

log = logging.getLogger(__name__)

ROWS: Final = 5_000  # one batch, and little enough to stay in the CPU's cache from the drain to the wire
_WORDS: Final = 32
_ATTR_WORDS: Final = 16  # union bpf_attr; the kernel writes the entries' number into it
_COUNT: Final = 4  # low half of this word
_TOKEN, _BEGIN, _END, _SEQ, _EPOCH = range(_ATTR_WORDS, _ATTR_WORDS + 5)
_TOLD: Final = _EPOCH + 1  # and the words after it
_UNWRITTEN: Final = 0xFFFF_FFFF  # no bucket has this number: the call that fills the stage was not made
BYTES: Final = 8 * _WORDS + ROWS * (FlowKey.itemsize + FlowStats.itemsize)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The number that the spool gives to the next batch."""

    epoch: int
    seq: int


class Stage:
    """Entries between map and spool. `descriptor` is its map's; None: this process's own memory, which dies with it."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = descriptor
        size = (BYTES + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
        memory = mmap.mmap(-1 if descriptor is None else descriptor, size)
        self._words: Any = np.frombuffer(memory, np.uint64, _WORDS)  # a store is one instruction: whole, or not at all
        self._keys: Array = np.frombuffer(memory, FlowKey, ROWS, 8 * _WORDS)
        self._stats: Array = np.frombuffer(memory, FlowStats, ROWS, 8 * _WORDS + ROWS * FlowKey.itemsize)
        self._in_token = ctypes.c_uint64()

    @classmethod
    def create(cls) -> Stage:
        stage = cls(bpf.create_array(BYTES))
        stage.clear()
        return stage

    @classmethod
    def open_pinned(cls, path: str) -> Stage:
        descriptor = bpf.get_pinned(path)
        if bpf.map_info(descriptor).value_bytes != BYTES:
            os.close(descriptor)
            raise LayoutError(f"opening {path}: it is not a stage of this agent's layout")
        return cls(descriptor)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    # ---- from the map ------------------------------------------------------------------------------------------------

    def drain(self, map_fd: int) -> Iterator[tuple[Array, Array]]:
        """Move the map's entries, part by part; each part is valid until the next is asked for, and gone then.

        What a failing call leaves stays in the map and comes with a later drain: late, and counted as such, not lost.
        """
        exhausted = started = False
        while not exhausted:
            self._in_token.value = int(self._words[_TOKEN])
            self.clear()
            try:
                exhausted = self._take(map_fd, started=started)
            except BpfSyscallError as exc:
                metrics.DRAINS_CUT.labels(errno.errorcode.get(exc.errno, str(exc.errno))).inc()
                log.warning("the rest of this interval comes with a later one: %s", exc)
                break
            started = True
            keys, stats = self._keys[: self._filled], self._stats[: self._filled]
            if len(keys):
                yield keys, stats
            elif not exhausted:
                log.warning("a bucket of the flow map holds more than %d entries", ROWS)
                break
        self.clear()

    def _take(self, map_fd: int, *, started: bool) -> bool:
        base = self._words.ctypes.data
        self._words[:_ATTR_WORDS] = bpf.batch_attr(
            in_token=ctypes.addressof(self._in_token) if started else 0,
            out_token=base + 8 * _TOKEN,
            keys=self._keys.ctypes.data,
            values=self._stats.ctypes.data,
            capacity=ROWS,
            map_fd=map_fd,
        )
        return bpf.take_batch(base)

    @property
    def _filled(self) -> int:
        if int(self._words[_TOKEN]) & 0xFFFF_FFFF == _UNWRITTEN:
            return 0
        return min(int(self._words[_COUNT]) & 0xFFFF_FFFF, ROWS)

    # ---- to the spool ------------------------------------------------------------------------------------------------

    def about_to_append(self, first: int, last: int, place: Place) -> None:
        """Rows [first, last) go into the batch that `place` numbers; those before `first` are in the spool already."""
        self._words[_BEGIN] = first
        self._words[_SEQ] = 0
        self._words[_END] = last
        self._words[_EPOCH] = place.epoch
        self._words[_SEQ] = place.seq

    def clear(self) -> None:
        """Everything is in the spool."""
        self._words[_TOKEN] = _UNWRITTEN
        self._words[_SEQ] = 0
        self._words[_BEGIN] = 0

    @property
    def told(self) -> tuple[int, ...]:
        """The kernel's cumulative numbers as the aggregator was last told of them; zeros when it never was."""
        return tuple(self._words[_TOLD:].tolist())

    def remember_told(self, numbers: Sequence[int]) -> None:
        """An agent that is killed just before tells its last interval's losses again: rather twice than never."""
        self._words[_TOLD : _TOLD + len(numbers)] = numbers

    def left(self, took: Callable[[Place], bool]) -> tuple[Array, Array]:
        """What a killed agent had drained and not appended."""
        begin, seq = int(self._words[_BEGIN]), int(self._words[_SEQ])
        if seq and took(Place(epoch=int(self._words[_EPOCH]), seq=seq)):
            begin = int(self._words[_END])
        return self._keys[begin : self._filled], self._stats[begin : self._filled]
