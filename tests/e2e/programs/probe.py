"""Tries connections from inside a network namespace, or answers on ports where nobody listens. Standard library only.

`probe.py answer` reads a JSON list of [address, protocol, port], binds what is free, says "ready", and answers until it
is ended. `probe.py ask` reads a JSON list of [address, protocol, port] and prints a JSON list of as many words: "open",
"refused" or "silent".
"""

import asyncio
import contextlib
import json
import socket
import sys

ANSWER_SECONDS = 1.5
AT_ONCE = 64


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def ask_tcp(address: str, port: int) -> str:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), ANSWER_SECONDS)
    except TimeoutError:
        return "silent"
    except OSError:
        return "refused"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return "open"


async def ask_udp(address: str, port: int) -> str:
    """A server that says nothing is told from a refusal by the ICMP message that the enforcer sends."""
    loop = asyncio.get_running_loop()
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((address, port))
        try:
            await loop.sock_sendall(client, b"probe")
            await asyncio.wait_for(loop.sock_recv(client, 1024), ANSWER_SECONDS)
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"
    return "open"


async def ask(wanted: list) -> list[str]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(address: str, protocol: str, port: int) -> str:
        async with room:
            return await (ask_tcp if protocol == "TCP" else ask_udp)(address, port)

    return list(await asyncio.gather(*(one(*each) for each in wanted)))


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr) -> None:
        self.transport.sendto(data, addr)


async def close(_reader, writer) -> None:
    writer.close()


def bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """For its own family alone: the application may have a server on the other one."""
    made = socket.socket(family_of(address), kind)
    try:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


async def answer(wanted: list) -> None:
    loop = asyncio.get_running_loop()
    kept = []
    for address, protocol, port in wanted:
        with contextlib.suppress(OSError):  # the application's own server is there
            if protocol == "TCP":
                kept.append(await asyncio.start_server(close, sock=bound(address, port, socket.SOCK_STREAM)))
            else:
                datagrams = bound(address, port, socket.SOCK_DGRAM)
                kept.append(await loop.create_datagram_endpoint(Echo, sock=datagrams))
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    wanted = json.load(sys.stdin)
    if sys.argv[1] == "answer":
        asyncio.run(answer(wanted))
    else:
        print(json.dumps(asyncio.run(ask(wanted))))


if __name__ == "__main__":
    main()
