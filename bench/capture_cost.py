"""What the agent costs the node it watches: time in the hooks, latency of requests, resident memory."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import AgentConfig
from agent.identity.cgroups import find_hierarchy
from agent.kernel import bpf
from agent.kernel.backends import BackendName
from agent.kernel.capture import Capture, CaptureRequest, open_capture
from agent.kernel.headers import CgroupSource
from bench.report import Bar, Figure

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parent.parent
CONNECTIONS, DATAGRAMS = 3_000, 30_000
ROUNDS, REQUESTS, REQUESTS_KEPT_ALIVE = 10, 1_500, 15_000
FLOWS = 100_000
MIB = 1 << 20
_CLONE_NEWNET = 0x40000000


def attach() -> Capture:
    config = AgentConfig()
    hierarchy = find_hierarchy(config.cgroup_root, proc=config.proc_root)
    return open_capture(
        CaptureRequest(
            backend=BackendName.AUTO,
            cgroups=CgroupSource(hierarchy_id=hierarchy.hierarchy_id, subsystem=hierarchy.subsystem),
            cgroup_v2_root=str(hierarchy.v2_root) if hierarchy.v2_root else None,
            flow_entries=65_536,
        )
    )


def connections(count: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        address = listener.getsockname()
        for _ in range(count):
            with socket.create_connection(address) as caller:
                accepted, _peer = listener.accept()
                accepted.close()
                caller.recv(1)


def datagrams(count: int) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller,
    ):
        sink.bind(("127.0.0.1", 0))
        for _ in range(count):
            caller.sendto(b"x" * 64, sink.getsockname())


def wall_ns(work: Callable[[int], None], count: int) -> float:
    began = time.perf_counter_ns()
    work(count)
    return (time.perf_counter_ns() - began) / count


def hooks() -> list[Figure]:
    plain = [min(wall_ns(work, count) for _ in range(3)) for work, count in _LOADS]
    figures = []
    capture = attach()
    stats = bpf.enable_stats()
    try:
        for (work, count), alone_ns, what in zip(_LOADS, plain, ("connect+accept+close", "UDP send"), strict=True):
            spent = []
            for _ in range(3):
                before = sum(program.run_time_ns for program in capture.programs().values())
                work(count)
                spent.append((sum(program.run_time_ns for program in capture.programs().values()) - before) / count)
            figures.append(
                Figure(
                    figure=f"hooks: time added to one {what}, both ends ({capture.backend.name})",
                    value=min(spent),
                    unit="ns",
                    against=f"without the agent {alone_ns:,.0f} ns",
                    ratio=min(spent) / alone_ns,
                )
            )
    finally:
        os.close(stats)
        capture.close()
    return figures


_LOADS = ((connections, CONNECTIONS), (datagrams, DATAGRAMS))


def latency() -> list[Figure]:
    """A request loop with and without the agent, by turns: kept alive as services do, and a connection a request."""
    return [*_request_loop(keep_alive=True), *_request_loop(keep_alive=False)]


def _request_loop(*, keep_alive: bool) -> list[Figure]:
    requests = REQUESTS_KEPT_ALIVE if keep_alive else REQUESTS
    name = "request loop, kept alive" if keep_alive else "request loop, a connection for each request (worst case)"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        address = listener.getsockname()
        server = os.fork()
        if server == 0:
            _answer(listener)
        try:
            _requests(address, 200, keep_alive=keep_alive)
            without: list[float] = []
            attached: list[float] = []
            pairs = []
            for turn in range(ROUNDS):
                taken: dict[bool, list[float]] = {}
                for watched in (turn % 2 == 0, turn % 2 == 1):  # neither is always the first
                    with closing(attach()) if watched else nullcontext():
                        taken[watched] = _requests(address, requests, keep_alive=keep_alive)
                without += taken[False]
                attached += taken[True]
                pairs.append(
                    (_percentile(taken[True], 99) / _percentile(taken[False], 99), sum(taken[False]) / sum(taken[True]))
                )
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
    tail = Bar(comparison="<=", limit=1.05, of="ratio") if keep_alive else None
    rate = Bar(comparison=">=", limit=0.97, of="ratio") if keep_alive else None
    return [
        Figure(
            figure=f"{name}: p50 with the agent",
            value=_percentile(attached, 50) / 1000,
            unit="us",
            against=f"without {_percentile(without, 50) / 1000:.1f} us",
            ratio=_percentile(attached, 50) / _percentile(without, 50),
        ),
        Figure(
            figure=f"{name}: p99 with the agent",
            value=_percentile(attached, 99) / 1000,
            unit="us",
            against=f"without {_percentile(without, 99) / 1000:.1f} us; ratio of the median of {ROUNDS} turns",
            ratio=statistics.median(pair[0] for pair in pairs),
            bar=tail,
        ),
        Figure(
            figure=f"{name}: throughput with the agent",
            value=1e9 / statistics.mean(attached),
            unit="requests/s",
            against=f"without {1e9 / statistics.mean(without):,.0f} requests/s; ratio of the median of {ROUNDS} turns",
            ratio=statistics.median(pair[1] for pair in pairs),
            bar=rate,
        ),
    ]


def _answer(listener: socket.socket) -> None:
    body = b"x" * 1024
    while True:
        with suppress(OSError):
            connection, _peer = listener.accept()
            with connection:
                while connection.recv(4096):
                    connection.sendall(body)


def _requests(address: tuple[str, int], count: int, *, keep_alive: bool) -> list[float]:
    taken = []
    kept = socket.create_connection(address) if keep_alive else None
    for _ in range(count):
        began = time.perf_counter_ns()
        if kept is not None:
            _request(kept)
        else:
            with socket.create_connection(address) as caller:
                _request(caller)
        taken.append(float(time.perf_counter_ns() - began))
    if kept is not None:
        kept.close()
    return taken


def _request(caller: socket.socket) -> None:
    caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
    caller.recv(1024, socket.MSG_WAITALL)


def _percentile(samples: list[float], percent: int) -> float:
    return sorted(samples)[min(len(samples) - 1, len(samples) * percent // 100)]


def memory() -> list[Figure]:
    """The agent as a process, first idle, then after draining 100,000 flows of one pod."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = ["--plaintext", "--server", "127.0.0.1:1", "--http-listen", listen, "--flow-entries", str(131_072)]
    arguments += ["--drain-interval-seconds", "2", "--pin-directory", "/nonexistent/wattle"]
    agent = subprocess.Popen([sys.executable, "-m", "agent", *arguments], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: _metric(listen, "wattle_agent_drain_alive_seconds") > 0)
        start = _resident(agent.pid)
        drained = _metric(listen, "wattle_agent_flow_records_total")
        many_flows()
        _wait_for(lambda: _metric(listen, "wattle_agent_flow_records_total") >= drained + FLOWS)
        busy, peak = _resident(agent.pid), _resident(agent.pid, "VmHWM")
        mapped = Path(f"/proc/{agent.pid}/maps").read_text(encoding="utf-8")
        compilers = sum(name in mapped for name in ("libbcc", "libLLVM", "libclang"))
    finally:
        agent.terminate()
        agent.wait()
    return [
        Figure(
            figure="memory: agent resident after start",
            value=start,
            unit="MiB",
            against="NetObserv's limit 800 MiB",
            bar=Bar(comparison="<=", limit=64),
        ),
        Figure(
            figure=f"memory: agent resident after an interval of {FLOWS} flows",
            value=max(busy, peak),
            unit="MiB",
            against=f"after start {start:.1f} MiB; the peak of both",
            ratio=max(busy, peak) / start,
            bar=Bar(comparison="<=", limit=128),
        ),
        Figure(
            figure="memory: compiler libraries mapped by the agent",
            value=float(compilers),
            unit="libraries",
            against="bcc maps 3",
            bar=Bar(comparison="<=", limit=0),
        ),
    ]


