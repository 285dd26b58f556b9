"""Ports of a rule: the fewest entries that say exactly the same, or a range that a person accepted.

Enters: (protocol, number) pairs that were seen. Leaves: PolicyPorts in their order. Invariant: without consent the
entries cover exactly the pairs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from aggregator.model.networkpolicy import PolicyPort
from aggregator.model.protocol import Protocol

MIN_RUN = 3  # two neighbours read better as two ports, and a CNI without endPort support takes them
DYNAMIC_PORTS = 5  # so many high ports of one peer are no list of services
FIRST_DYNAMIC_PORT = 1024

PortKey = tuple[Protocol, int]
_RANK = {Protocol.TCP: 0, Protocol.UDP: 1, Protocol.SCTP: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange:
    """A range, both ends included."""

    protocol: Protocol
    first: int
    last: int


def port_order(key: PortKey) -> tuple[int, int]:
    return (_RANK[key[0]], key[1])


def runs(keys: Iterable[PortKey]) -> list[PortRange]:
    """Maximal runs of consecutive numbers, in order."""
    found: list[PortRange] = []
    for protocol, number in sorted(set(keys), key=port_order):
        if found and found[-1].protocol is protocol and found[-1].last == number - 1:
            found[-1] = PortRange(protocol=protocol, first=found[-1].first, last=number)
        else:
            found.append(PortRange(protocol=protocol, first=number, last=number))
    return found


def compact(keys: Iterable[PortKey]) -> tuple[PolicyPort, ...]:
    """PolicyPorts that cover exactly these: endPort where every number of the range is there."""
    ports: list[PolicyPort] = []
    for run in runs(keys):
        if run.last - run.first + 1 >= MIN_RUN:
            ports.append(PolicyPort(protocol=run.protocol, port=run.first, end_port=run.last))
        else:
            ports += [PolicyPort(protocol=run.protocol, port=port) for port in range(run.first, run.last + 1)]
    return tuple(ports)


def dynamic_ranges(keys: Iterable[PortKey], declared: Iterable[PortKey] = ()) -> list[PortRange]:
    """Ranges that look like dynamic ports: many distinct high ports with gaps, none of which the server declares."""
    known = set(declared)
    found: list[PortRange] = []
    high = {key for key in keys if key[1] >= FIRST_DYNAMIC_PORT and key not in known}
    for protocol in Protocol:
        numbers = sorted(number for p, number in high if p is protocol)
        if len(numbers) >= DYNAMIC_PORTS and numbers[-1] - numbers[0] >= len(numbers):
            found.append(PortRange(protocol=protocol, first=numbers[0], last=numbers[-1]))
    return found
