"""Numbers that any writer computes alike: cluster ids, signed spellings, buckets; and Links back from their keys."""

import hashlib
import json
from datetime import UTC, datetime
from ipaddress import ip_address

from aggregator.model.link import Link
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload

FINE_MINUTES = 5
COARSE_MINUTES = 60
DAY_MINUTES = 24 * 60


def cluster_id_of(name: str) -> int:
    """BLAKE2b-32 of the name as a signed 32-bit integer."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big", signed=True)


def as_signed(value: int) -> int:
    """The signed 64-bit number with the same bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def as_unsigned(value: int) -> int:
    return value + (1 << 64) if value < 0 else value


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


def milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def bucket_of(at_ms: int, minutes: int) -> int:
    """The start of the bucket that `at_ms` lies in, in minutes since 1970."""
    return at_ms // 60_000 // minutes * minutes


def parse_link_key(key: str) -> Link:
    """The inverse of model.link.link_key."""
    fields = json.loads(key)
    return Link(src=parse_end(fields[0:5]), dst=parse_end(fields[5:10]), protocol=Protocol(fields[10]), port=fields[11])


def parse_end(fields: list[str]) -> LinkEnd:
    """The inverse of model.link.end_key."""
    cluster, kind_of_end, namespace, kind, name = fields
    match kind_of_end:
        case "workload":
            return Workload(cluster=cluster, namespace=namespace, kind=kind, name=name)
        case "nodes":
            return Nodes(cluster=cluster)
        case "apiserver":
            return ApiServer(cluster=cluster)
        case "address":
            ip, _, prefix_length = name.partition("/")
            return Address(
                cluster=cluster, ip=ip_address(ip), prefix_length=int(prefix_length) if prefix_length else None
            )
        case _:
            message = f"a link key speaks of an end of kind {kind_of_end!r}"
            raise ValueError(message)
