"""The tables behind compiled policies: the axis of port classes, and the bitmaps of far ends.

Enters: the ports at which any answer changes, and answers. Leaves: a class for every port, an offset for every answer.
A bitmap that is there already is shared, by classes and by versions of the compiled policies alike.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.model.protocol import Protocol
from aggregator.policy.compiled.rules import LAST_PORT, Say

PORTS = LAST_PORT + 1
PROTOCOLS = tuple(Protocol)

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class PortClass:
    """Ports that no policy tells apart."""

    protocol: Protocol
    first: int
    last: int


class PortAxis:
    """Every port of every protocol belongs to one port class."""

    def __init__(self, cuts: frozenset[tuple[Protocol, int]]) -> None:
        self.cuts = cuts
        self.classes: list[PortClass] = []
        self.lookup = np.empty(len(PROTOCOLS) * PORTS, dtype=np.int32)
        for number, protocol in enumerate(PROTOCOLS):
            starts = [0, *sorted(port for of, port in cuts if of is protocol)]
            for first, after in zip(starts, [*starts[1:], PORTS], strict=True):
                self.lookup[number * PORTS + first : number * PORTS + after] = len(self.classes)
                self.classes.append(PortClass(protocol=protocol, first=first, last=after - 1))
        self.first_of = {(c.protocol, c.first): n for n, c in enumerate(self.classes)}

    def columns_in(self, coarser: "PortAxis") -> NDArray[np.int32]:
        """For each class here, the class there that contains it."""
        firsts = [PROTOCOLS.index(c.protocol) * PORTS + c.first for c in self.classes]
        return coarser.lookup[firsts]


class Bitmaps:
    """Rows of bits, each kept once: which far ends are allowed, and which are unknown. Only ever grows."""

    def __init__(self, ends: int) -> None:
        self.stride = max(1, (ends + 7) // 8)
        self._numbers: dict[tuple[int, int], int] = {}
        self._allowed = np.zeros((64, self.stride), dtype=np.uint8)
        self._unknown = np.zeros((64, self.stride), dtype=np.uint8)
        self.any_unknown = False

    def row(self, say: Say) -> int:
        """The offset in bytes of the row for this answer."""
        key = (say.yes & ~say.no, say.yes & say.no)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            if number == len(self._allowed):
                self._allowed = np.concatenate([self._allowed, np.zeros_like(self._allowed)])
                self._unknown = np.concatenate([self._unknown, np.zeros_like(self._unknown)])
            for table, bits in ((self._allowed, key[0]), (self._unknown, key[1])):
                table[number] = np.frombuffer(bits.to_bytes(self.stride, "little"), dtype=np.uint8)
            self.any_unknown = self.any_unknown or key[1] != 0
        return number * self.stride

    @property
    def allowed(self) -> Codes:
        return self._allowed.reshape(-1)

    @property
    def unknown(self) -> Codes:
        return self._unknown.reshape(-1)
