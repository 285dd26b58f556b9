"""Batches as 250 nodes would send them, and ways to measure CPU: shared by the figures of bench/ingest.py."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.encode import encode
from agent.flow import FlowColumns, Local
from agent.kernel.maps import Instant
from wattle.v1 import flowlink_pb2

CLUSTER = "bench"
PODS = 30
REMOTES = 300
PORTS = np.array([80, 443, 8080, 5432, 6379, 9090, 53, 3306])
_TICK = os.sysconf("SC_CLK_TCK")


def batch_message(rows: int, *, node: int, seq: int, universe: int = 60_000, tail: bool = False) -> bytes:
    """A serialised AgentMessage of `rows` edges of one node, 5 s wide, ending now; drawn evenly, or with a long tail.

    Encoded by the agent, with everything that it says of a pod.
    """
    rng = np.random.default_rng([node, seq])
    end = Instant(boot_ns=6_000_000_000, wall_ns=time.time_ns())
    start = Instant(boot_ns=1_000_000_000, wall_ns=end.wall_ns - 5_000_000_000)
    per_node = universe // 8  # four senders, two directions; 31 edges for each of 30 pods and 8 ports
    edge = rng.zipf(1.3, rows) % per_node if tail else rng.choice(per_node, rows, replace=rows > per_node)
    address = [
        bytes(10) + b"\xff\xff" + bytes([10, node % 250, index // 250, index % 250 + 1]) for index in range(REMOTES)
    ]
    first_ns = start.boot_ns + rng.integers(0, 2_000, rows) * 1_000_000
    columns = FlowColumns(
        locals=tuple(_side(node, pod) for pod in range(PODS)),
        local=edge % PODS,
        remote=np.frombuffer(b"".join(address), "<u8").reshape(-1, 2)[(7 * edge + edge // PODS) % REMOTES],
        port=PORTS[edge // PODS % len(PORTS)],
        protocol=np.full(rows, 6, np.uint8),
        direction=(1 + rng.integers(0, 2, rows)).astype(np.uint8),
        outcome=np.full(rows, 1, np.uint8),
        error=np.zeros(rows, np.uint16),
        confidence=np.full(rows, 1, np.uint8),
        process=np.tile(np.frombuffer(b"java".ljust(16, b"\0"), "<u8"), (rows, 1)),
        count=rng.integers(1, 20, rows).astype(np.uint64),
        tx_bytes=rng.integers(0, 20_000, rows).astype(np.uint64),
        rx_bytes=rng.integers(0, 20_000, rows).astype(np.uint64),
        first_ns=first_ns.astype(np.uint64),
        last_ns=(start.boot_ns + rng.integers(2_000, 5_000, rows) * 1_000_000).astype(np.uint64),
        longest_ns=(rng.integers(0, 200_000, rows) * 1_000).astype(np.uint64),
    )
    [(_, batch)] = encode(columns, start=start, end=end, loss=flowlink_pb2.Loss())
    batch.seq = seq
    return flowlink_pb2.AgentMessage(batch=batch).SerializeToString()


def _side(node: int, pod: int) -> Local:
    return Local(
        pod_uid=f"{node:08x}-0000-4000-8000-{pod:012x}",
        container_id=f"{node:032x}{pod:032x}",
        namespace="shop",
        pod_name=f"app-{pod}-7c9d8b6f5d-x{node:04}",
        container_name="main",
        cgroup_id=10_000 + pod,
        netns_cookie=4_096 + pod,
        address=bytes(10) + b"\xff\xff" + bytes([10, node % 250, 255, pod + 1]),
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its reaped children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICK


def cpu_of_directory(directory: Path) -> float:
    """CPU of every process that works in a directory: a PostgreSQL and its backends."""
    total = 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == directory:
                total += cpu_seconds(int(entry.name))
        except OSError:
            continue
    return total


@dataclass(slots=True, kw_only=True)
class Measured:
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    samples: list[float] = field(default_factory=list)


@contextmanager
def measured() -> Iterator[Measured]:
    """CPU and wall time of this process within the block."""
    result = Measured()
    cpu, wall = time.process_time(), time.perf_counter()
    yield result
    result.cpu_seconds, result.wall_seconds = time.process_time() - cpu, time.perf_counter() - wall
