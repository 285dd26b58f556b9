"""KeyTable: numbers for keys of three 64-bit words, thousands at a time.

Enters: keys as three columns. Leaves: for each the number that it was added under, or -1. Invariant: whole keys are
compared, the hash only says where to look; it is salted, so that nobody outside can choose keys that meet. An open
table with linear probing, in numpy: a dictionary would make an object of every key, a sorted array costs a search of
seventeen steps.
"""

import secrets

import numpy as np
import numpy.typing as npt

from aggregator.services.recording.deliveries import I64, U64

Keys = tuple[U64, U64, U64]
_LEAST_BITS = 10
_ROOM = 4  # slots for each key: two probes find nearly every one


class KeyTable:
    """Not thread-safe."""

    def __init__(self) -> None:
        self._mixers = [np.uint64(secrets.randbits(64) | 1) for _ in range(3)]
        self._keys = [np.empty(0, np.uint64) for _ in range(3)]
        self._bits = _LEAST_BITS
        self._slots = np.full(1 << self._bits, -1, np.int64)

    def __len__(self) -> int:
        return len(self._keys[0])

    def find(self, keys: Keys) -> I64:
        """The number of each key, -1 for the unknown ones."""
        slot = self._home(keys)
        found = self._slots[slot]
        if not len(self):
            return found
        lost = np.flatnonzero((found >= 0) & ~self._equal(found, keys))
        while len(lost):  # somebody else lives there: the next slot
            slot[lost] = (slot[lost] + 1) & (len(self._slots) - 1)
            found[lost] = self._slots[slot[lost]]
            there = found[lost]
            same = self._equal(there, (keys[0][lost], keys[1][lost], keys[2][lost]))
            lost = lost[(there >= 0) & ~same]
        return found

    def add(self, keys: Keys) -> None:
        """Number these, which are new and differ, from len(self) on."""
        first = len(self)
        self._keys = [np.concatenate([held, new]) for held, new in zip(self._keys, keys, strict=True)]
        if len(self) * _ROOM > len(self._slots):
            self._bits = max(self._bits, (len(self) * _ROOM * 2 - 1).bit_length())
            self._slots = np.full(1 << self._bits, -1, np.int64)
            first = 0
        waiting = np.arange(first, len(self))
        slot = self._home((self._keys[0][first:], self._keys[1][first:], self._keys[2][first:]))
        while len(waiting):
            free = self._slots[slot] < 0
            self._slots[slot[free]] = waiting[free]  # of those that meet, the last stays
            settled = self._slots[slot] == waiting
            waiting, slot = waiting[~settled], (slot[~settled] + 1) & (len(self._slots) - 1)

    def _equal(self, numbers: I64, keys: Keys) -> npt.NDArray[np.bool_]:
        equal: npt.NDArray[np.bool_] = self._keys[2][numbers] == keys[2]
        equal &= self._keys[0][numbers] == keys[0]
        equal &= self._keys[1][numbers] == keys[1]
        return equal

    def _home(self, keys: Keys) -> I64:
        mixed = keys[0] * self._mixers[0]
        mixed = (mixed ^ (mixed >> np.uint64(29))) + keys[1] * self._mixers[1]
        mixed = (mixed ^ (mixed >> np.uint64(31))) + keys[2] * self._mixers[2]
        mixed ^= mixed >> np.uint64(32)
        mixed *= self._mixers[0]
        home: U64 = mixed >> np.uint64(64 - self._bits)
        return home.view(np.int64)
