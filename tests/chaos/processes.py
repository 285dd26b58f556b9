"""The processes that chaos kills: producers, aggregators, and a proxy that breaks connections inside COMMIT.

Each is forked from the driver, which has imported everything and started nothing: a child is up in milliseconds. A
failpoint is a name and a count; at that many passes the process kills itself with SIGKILL.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import event

from agent.spool import Spool, SpoolLimits
from agent.spool import journal as spool_journal
from agent.stream import FlowLinkStream
from aggregator.ingest import IngestLimits
from aggregator.ingest.session import Session
from aggregator.model.resolution import FlowIdentity, NotYet, Resolution
from aggregator.services.recording.settling import Settler
from aggregator.store import open_store
from aggregator.store.merging import SqlSink
from aggregator.store.postgres import PostgresBulk
from aggregator.store.sqlite import SqliteBulk
from tests.chaos.ledger import batch_for, read_ledger
from tests.flowlink import FakeResolver, running_aggregator, stream_config, until

PRODUCER_FAILPOINTS = ("before-append", "torn-append", "after-append", "before-send", "after-send", "before-trim")
AGGREGATOR_FAILPOINTS = (
    "hello",
    "batch-read",
    "cursor-locked",
    "before-upsert",
    "after-upsert",
    "before-commit",
    "after-commit",
    "before-ack",
    "settling",
)


def fork(child: Callable[[], None]) -> int:
    """Run `child` in a new process; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child()
    except BaseException:  # noqa: BLE001 - a forked child must not return into the driver's frames
        import traceback

        traceback.print_exc()
    finally:
        os._exit(0)


