"""Proves that what is attached counts right, with connections whose every number is known.

Enters: an attached `Capture`. Leaves: it as it was: what was counted meanwhile belongs to the first interval.
Invariant: no agent reports ready that did not see its own loopback connection with the right namespace cookie, ports,
directions and bytes: offsets that are wrong by a few bytes read as silence or as garbage, never as an error.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.errors import SelfTestError
from agent.flow import PROTOCOL_TCP, PROTOCOL_UDP, Direction, address_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.kernel.capture import Capture
    from agent.kernel.maps import Drained

_NETNS_COOKIE: Final = 71  # SO_NETNS_COOKIE, since 5.14
_PATIENCE_SECONDS: Final = 5.0
_REQUEST, _ANSWER = b"wattle", b"self-test"


def self_test(capture: Capture) -> None:
    """Raise SelfTestError, naming what was not seen."""
    before = capture.peek()
    cookie, tcp_port = _tcp_exchange()
    udp_port = _udp_exchange()
    ports = [(PROTOCOL_TCP, tcp_port)]
    if not capture.backend.remark:
        ports.append((PROTOCOL_UDP, udp_port))
    sides = ((Direction.EGRESS, len(_REQUEST), len(_ANSWER)), (Direction.INGRESS, len(_ANSWER), len(_REQUEST)))
    expected = [
        _Exchange(protocol=protocol, port=port, direction=direction, cookie=cookie, sent=sent, received=received)
        for protocol, port in ports
        for direction, sent, received in sides
    ]
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        counted = capture.peek()
        try:
            for exchange in expected:
                _expect(counted, before, exchange)
        except SelfTestError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)  # the last close may still wait for a busy softirq
        else:
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """One side of a conversation as it must have been counted."""

    protocol: int
    port: int
    direction: Direction
    cookie: int | None
    sent: int
    received: int

    def __str__(self) -> str:
        name = "TCP" if self.protocol == PROTOCOL_TCP else "UDP"
        return f"{name} {self.direction.name} on loopback port {self.port}"


def _expect(drained: Drained, before: Drained, exchange: _Exchange) -> None:
    found = _of(drained, exchange)
    if not found.any():
        raise SelfTestError(f"a known connection was not seen: {exchange}, among {len(drained)} flows")
    cookies = drained.keys["netns_cookie"][found]
    if exchange.cookie is not None and exchange.cookie not in cookies:
        raise SelfTestError(f"{exchange}: network namespace cookie {cookies[0]}, expected {exchange.cookie}")
    since = zip(_counted(drained, exchange), _counted(before, exchange), strict=True)
    counted = tuple(now - then for now, then in since)
    expected = (1, exchange.sent, exchange.received)
    if counted != expected:
        raise SelfTestError(f"{exchange}: counted {counted} (flows, bytes out, bytes in), expected {expected}")


def _of(drained: Drained, exchange: _Exchange) -> NDArray[np.bool_]:
    keys = drained.keys
    loopback = struct.unpack("<QQ", address_bytes("127.0.0.1"))
    found: NDArray[np.bool_] = (
        (keys["protocol"] == exchange.protocol)
        & (keys["port"] == exchange.port)
        & (keys["direction"] == exchange.direction)
        & (keys["remote"] == loopback).all(axis=1)
    )
    return found


def _counted(drained: Drained, exchange: _Exchange) -> tuple[int, ...]:
    """Of this namespace: nodes that share a kernel test themselves on the same ports, each on its own loopback."""
    found = _of(drained, exchange)
    if exchange.cookie is not None:
        found &= drained.keys["netns_cookie"] == exchange.cookie
    return tuple(int(drained.stats[name][found].sum()) for name in ("count", "tx_bytes", "rx_bytes"))


def _tcp_exchange() -> tuple[int | None, int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        listener.settimeout(5)
        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            server, _address = listener.accept()
            with server:
                client.sendall(_REQUEST)
                server.recv(64)
                server.sendall(_ANSWER)
                client.recv(64)
                client.shutdown(socket.SHUT_WR)
                server.recv(64)
            client.recv(64)  # the server's end: both sides have left ESTABLISHED and delivered everything
        return _cookie(listener), int(listener.getsockname()[1])


def _udp_exchange() -> int:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        port = _bind_low(server)
        for end in (server, client):
            end.settimeout(5)
        client.sendto(_REQUEST, ("127.0.0.1", port))
        _data, address = server.recvfrom(64)
        server.sendto(_ANSWER, address)
        client.recvfrom(64)
    return port


def _bind_low(server: socket.socket) -> int:
    """A port that a person chose: bind(0) leaves the bind lock unset, and the socket would look like a client."""
    for port in range(20_000, 21_000):
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise SelfTestError("no free UDP port between 20000 and 21000 on loopback")


def _cookie(sock: socket.socket) -> int | None:
    try:
        return int(struct.unpack("<Q", sock.getsockopt(socket.SOL_SOCKET, _NETNS_COOKIE, 8))[0])
    except OSError:
        return None
