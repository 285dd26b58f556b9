"""Link: a flow without time, what is drawn, baselined and allowed; and the Evidence for it."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache

from aggregator.model.protocol import Protocol
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """(src, dst, protocol, destination port on the pod). Client's and server's view of a connection are one Link."""

    src: LinkEnd
    dst: LinkEnd
    protocol: Protocol
    port: int

    def __str__(self) -> str:
        return f"{self.src} -> {self.dst} {self.protocol}/{self.port}"

    def sort_key(self) -> tuple[object, ...]:
        """A total order that does not depend on when anything was seen."""
        return (*end_key(self.src), *end_key(self.dst), self.protocol.value, self.port)


def end_key(end: LinkEnd) -> tuple[str, str, str, str, str]:
    """The canonical key of a link end: (cluster, type, namespace or "", kind or "", name or address)."""
    match end:
        case Workload():
            return (end.cluster, "workload", end.namespace, end.kind, end.name)
        case Nodes():
            return (end.cluster, "nodes", "", "", "")
        case ApiServer():
            return (end.cluster, "apiserver", "", "", "")
        case Address():
            suffix = "" if end.prefix_length is None else f"/{end.prefix_length}"
            return (end.cluster, "address", "", "", f"{end.ip.exploded}{suffix}")


def link_key(link: Link) -> str:
    """The canonical key as JSON text: what the id is a hash of, and what a collision is told by."""
    return json.dumps(
        [*end_key(link.src), *end_key(link.dst), link.protocol.value, link.port],
        separators=(",", ":"),
        ensure_ascii=True,
    )


@lru_cache(maxsize=65_536)
def link_id(link: Link) -> int:
    """BLAKE2b-64 of the canonical key as a signed 64-bit integer: the same for every writer, no sequence needed."""
    digest = hashlib.blake2b(link_key(link).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class Side(Enum):
    """Which end of a connection reported it."""

    CLIENT = "client"
    SERVER = "server"


class Outcome(Enum):
    """How an attempt ended. Only ESTABLISHED makes a Link; OPEN keeps one alive."""

    ESTABLISHED = "established"
    REFUSED = "refused"
    TIMED_OUT = "timed-out"
    UNREACHABLE = "unreachable"
    ABORTED = "aborted"
    OPEN = "open"


class Confidence(Enum):
    HIGH = "high"
    LOW = "low"  # never becomes a port rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of how a Link was seen. Counts are the client's, or the server's where no client reported."""

    sides: frozenset[Side] = frozenset()
    services: tuple[str, ...] = ()  # "namespace/name:port" of the Services on the way
    processes: tuple[str, ...] = ()
    connections: int = 0
    tx_bytes: int = 0
    rx_bytes: int = 0
    failed_attempts: int = 0
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    src_pods: tuple[str, ...] = ()
    dst_pods: tuple[str, ...] = ()
    confidence: Confidence = Confidence.HIGH
    same_node_probe: bool = False  # the node spoke to a pod of its own: a kubelet's probe, needs no rule (NP-30)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedLink:
    """A Link with its Evidence; `established` is False when there were only failed attempts."""

    link: Link
    evidence: Evidence
    established: bool = True
