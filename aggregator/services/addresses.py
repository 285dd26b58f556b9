"""Addresses that nobody in the cluster owns: what each is, who speaks with it, and what would name it.

Enters: a Question, rows. Leaves: AddressRow views, those that ask for a person first. Invariant: class and alias are
computed now, from the CIDRs and aliases of now; an address of hidden workloads alone is not listed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from aggregator.model.address import AddressClass, IPAddress
from aggregator.model.link import ObservedLink
from aggregator.model.protocol import Direction
from aggregator.model.workload import Address, Workload
from aggregator.services.question import Question, Rows
from aggregator.services.views import AddressRow

_ORDER = (AddressClass.UNKNOWN, AddressClass.EXTERNAL, AddressClass.INTERNAL, AddressClass.ALIASED)


@dataclass(slots=True, kw_only=True)
class _Seen:
    workloads: set[str] = field(default_factory=set)
    ports: set[str] = field(default_factory=set)
    directions: set[str] = field(default_factory=set)
    connections: int = 0
    failed: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def take(self, row: ObservedLink, workload: Workload, direction: Direction) -> None:
        self.workloads.add(str(workload))
        self.ports.add(f"{row.link.protocol.value} {row.link.port}")
        self.directions.add(direction.value)
        self.connections += row.evidence.connections
        self.failed += row.evidence.failed_attempts
        self.first = min(filter(None, (self.first, row.evidence.first_seen)), default=None)
        self.last = max(filter(None, (self.last, row.evidence.last_seen)), default=None)


def address_rows(question: Question, rows: Rows, *, namespace: str = "") -> list[AddressRow]:
    """Unknown ones first, then external, internal and aliased ones; each kind by how much it is used."""
    found: dict[IPAddress, _Seen] = {}
    for row in rows.clear:
        for ip, workload, direction in _outside(row):
            if not namespace or workload.namespace == namespace:
                found.setdefault(ip, _Seen()).take(row, workload, direction)
    return sorted(_views(question, found), key=lambda row: (_rank(row), -row.connections, row.ip))


def _outside(row: ObservedLink) -> Iterator[tuple[IPAddress, Workload, Direction]]:
    src, dst = row.link.src, row.link.dst
    if isinstance(src, Workload) and isinstance(dst, Address):
        yield dst.ip, src, Direction.EGRESS
    if isinstance(dst, Workload) and isinstance(src, Address):
        yield src.ip, dst, Direction.INGRESS


def _views(question: Question, found: dict[IPAddress, _Seen]) -> Iterable[AddressRow]:
    for ip, seen in found.items():
        known = question.addresses.classify(ip)
        yield AddressRow(
            ip=str(ip),
            address_class=known.address_class.value,
            reason=known.reason,
            alias=known.alias,
            workloads=sorted(seen.workloads),
            ports=sorted(seen.ports),
            directions=sorted(seen.directions),  # type: ignore[arg-type]  # Direction's own words
            connections=seen.connections,
            failed_attempts=seen.failed,
            first_seen=seen.first,
            last_seen=seen.last,
        )


def _rank(row: AddressRow) -> int:
    return [known.value for known in _ORDER].index(row.address_class)
