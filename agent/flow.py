"""The vocabulary of capture: what a flow is, as columns.

FlowKey, FlowStats and FlowRecord follow RFC 7011 (identity, counters, both). They are numpy dtypes, not objects: a node
drains 100,000 of them in one interval. The layouts mirror agent/kernel/flows.h byte for byte, and tests/kernel compares
them with what the compiler made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[Any]  # unsigned integers; the width differs by column

PROTOCOL_TCP: Final = 6
PROTOCOL_UDP: Final = 17
ERROR_ABORTED: Final = 4095  # beyond every errno: the application closed before an answer came


class Direction(IntEnum):
    """IPFIX information element 61, shifted by one as in wattle.v1."""

    INGRESS = 1
    EGRESS = 2


class Outcome(IntEnum):
    """wattle.v1.Outcome."""

    ESTABLISHED = 1
    REFUSED = 2
    TIMED_OUT = 3
    UNREACHABLE = 4
    ABORTED = 5
    OPEN = 6


class Confidence(IntEnum):
    """wattle.v1.Confidence."""

    HIGH = 1
    LOW = 2


FlowKey: Final = np.dtype(
    [
        ("netns_cookie", "<u8"),
        ("cgroup_id", "<u8"),
        ("remote", "<u8", (2,)),  # 16 bytes in network order, viewed as two words to compare and hash quickly
        ("port", "<u2"),
        ("protocol", "u1"),
        ("direction", "u1"),
        ("error", "<u2"),
        ("confidence", "u1"),
        ("zero", "u1"),
    ]
)
FlowStats: Final = np.dtype(
    [
        ("first_ns", "<u8"),  # CLOCK_BOOTTIME
        ("last_ns", "<u8"),
        ("count", "<u8"),
        ("tx_bytes", "<u8"),
        ("rx_bytes", "<u8"),
        ("longest_ns", "<u8"),
        ("pid", "<u4"),
        ("zero", "<u4"),
        ("local", "<u8", (2,)),
        ("process", "<u8", (2,)),  # comm, NUL-terminated, viewed as two words
    ]
)
FlowRecord: Final = np.dtype([("key", FlowKey), ("stats", FlowStats)])

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_REFUSED, _TIMED_OUT = 111, 110  # ECONNREFUSED, ETIMEDOUT
# EACCES, ENONET, EPROTO, ENOPROTOOPT, EOPNOTSUPP, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH: what ICMP turns into
# (net/ipv4/icmp.c icmp_err_convert, net/ipv6/icmp.c tab_unreach) and what local routing answers.
_UNREACHABLE = (13, 64, 71, 92, 95, 100, 101, 112, 113)


def _outcomes() -> NDArray[np.uint8]:
    table = np.full(ERROR_ABORTED + 1, Outcome.ABORTED, np.uint8)
    table[0] = Outcome.ESTABLISHED
    table[_REFUSED] = Outcome.REFUSED
    table[_TIMED_OUT] = Outcome.TIMED_OUT
    table[list(_UNREACHABLE)] = Outcome.UNREACHABLE
    return table


OUTCOME_OF_ERROR: Final = _outcomes()  # index: FlowKey.error


def address_text(address: bytes) -> str:
    """16 bytes as people write them; IPv4 as IPv4."""
    v6 = IPv6Address(address)
    v4 = v6.ipv4_mapped
    return str(v4 if v4 is not None else v6)


def address_bytes(text: str) -> bytes:
    """IPv4 becomes v4-mapped IPv6."""
    try:
        return b"\0" * 10 + b"\xff\xff" + IPv4Address(text).packed
    except ValueError:
        return IPv6Address(text).packed


def process_text(raw: bytes) -> str:
    """Cut at the first NUL: kernel 6.1 leaves garbage behind it."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """The side of a flow that lies on this node; wattle.v1.Local."""

    pod_uid: str = ""
    container_id: str = ""
    namespace: str = ""
    pod_name: str = ""
    container_name: str = ""
    cgroup_id: int = 0
    netns_cookie: int = 0
    host_network: bool = False
    address: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowColumns:
    """Flow records ready to be sent: parallel arrays, `local` pointing into `locals`."""

    locals: tuple[Local, ...]
    local: Words
    remote: Words  # (n, 2)
    port: Words
    protocol: Words
    direction: Words
    outcome: Words
    error: Words
    confidence: Words
    process: Words  # (n, 2)
    count: Words
    tx_bytes: Words
    rx_bytes: Words
    first_ns: Words  # CLOCK_BOOTTIME
    last_ns: Words
    longest_ns: Words

    def __len__(self) -> int:
        return len(self.local)

    def where(self, kept: Words) -> FlowColumns:
        """The rows that `kept` marks."""
        arrays = {f.name: getattr(self, f.name)[kept] for f in fields(self) if f.name != "locals"}
        return replace(self, **arrays)


def no_flows() -> FlowColumns:
    words: dict[str, Any] = {f.name: np.zeros(0, np.uint64) for f in fields(FlowColumns) if f.name != "locals"}
    return FlowColumns(locals=(), **words)


def factorize(*words: Words) -> tuple[Words, Words]:
    """Number equal rows alike: (number of each row, first row of each number). Linear: no sort, no Python object.

    Each row scatters its own index into a table at its hash and reads back who was last; equal rows meet there. Rows
    that find a stranger try again in another place.
    """
    rows = len(words[0])
    mixed = words[0].astype(np.uint64)
    for word in words[1:]:
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX + word
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX
    bits = max(10, int(rows * 4).bit_length())
    table = np.empty(1 << bits, np.int64)
    representative = np.empty(rows, np.int64)
    pending = np.arange(rows)
    while len(pending):
        slot = (mixed[pending] >> np.uint64(64 - bits)).astype(np.int64)
        table[slot] = pending
        found = table[slot]
        same = np.ones(len(pending), bool)
        for word in words:
            same &= word[found] == word[pending]
        representative[pending[same]] = found[same]
        pending = pending[~same]
        mixed = mixed * _MIX + np.uint64(1)
    firsts = np.flatnonzero(representative == np.arange(rows))
    number = np.empty(rows, np.int64)
    number[firsts] = np.arange(len(firsts))
    return number[representative], firsts
