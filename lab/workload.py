"""What runs in a container that has no real server: listeners, and a client with a traffic plan. Standard library only.

Runs as a script of its own, with the path of a JSON plan. Each round makes every call once (or `times`); the plan's
progress file counts full rounds, so that the lab knows when everything has been said at least once.
"""

import asyncio
import contextlib
import ctypes
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

PR_SET_NAME = 15
ANSWER_SECONDS = 3.0
RETRY_SECONDS = 0.2
DEFAULT_PORTS = {"http": 80, "redis": 6379, "dns": 53, "dns+tcp": 53, "statsd": 8125}
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Call = dict[str, Any]


def say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", flush=True)


# ---- listeners


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ValueError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    await close(writer)


async def answer_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
        await writer.drain()
    await close(writer)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, *, answers: bool) -> None:
        self.answers = answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python 3.11's own transport is none by class, only by its methods.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.answers:
            self.transport.sendto(data, addr)


async def listen(wanted: str, bind: str | None) -> object:
    """Listen on `bind`, or on every address of both families the kernel has; returns what must be kept alive."""
    protocol, _, number = wanted.partition(":")
    port = int(number)
    if protocol in {"tcp", "http"}:
        return await asyncio.start_server(answer_http if protocol == "http" else echo, bind, port, backlog=256)
    dual = bind is None and socket.has_dualstack_ipv6()
    server = socket.socket(socket.AF_INET6 if dual or ":" in (bind or "") else socket.AF_INET, socket.SOCK_DGRAM)
    if dual:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((bind or ("::" if dual else "0.0.0.0"), port))
    server.settimeout(0)
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(lambda: Datagrams(answers=protocol == "udp"), sock=server)


# ---- calls


class Client:
    """Makes the calls of one plan; `kept` are the connections that a pool would hold."""

    def __init__(self) -> None:
        self.kept: dict[str, Streams] = {}

    async def call(self, call: Call) -> None:
        made = CALLS[urlsplit(call["to"]).scheme]
        expected = call["expect"]
        try:
            await asyncio.wait_for(made(self, call), ANSWER_SECONDS)
        except ConnectionRefusedError:
            if expected != "refused":
                raise
        except TimeoutError:
            if expected != "no-answer":
                raise
        else:
            if expected != "answer":
                raise OSError(f"was answered, though the plan says {expected}")

    async def streams(self, call: Call) -> Streams:
        if found := self.kept.get(call["to"]):
            return found
        host, port = place(call["to"])
        family = {4: socket.AF_INET, 6: socket.AF_INET6, None: socket.AF_UNSPEC}[call["family"]]
        streams = await asyncio.open_connection(host, port, family=family)
        if call["keep"]:
            self.kept[call["to"]] = streams
        return streams

    async def exchange(self, call: Call, request: bytes, until: bytes) -> None:
        reader, writer = await self.streams(call)
        try:
            writer.write(request)
            await writer.drain()
            await reader.readuntil(until)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.kept.pop(call["to"], None)
            raise
        finally:
            if call["to"] not in self.kept:
                await close(writer)

    async def tcp(self, call: Call) -> None:
        await self.exchange(call, b"x" * (call["payload_bytes"] - 1) + b"\n", b"\n")

    async def redis(self, call: Call) -> None:
        await self.exchange(call, b"PING\r\n", b"+PONG\r\n")

    async def http(self, call: Call) -> None:
        parts = urlsplit(call["to"])
        request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        await self.exchange(call, request.encode(), b"\r\n\r\n")

    async def datagram(self, call: Call, payload: bytes, *, answered: bool) -> bytes:
        host, port = place(call["to"])
        loop = asyncio.get_running_loop()
        family = {4: socket.AF_INET, 6: socket.AF_INET6, None: socket.AF_UNSPEC}[call["family"]]
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
        # Unconnected on purpose: sendto and recvfrom are what glibc's resolver does not do, and many clients do.
        with socket.socket(found[0][0], socket.SOCK_DGRAM) as client:
            client.settimeout(0)
            await loop.sock_sendto(client, payload, found[0][4])
            return await loop.sock_recv(client, 65535) if answered else b""

    async def udp(self, call: Call) -> None:
        await self.datagram(call, b"x" * call["payload_bytes"], answered=True)

    async def statsd(self, call: Call) -> None:
        await self.datagram(call, b"requests:1|c", answered=False)

    async def dns(self, call: Call) -> None:
        """A lookup as every program does it: libc's resolver and its search list."""
        await asyncio.get_running_loop().getaddrinfo(place(call["to"])[0], None)

    async def dns_tcp(self, call: Call) -> None:
        labels = place(call["to"])[0].rstrip(".").split(".")
        name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
        query = struct.pack(">6H", 4711, 0x0100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
        reader, writer = await asyncio.open_connection(nameserver(), 53)
        try:
            writer.write(struct.pack(">H", len(query)) + query)
            await writer.drain()
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
            if answer[3] & 0x0F:
                raise OSError(f"DNS answered with code {answer[3] & 0x0F}")
        finally:
            await close(writer)


CALLS: dict[str, Callable[[Client, Call], Awaitable[None]]] = {
    "tcp": Client.tcp,
    "redis": Client.redis,
    "http": Client.http,
    "udp": Client.udp,
    "statsd": Client.statsd,
    "dns": Client.dns,
    "dns+tcp": Client.dns_tcp,
}


def place(target: str) -> tuple[str, int]:
    parts = urlsplit(target)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        raise OSError(f"{target} names no host and port")
    return parts.hostname, port


def nameserver() -> str:
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("nameserver"))


# ---- rounds


class Progress:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: dict[str, Any] = {"rounds": 0, "failed_rounds": 0, "last_error": None}
        self.write()

    def write(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.counts))
        new.replace(self.path)


async def one_round(client: Client, calls: list[Call], progress: Progress) -> bool:
    """Every call, even when one before it failed; true when all went as the plan says."""
    errors = []
    for call in calls:
        for _ in range(call["times"]):
            try:
                await client.call(call)
            except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
                errors.append(f"{call['to']}: {type(error).__name__} {error}".rstrip())
                break
    if errors:
        progress.counts["failed_rounds"] += 1
        if progress.counts["last_error"] != errors[0]:
            say(errors[0])
        progress.counts["last_error"] = errors[0]
    else:
        progress.counts["rounds"] += 1
        progress.counts["last_error"] = None
    progress.write()
    return not errors


async def main(plan: dict[str, Any]) -> int:
    comm = plan["process"].encode()[:15]
    ctypes.CDLL(None).prctl(PR_SET_NAME, comm, 0, 0, 0)
    progress = Progress(Path(plan["progress"]))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    started = time.monotonic()
    kept_alive = [await listen(wanted, plan["bind"]) for wanted in plan["listen"]]
    say(f"{plan['process']}: listening on {plan['listen']}, {len(plan['calls'])} calls a round")
    client = Client()
    went_well = True
    while not stop.is_set():
        if plan["calls"]:
            went_well = await one_round(client, plan["calls"], progress)
        pause = plan["round_seconds"] if went_well else min(RETRY_SECONDS, plan["round_seconds"])
        if plan["lifetime_seconds"] is not None:
            left = started + plan["lifetime_seconds"] - time.monotonic()
            if left <= 0:
                break
            pause = min(pause, left)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
    del kept_alive
    return 0 if went_well else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()))))