def many_flows() -> None:
    """From a kubelet-shaped group and a network namespace of its own, to addresses where nobody is."""
    config = AgentConfig()
    root = find_hierarchy(config.cgroup_root, proc=config.proc_root).root / f"wattle-bench-{os.getpid()}"
    group = root / "kubepods" / "pod8a3f6c1e-1b2c-4d5e-8f90-112233445566" / ("b" * 64)
    group.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
            ctypes.CDLL(None).unshare(_CLONE_NEWNET)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            subprocess.run(["ip", "addr", "add", "10.250.0.1/16", "dev", "lo"], check=True)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
                for number in range(FLOWS):
                    caller.sendto(b"x", (f"10.250.1.{1 + number % 200}", 1 + number // 200))
            status = 0
        finally:
            os._exit(status)
    _pid, status = os.waitpid(child, 0)
    for directory in (group, group.parent, group.parent.parent, root):
        directory.rmdir()
    if status:
        raise RuntimeError("the process that makes flows failed")


def _resident(pid: int, line: str = "VmRSS") -> float:
    found = re.search(rf"^{line}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 / MIB if found else 0.0


def _metric(listen: str, name: str) -> float:
    try:
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=5) as page:
            found = re.search(rf"^{name} ([0-9.e+]+)$", page.read().decode(), re.MULTILINE)
    except OSError:
        return -1.0
    return float(found[1]) if found else -1.0


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the agent did not get there")
        time.sleep(0.1)