class Failpoint:
    """Kills this process when `name` is passed for the `count`th time."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self._left = count

    def passed(self, name: str) -> bool:
        if name != self.name:
            return False
        self._left -= 1
        return self._left <= 0

    def at(self, name: str) -> None:
        if self.passed(name):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    def before(self, owner: Any, method: str, name: str) -> None:
        original = getattr(owner, method)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.at(name)
            return original(*arguments, **named)

        setattr(owner, method, wrapped)

    def after(self, owner: Any, method: str, name: str) -> None:
        original = getattr(owner, method)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            self.at(name)
            return result

        setattr(owner, method, wrapped)


# ---- the agent's side -----------------------------------------------------------------------------------------------


def _print_tasks() -> None:
    for task in asyncio.all_tasks():
        print(task, file=sys.stderr, flush=True)


def produce(number: int, directory: Path, port: int, failpoint: Failpoint, *, interval_seconds: float) -> None:
    """Append until the file `stop` is there, then until everything is delivered."""
    home = directory / f"producer-{number}"
    home.mkdir(exist_ok=True)
    spool = Spool(home / "spool", boot_id="boot", limits=SpoolLimits(memory_bytes=1 << 20, disk_bytes=1 << 30))
    _arm_producer(failpoint)
    stopped = (directory / "stop").exists
    asyncio.run(_produce(number, _open_ledger(home / "ledger"), stopped, port, failpoint, spool, interval_seconds))
    spool.close()
    (home / "done").write_text(f"{spool.epoch} {spool.next_seq}")


async def _produce(
    number: int,
    ledger: TextIO,
    stopped: Callable[[], bool],
    port: int,
    failpoint: Failpoint,
    spool: Spool,
    interval_seconds: float,
) -> None:
    stream = FlowLinkStream(
        spool=spool,
        config=stream_config(port, agent_id=f"node-{number}"),
        on_settings=lambda _settings: None,
        jitter=lambda most: random.uniform(0, min(most, 0.2)),
    )
    task = asyncio.create_task(stream.run())
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, _print_tasks
    )  # for whoever looks into a run that hangs
    with ledger:
        while not stopped():
            seq = spool.next_seq
            # Now and then the node's clock is an hour off.
            step_ns = random.choice((-3600, 3600)) * 10**9 if random.random() < 0.01 else 0
            batch = batch_for(number, seq, end_ns=time.time_ns() + step_ns)
            failpoint.at("before-append")
            spool.append(batch)
            failpoint.at("after-append")
            ledger.write(f"{seq}\n")
            await asyncio.sleep(interval_seconds)
    await until(lambda: not spool.waiting_batches and stream.committed_seq == spool.next_seq - 1, seconds=600)
    task.cancel()


def _open_ledger(path: Path) -> TextIO:
    """Its last line may be cut: what follows must not grow together with it."""
    path.write_text("".join(f"{line}\n" for line in read_ledger(path)))
    return path.open("a", buffering=1)


def _arm_producer(failpoint: Failpoint) -> None:
    failpoint.before(Spool, "acknowledge", "before-trim")
    failpoint.before(Spool, "next_after", "before-send")
    failpoint.after(Spool, "next_after", "after-send")
    real_frame = spool_journal.frame

    def torn(**named: Any) -> bytes:
        data = real_frame(**named)
        if failpoint.passed("torn-append"):
            segments = sorted(Path(f"/proc/self/fd/{fd}").readlink() for fd in _segment_fds())
            with segments[-1].open("ab") as file:
                file.write(data[: random.randrange(1, len(data))])
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return data

    spool_journal.frame = torn


def _segment_fds() -> list[int]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.readlink().suffix == ".seg":
                found.append(int(entry.name))
    return found


# ---- the aggregator's side ------------------------------------------------------------------------------------------


def aggregate(url: str, port: int, failpoint: Failpoint) -> None:
    """Serve until killed."""
    _arm_aggregator(failpoint)
    asyncio.run(_aggregate(url, port, failpoint))


def slow_view(flow: FlowIdentity, at: datetime) -> Resolution | None:
    """A cluster view that learns of some pods a second late: those flows wait in the store."""
    young = time.time() - at.timestamp() < 4.0
    return NotYet(reason="pod", fallback=None) if flow.port % 50 == 0 and young else None


async def _aggregate(url: str, port: int, failpoint: Failpoint) -> None:
    store = open_store(url)
    if store.engine.dialect.name == "postgresql":

        def before_commit(_connection: Any) -> None:
            failpoint.at("before-commit")

        event.listen(store.engine, "commit", before_commit)
    resolver = FakeResolver(
        pods={f"uid-{number}": "everyone" for number in range(64)}, addresses={"10.0.0.2": "everyone"}, answer=slow_view
    )
    settler = Settler(store=store, resolver=resolver, interval_seconds=0.3, retention_interval=timedelta(days=1))
    limits = IngestLimits(batches_per_second=100_000)
    while True:
        with contextlib.suppress(Exception):  # the port of the one that was killed may linger
            async with running_aggregator(
                store,
                resolver=resolver,
                limits=limits,
                listen=f"127.0.0.1:{port}",
                linger_seconds=0.02,
                grace=timedelta(days=1),
            ):
                await settler.run()
        await asyncio.sleep(0.05)


def _arm_aggregator(failpoint: Failpoint) -> None:
    failpoint.before(SqlSink, "open_cursors", "hello")
    failpoint.before(Session, "_take_batch", "batch-read")
    failpoint.after(SqlSink, "_move_cursors", "cursor-locked")
    for bulk in (PostgresBulk, SqliteBulk):
        failpoint.before(bulk, "add_activity", "before-upsert")
        failpoint.after(bulk, "add_activity", "after-upsert")
    failpoint.after(SqlSink, "merge", "after-commit")
    failpoint.before(Session, "_on_recorded", "before-ack")
    failpoint.after(SqlSink, "_settle", "settling")


# ---- in between -----------------------------------------------------------------------------------------------------


def proxy(listen_port: int, target_port: int, odds: float) -> None:
    """A TCP proxy that now and then resets a connection around COMMIT: before the server hears it, or before the client
    hears the answer.
    """
    listener = socket.create_server(("127.0.0.1", listen_port), reuse_port=False)
    while True:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", target_port), timeout=5)
        except OSError:
            _reset(client)
            continue
        for side in (client, server):  # without it every question waits 40 ms, and a backlog is hardly ever delivered
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cut = threading.Event()
        threading.Thread(target=_forward, args=(client, server, cut, odds), daemon=True).start()
        threading.Thread(target=_back, args=(server, client, cut), daemon=True).start()


def _forward(client: socket.socket, server: socket.socket, cut: threading.Event, odds: float) -> None:
    try:
        while data := client.recv(65_536):
            if b"COMMIT" in data and random.random() < odds:
                if random.random() < 0.5:
                    cut.set()  # the answer is swallowed
                    server.sendall(data)
                    time.sleep(0.05)
                _reset(client)
                server.close()
                return
            server.sendall(data)
    except OSError:
        pass
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_WR)


def _back(server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
    try:
        while data := server.recv(65_536):
            if cut.is_set():
                return
            client.sendall(data)
    except OSError:
        pass
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
