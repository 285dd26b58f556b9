"""Ports of a rule: the fewest entries that say exactly the same, or a range that a person accepted.

Enters: (protocol, number) pairs that were seen. Leaves: PolicyPorts in their order. Invariant: without consent the
entries cover exactly the pairs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from aggregator.model.networkpolicy import PolicyPort
from aggregator.model.protocol import Protocol

MIN_RUN = 3  # two neighbours read better as two ports, and a CNI without endPort support takes them
DYNAMIC_PORTS = 5  # so many high ports of one peer are no list of services
FIRST_DYNAMIC_PORT = 1024

PORT_CODE_BITS = 18  # three protocols beside sixteen bits of port

PortKey = tuple[Protocol, int]
_PROTOCOLS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
_RANK = {protocol: rank for rank, protocol in enumerate(_PROTOCOLS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange:
    """A range, both ends included."""

    protocol: Protocol
    first: int
    last: int


def code(protocol: Protocol, port: int) -> int:
    """A (protocol, number) pair as one integer in the order of `port_order`: relations hold very many of them."""
    return port if protocol is Protocol.TCP else _RANK[protocol] << 16 | port


def codes(keys: Iterable[PortKey]) -> frozenset[int]:
    return frozenset(code(protocol, port) for protocol, port in keys)


@lru_cache(maxsize=1 << 18)
def one(number: int) -> frozenset[int]:
    """The set of one code, always the same object: relations are made of hundreds of thousands of these."""
    return frozenset((number,))


def port_order(key: PortKey) -> tuple[int, int]:
    return (_RANK[key[0]], key[1])


def runs(numbers: Iterable[int]) -> list[PortRange]:
    """Maximal runs of consecutive codes, in order."""
    found: list[PortRange] = []
    first = last = -2
    for number in sorted(set(numbers)):
        if number == last + 1:
            last = number
            continue
        if first >= 0:
            found.append(_range(first, last))
        first = last = number
    if first >= 0:
        found.append(_range(first, last))
    return found


def _range(first: int, last: int) -> PortRange:
    """From two codes of one protocol: port 0 does not exist, so no run leaves its protocol."""
    return PortRange(protocol=_PROTOCOLS[first >> 16], first=first & 0xFFFF, last=last & 0xFFFF)


@lru_cache(maxsize=4096)
def compact(numbers: frozenset[int]) -> tuple[PolicyPort, ...]:
    """PolicyPorts that cover exactly these codes: endPort where every number of the range is there."""
    ports: list[PolicyPort] = []
    for run in runs(numbers):
        if run.last - run.first + 1 >= MIN_RUN:
            ports.append(PolicyPort(protocol=run.protocol, port=run.first, end_port=run.last))
        else:
            ports += [PolicyPort(protocol=run.protocol, port=port) for port in range(run.first, run.last + 1)]
    return tuple(ports)


def dynamic_ranges(numbers: Iterable[int], declared: Iterable[PortKey] = ()) -> list[PortRange]:
    """Ranges that look like dynamic ports: many distinct high ports with gaps, none of which the server declares."""
    high = sorted(set(numbers) - codes(declared))
    found: list[PortRange] = []
    for protocol in _PROTOCOLS:
        base = code(protocol, 0)
        mine = [number - base for number in high if base + FIRST_DYNAMIC_PORT <= number < base + (1 << 16)]
        if len(mine) >= DYNAMIC_PORTS and mine[-1] - mine[0] >= len(mine):
            found.append(PortRange(protocol=protocol, first=mine[0], last=mine[-1]))
    return found
