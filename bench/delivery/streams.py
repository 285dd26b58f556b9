"""Figures of the stream: the receiver's CPU beside a bare TCP receiver, the whole way to COMMIT, and a stampede over
TLS.
"""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio

from bench.delivery.load import CLUSTER, batch_message, cpu_of_directory, cpu_seconds
from bench.report import Bar, Figure, median_and_spread
from tests.certificates import Authority
from tests.database import PostgresServer
from wattle.v1 import flowlink_pb2

ROWS = 5_000
MESSAGES = 200
ROUNDS = 3


@contextlib.contextmanager
def peer(*arguments: str) -> Iterator[tuple[int, int]]:
    """(pid, port) of a receiving process."""
    process = subprocess.Popen([sys.executable, "-m", "bench.delivery.peer", *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def hello(node: int, next_seq: int, *, epoch: int = 1) -> bytes:
    return flowlink_pb2.AgentMessage(
        hello=flowlink_pb2.Hello(
            protocol_version=1,
            cluster=CLUSTER,
            agent_id=f"node-{node}",
            epoch=epoch,
            first_seq=1,
            next_seq=next_seq,
            instance=1 + node,
            lineage=[1 + node],
        )
    ).SerializeToString()


def _stub(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamMultiCallable[bytes, flowlink_pb2.ServerMessage]:
    return channel.stream_stream(
        "/wattle.v1.FlowLink/Connect",
        request_serializer=None,
        response_deserializer=flowlink_pb2.ServerMessage.FromString,
    )


async def send_all(port: int, node: int, messages: list[bytes], *, epoch: int = 1, window: int = 200) -> None:
    """Send every batch, at most `window` ahead of the acknowledgements; return when all are acknowledged."""
    options = [("grpc.max_send_message_length", 8 << 20), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = _stub(channel)()
        await call.write(hello(node, len(messages) + 1, epoch=epoch))
        acknowledged = 0
        room = asyncio.Event()

        async def listen() -> None:
            nonlocal acknowledged
            try:
                while acknowledged < len(messages):
                    message = await call.read()
                    if not isinstance(message, flowlink_pb2.ServerMessage) or message.HasField("go_away"):
                        raise RuntimeError(f"the stream ended: {message}")
                    if message.HasField("reject"):
                        raise RuntimeError(message.reject.reason)
                    acknowledged = max(acknowledged, message.ack.committed_seq)
                    room.set()
            finally:
                room.set()

        listening = asyncio.create_task(listen())
        for number, message in enumerate(messages, start=1):
            while number - acknowledged > window and not listening.done():
                room.clear()
                await room.wait()
            await call.write(message)
        await listening
        call.cancel()


def send_raw(port: int, messages: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for message in messages:
            connection.sendall(struct.pack("<I", len(message)) + message)
        left = 8 * len(messages)
        while left:
            left -= len(connection.recv(min(left, 65_536)))


def wire_figure() -> Figure:
    rows = 1_200
    sizes = [len(batch_message(rows, node=node, seq=1)) / rows for node in range(5)]
    value, spread = median_and_spread(sizes)
    return Figure(
        figure="wire bytes per edge (1,200 edges of one node, peer tables included)",
        value=value,
        unit="B",
        against="99 B a record of NetObserv's protobuf",
        ratio=value / 99,
        bar=Bar(comparison="<=", limit=20),
        spread=spread,
    )


def receiver_figure(url: str) -> Figure:
    messages = [batch_message(ROWS, node=1, seq=seq) for seq in range(1, MESSAGES + 1)]
    edges = ROWS * MESSAGES
    ours, limits = [], []
    for round_number in range(ROUNDS):
        with peer("raw") as (pid, port):
            send_raw(port, messages[:5])
            before = cpu_seconds(pid)
            send_raw(port, messages)
            limits.append((cpu_seconds(pid) - before) / edges * 1e6)
        with peer("ingest", url) as (pid, port):
            warm = [batch_message(ROWS, node=90 + round_number, seq=seq) for seq in range(1, 6)]
            asyncio.run(send_all(port, 90 + round_number, warm))
            before = cpu_seconds(pid)
            asyncio.run(send_all(port, 50 + round_number, messages))
            ours.append((cpu_seconds(pid) - before) / edges * 1e6)
    value, spread = median_and_spread(ours)
    limit, _ = median_and_spread(limits)
    return Figure(
        figure="ingest CPU per edge update: stream, parse, every check, acknowledgement (before the store)",
        value=value,
        unit="us",
        against=f"raw TCP receiver that only parses: {limit:.3f} us",
        ratio=value / limit,
        bar=Bar(comparison="<=", limit=2.5, of="ratio"),
        spread=spread,
    )


def end_to_end_figures(postgres: PostgresServer, url: str) -> list[Figure]:
    """Four senders with batches of 1,000 edges of a universe of 60,000, until the last acknowledgement."""
    rows, batches, senders = 1_000, 300, 4
    rates: list[float] = []
    cpus: list[float] = []
    with peer("aggregator", url) as (pid, port):

        async def round_of(epoch: int, messages: list[list[bytes]]) -> None:
            begin = time.perf_counter()
            own = time.process_time()
            before = cpu_seconds(pid) + cpu_of_directory(postgres.directory / "data")
            await asyncio.gather(*(send_all(port, node, sent, epoch=epoch) for node, sent in enumerate(messages)))
            wall = time.perf_counter() - begin
            after = cpu_seconds(pid) + cpu_of_directory(postgres.directory / "data")
            edges = rows * sum(map(len, messages))
            cpus.append((after - before + time.process_time() - own) / edges * 1e6)
            rates.append(edges / wall)

        def messages_of(count: int, *, tail: bool) -> list[list[bytes]]:
            return [
                [batch_message(rows, node=node, seq=seq, tail=tail) for seq in range(1, count + 1)]
                for node in range(senders)
            ]

        # What is older than the first look at the cluster view is not cached: let that time pass, then warm up. The
        # rounds send the same batches in new epochs: a link's last_seen moves once in 30 s, not once a round.
        asyncio.run(round_of(1, messages_of(1, tail=True)))
        time.sleep(6)
        evenly, with_tail = (messages_of(batches, tail=tail) for tail in (False, True))
        asyncio.run(round_of(2, evenly))
        asyncio.run(round_of(3, with_tail))
        cpus.clear()
        for number in range(ROUNDS):
            asyncio.run(round_of(10 + number, evenly))
        even = list(cpus)
        cpus.clear()
        rates.clear()
        for number in range(ROUNDS):
            asyncio.run(round_of(20 + number, with_tail))
    rate, rate_spread = median_and_spread(rates)
    cpu, cpu_spread = median_and_spread(cpus)
    even_cpu, even_spread = median_and_spread(even)
    return [
        Figure(
            figure="edge updates committed a second, end to end, 4 senders, 60,000 edges with a long tail",
            value=rate,
            unit="edges/s",
            against="60,000/s: 250 nodes with 1,200 active edges every 5 s",
            ratio=rate / 60_000,
            bar=Bar(comparison=">=", limit=500_000),
            spread=rate_spread,
        ),
        Figure(
            figure="CPU per committed edge update, senders, aggregator and PostgreSQL together, long tail",
            value=cpu,
            unit="us",
            against="the bar",
            bar=Bar(comparison="<=", limit=0.5),
            spread=cpu_spread,
        ),
        Figure(
            figure="the same when every edge is as likely as any other, so that hardly any two meet in a group",
            value=even_cpu,
            unit="us",
            against=f"long tail: {cpu:.2f} us",
            ratio=even_cpu / cpu,
            spread=even_spread,
        ),
    ]


def reconnect_figure(url: str) -> Figure:
    """250 agents, each with a connection and a certificate of its own, until the last Welcome."""
    agents = 250
    samples = []
    with tempfile.TemporaryDirectory(prefix="wattle-bench-") as directory:
        authority = Authority(Path(directory))
        authority.issue("server", "DNS:localhost")
        certificate, key = authority.issue("agent", f"URI:spiffe://wattle/{CLUSTER}/agent/*")
        credentials = grpc.ssl_channel_credentials(
            authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()
        )

        async def one(port: int, node: int, done: asyncio.Event) -> None:
            options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
                call = _stub(channel)(wait_for_ready=True)
                await call.write(hello(node, 1))
                message = await call.read()
                assert isinstance(message, flowlink_pb2.ServerMessage)
                assert message.HasField("welcome"), message
                welcomed.append(node)
                if len(welcomed) == agents:
                    done.set()
                await done.wait()
                call.cancel()

        async def stampede(port: int) -> float:
            welcomed.clear()
            done = asyncio.Event()
            begin = time.perf_counter()
            tasks = [asyncio.create_task(one(port, 5_000 + node, done)) for node in range(agents)]
            await done.wait()
            seconds = time.perf_counter() - begin
            await asyncio.gather(*tasks, return_exceptions=True)
            return seconds

        welcomed: list[int] = []
        with peer("aggregator", url, directory) as (_, port):
            asyncio.run(stampede(port))
            samples += [asyncio.run(stampede(port)) for _ in range(ROUNDS)]
    value, spread = median_and_spread(samples)
    return Figure(
        figure=f"{agents} agents reconnect over mutual TLS until the last Welcome ({os.cpu_count()} cores for both)",
        value=value,
        unit="s",
        against="the bar",
        bar=Bar(comparison="<=", limit=1.0),
        spread=spread,
    )
