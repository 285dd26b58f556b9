"""The vocabulary of capture: what a flow is, as columns.

FlowKey, FlowStats and FlowRecord follow RFC 7011 (identity, counters, both). They are numpy dtypes, not objects: a node
drains 100,000 of them in one interval. The layouts mirror agent/kernel/flows.h byte for byte, and tests/kernel compares
them with what the compiler made of it.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import numpy as np

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
        ("duration_ns", "<u8"),
        ("pid", "<u4"),
        ("zero", "<u4"),
        ("local", "<u8", (2,)),
        ("process", "<u8", (2,)),  # comm, NUL-terminated, viewed as two words
    ]
)
FlowRecord: Final = np.dtype([("key", FlowKey), ("stats", FlowStats)])

_REFUSED, _TIMED_OUT = 111, 110  # ECONNREFUSED, ETIMEDOUT
# EACCES, ENONET, EPROTO, ENOPROTOOPT, EOPNOTSUPP, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH: what ICMP turns into
# (net/ipv4/icmp.c icmp_err_convert, net/ipv6/icmp.c tab_unreach) and what local routing answers.
_UNREACHABLE = (13, 64, 71, 92, 95, 100, 101, 112, 113)


def _outcomes() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
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
