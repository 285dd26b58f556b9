"""Batches as 250 nodes would send them, and ways to measure CPU: shared by the figures of bench/ingest.py."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from wattle.v1 import flowlink_pb2

CLUSTER = "bench"
PODS = 30
REMOTES = 300
PORTS = np.array([80, 443, 8080, 5432, 6379, 9090, 53, 3306])
_TICK = os.sysconf("SC_CLK_TCK")


def batch_message(rows: int, *, node: int, seq: int, universe: int = 60_000, tail: bool = False) -> bytes:
    """A serialised AgentMessage: `rows` edges of one node, 5 s wide, ending now; drawn evenly, or with a long tail."""
    rng = np.random.default_rng([node, seq])
    now_ns = time.time_ns()
    per_node = universe // 8  # four senders, two directions
    edge = rng.zipf(1.3, rows) % per_node if tail else rng.choice(per_node, rows, replace=rows > per_node)
    remote = edge // len(PORTS) % REMOTES
    columns = flowlink_pb2.Columns(
        local=(edge // (len(PORTS) * REMOTES) % PODS).tolist(),
        remote=remote.tolist(),
        port=PORTS[edge % len(PORTS)].tolist(),
        protocol=[6] * rows,
        direction=(1 + rng.integers(0, 2, rows)).tolist(),
        outcome=[1] * rows,
        errno=[0] * rows,
        confidence=[1] * rows,
        process=[1] * rows,
        count=rng.integers(1, 20, rows).tolist(),
        tx_bytes=rng.integers(0, 20_000, rows).tolist(),
        rx_bytes=rng.integers(0, 20_000, rows).tolist(),
        first_ms=rng.integers(0, 2_000, rows).tolist(),
        last_ms=rng.integers(2_000, 5_000, rows).tolist(),
        duration_us=rng.integers(0, 200_000, rows).tolist(),
    ).SerializeToString()
    batch = flowlink_pb2.Batch(
        seq=seq,
        interval=flowlink_pb2.Interval(start_wall_ns=now_ns - 5_000_000_000, end_wall_ns=now_ns),
        locals=[
            flowlink_pb2.Local(
                pod_uid=f"{node:08x}-0000-4000-8000-{pod:012x}", namespace="shop", pod_name=f"app-{node}-{pod}"
            )
            for pod in range(PODS)
        ],
        remotes=b"".join(
            bytes(10) + b"\xff\xff" + bytes([10, node % 250, index // 250, index % 250 + 1]) for index in range(REMOTES)
        ),
        processes=["", "java"],
        columns=columns,
        crc32c=google_crc32c.value(columns),
    )
    return flowlink_pb2.AgentMessage(batch=batch).SerializeToString()


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
