"""Ports as intervals that no policy in question can tell apart.

Enters: policies and the pod that a connection ends at. Leaves: intervals that cover 1 to 65535, for each protocol.
"""

from collections.abc import Iterable, Iterator
from typing import assert_never

from aggregator.model.adminpolicy import AdminPolicy, AdminPort, ForeignPolicy, Policy
from aggregator.model.cluster import Pod
from aggregator.model.networkpolicy import NetworkPolicy, PolicyPort
from aggregator.model.protocol import Protocol

FIRST_PORT, LAST_PORT = 1, 65535
Interval = tuple[int, int]


def intervals(policies: Iterable[Policy], destination: Pod | None) -> dict[Protocol, list[Interval]]:
    """The intervals between all the ports that these policies name; names are those of `destination`."""
    starts: dict[Protocol, set[int]] = {protocol: {FIRST_PORT} for protocol in Protocol}
    for protocol, first, last in _named(policies, destination):
        for each in (protocol,) if protocol is not None else tuple(Protocol):
            starts[each] |= {first, last + 1}
    return {protocol: _between(found) for protocol, found in starts.items()}


def _between(starts: set[int]) -> list[Interval]:
    ordered = sorted(start for start in starts if FIRST_PORT <= start <= LAST_PORT)
    return [(start, following - 1) for start, following in zip(ordered, [*ordered[1:], LAST_PORT + 1], strict=True)]


def _named(policies: Iterable[Policy], destination: Pod | None) -> Iterator[tuple[Protocol | None, int, int]]:
    for policy in policies:
        match policy:
            case NetworkPolicy():
                for rule in (*policy.ingress, *policy.egress):
                    for port in rule.ports:
                        yield from _of_port(port, destination)
            case AdminPolicy():
                for admin_rule in (*policy.ingress, *policy.egress):
                    for entry in admin_rule.ports:
                        yield from _of_entry(entry, destination)
            case ForeignPolicy():
                pass
            case _:
                assert_never(policy)


def _of_port(port: PolicyPort, destination: Pod | None) -> Iterator[tuple[Protocol, int, int]]:
    match port.port:
        case int(number):
            yield port.protocol, number, port.end_port or number
            yield port.protocol, number, number  # a plug-in may know no endPort (NP-25)
        case str(name):
            yield from _declared(name, destination)
        case None:
            pass
        case _:
            assert_never(port.port)


def _of_entry(entry: AdminPort, destination: Pod | None) -> Iterator[tuple[Protocol | None, int, int]]:
    if entry.name:
        yield from _declared(entry.name, destination)
    elif entry.first is not None:
        yield entry.protocol, entry.first, entry.last or entry.first


def _declared(name: str, destination: Pod | None) -> Iterator[tuple[Protocol, int, int]]:
    if destination is not None:
        yield from ((port.protocol, port.port, port.port) for port in destination.ports if port.name == name)


def merged(spans: Iterable[Interval]) -> list[Interval]:
    """Touching and overlapping intervals joined, in order."""
    found: list[Interval] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def without(spans: Iterable[Interval], ports: Iterable[int]) -> list[Interval]:
    """The intervals without single ports."""
    left = list(spans)
    for port in ports:
        left = [
            piece
            for first, last in left
            for piece in ([(first, port - 1), (port + 1, last)] if first <= port <= last else [(first, last)])
            if piece[0] <= piece[1]
        ]
    return sorted(left)
