"""Reads /proc/<pid>/net/{tcp,tcp6,udp,udp6}.

Enters: one file's text. Leaves: `SocketLine`s. Invariant: a line that cannot be read is left out, never read wrongly.
Format: net/ipv4/tcp_ipv4.c get_tcp4_sock(); an address is printed as words of the machine's own byte order.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.flow import Confidence, Direction

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ESTABLISHED: Final = 1
UNCONNECTED: Final = 7  # UDP: TCP_CLOSE
LISTEN: Final = 10
EPHEMERAL_LOW: Final = 32_768
_V4_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_NATIVE: Final = "<" if sys.byteorder == "little" else ">"


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLine:
    local: bytes  # 16 bytes
    local_port: int
    remote: bytes
    remote_port: int
    state: int
    inode: int


def parse_sockets(text: str) -> Iterator[SocketLine]:
    for line in text.splitlines()[1:]:
        fields = line.split()
        try:
            local, local_port = _endpoint(fields[1])
            remote, remote_port = _endpoint(fields[2])
            yield SocketLine(
                local=local,
                local_port=local_port,
                remote=remote,
                remote_port=remote_port,
                state=int(fields[3], 16),
                inode=int(fields[9]),
            )
        except (IndexError, ValueError, struct.error):
            continue


def _endpoint(text: str) -> tuple[bytes, int]:
    address, port = text.split(":")
    if len(address) not in (8, 32) or len(port) != 4:
        raise ValueError(text)
    words = [int(address[start : start + 8], 16) for start in range(0, len(address), 8)]
    packed = b"".join(struct.pack(f"{_NATIVE}I", word) for word in words)
    return (_V4_MAPPED + packed if len(packed) == 4 else packed), int(port, 16)


def tcp_direction(line: SocketLine, listening: Collection[int]) -> tuple[Direction, Confidence]:
    """Somebody listens on the local port: it was accepted. A listener that is gone leaves a guess."""
    if line.local_port in listening:
        return Direction.INGRESS, Confidence.HIGH
    if line.local_port < EPHEMERAL_LOW <= line.remote_port:
        return Direction.INGRESS, Confidence.LOW
    return Direction.EGRESS, _confidence(line)


def udp_direction(line: SocketLine, unconnected: Collection[int]) -> tuple[Direction, Confidence]:
    """A server that answers from a socket per client keeps its unconnected one on the same port."""
    if line.local_port in unconnected:
        return Direction.INGRESS, Confidence.HIGH
    if line.local_port < EPHEMERAL_LOW <= line.remote_port:
        return Direction.INGRESS, Confidence.LOW
    return Direction.EGRESS, _confidence(line)


def _confidence(line: SocketLine) -> Confidence:
    both = line.local_port >= EPHEMERAL_LOW and line.remote_port >= EPHEMERAL_LOW
    return Confidence.LOW if both else Confidence.HIGH
