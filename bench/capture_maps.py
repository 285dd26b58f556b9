"""Draining: CPU per entry beside BCC's own way, the whole cycle, and what is lost at the boundary.

BCC is imported here as the peer that the agent is compared to. The flow map is the agent's own, made by its own loader
source; entries are put in by batch.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.encode import encode
from agent.flow import FlowKey, FlowStats
from agent.identity.resolver import Resolver
from agent.kernel import bpf
from agent.kernel.backends import TRACEPOINT
from agent.kernel.btf import Btf
from agent.kernel.headers import CgroupSource, compiler_flags, source_text, write_header_tree
from agent.kernel.maps import Counter, Counters, FlowMaps
from bench.report import Bar, Figure, median_and_spread
from wattle.v1 import flowlink_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES = 100_000
ROOM = 131_072
REPETITIONS = 7
BOUNDARY_EVENTS = 100_000_000
BCC_BOUNDARY_EVENTS = 5_000_000
_MAP_UPDATE_BATCH, _PROG_TEST_RUN = 26, 10

# The agent's own account(), driven as fast as the kernel can run it, over flows that a random number chooses.
DRIVER = """
static __always_inline int drive(u64 flows)
{
	struct flow_key key;
	struct tuple t;
	struct event event = {.now_ns = 1, .count = 1};
	char process[PROCESS_BYTES] = {};
	__builtin_memset(&key, 0, sizeof(key));
	__builtin_memset(&t, 0, sizeof(t));
	key.netns_cookie = key.cgroup_id = 7;
	key.port = 80;
	key.protocol = 6;
	key.direction = key.confidence = 1;
	*(u64 *)key.remote = 1 + (bpf_get_prandom_u32() & (flows - 1));
	account(0, &key, &event, &t, 7, process);
	return 2;
}
int drive_flows(struct xdp_md *ctx) { return drive(1024); }
BPF_TABLE("hash", struct flow_key, struct flow_stats, peer, 65536);
int drive_peer(struct xdp_md *ctx)
{
	struct flow_key key;
	struct flow_stats fresh, *stats;
	__builtin_memset(&key, 0, sizeof(key));
	__builtin_memset(&fresh, 0, sizeof(fresh));
	*(u64 *)key.remote = 1 + (bpf_get_prandom_u32() & 1023);
	stats = peer.lookup_or_try_init(&key, &fresh);
	if (stats)
		__sync_fetch_and_add(&stats->count, 1);
	else
		count(COUNTER_MAP_FULL, 1);
	return 2;
}
"""


def compile_module(folder: Path) -> Any:
    """The agent's source and the driver above, by BCC in this process."""
    write_header_tree(folder, release=os.uname().release, page_bytes=os.sysconf("SC_PAGESIZE"))
    os.environ["BCC_KERNEL_SOURCE"] = str(folder)
    import bcc  # noqa: PLC0415  the peer; needs BCC_KERNEL_SOURCE first

    flags = compiler_flags(
        Btf.load(), machine=platform.machine(), cgroups=CgroupSource(hierarchy_id=0), flow_entries=ROOM
    )
    flags += [f"-D{define}" for define in TRACEPOINT.defines]
    return bcc.BPF(text=source_text() + DRIVER, cflags=flags)


def sample(entries: int) -> tuple[Any, Any]:
    """What a large node looks like: 60 pods, 30,000 peers, every port of a service mesh."""
    rng = np.random.default_rng(7)
    keys, stats = np.zeros(entries, FlowKey), np.zeros(entries, FlowStats)
    keys["cgroup_id"] = keys["netns_cookie"] = rng.integers(1, 61, entries)
    keys["remote"][:, 1] = 0xFFFF0000 | (0x0A | rng.integers(0, 30_000, entries).astype(np.uint64) << 8) << 32
    keys["port"] = 1 + np.arange(entries) % 65_535  # makes every key another one
    keys["protocol"], keys["confidence"] = 6, 1
    keys["direction"] = rng.integers(1, 3, entries)
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    stats["first_ns"] = boot_ns
    stats["last_ns"] = boot_ns + rng.integers(0, 5 * 10**9, entries)
    stats["count"] = rng.integers(1, 300, entries)
    stats["tx_bytes"] = rng.integers(0, 1 << 20, entries)
    stats["rx_bytes"] = rng.integers(0, 1 << 22, entries)
    stats["longest_ns"] = rng.integers(0, 10**9, entries)
    stats["process"][:, 0] = rng.integers(1 << 40, (1 << 40) + 40, entries)
    stats["local"][:, 1] = 0xFFFF0000 | (0x0B0A << 32)
    return keys, stats


def fill(map_fd: int, keys: Any, stats: Any) -> None:
    attr = bytearray(128)
    struct.pack_into("<QQQQII", attr, 0, 0, 0, keys.ctypes.data, stats.ctypes.data, len(keys), map_fd)
    bpf._call(_MAP_UPDATE_BATCH, attr, "filling the map")  # noqa: SLF001  only a bench writes flows


def cpu_us(entries: int, work: Callable[[], object]) -> float:
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1000 / entries


class BenchPaths:
    def find(self, cgroup_id: int, *, pid: int = 0) -> str:
        del pid
        return f"/kubepods/burstable/pod8a3f6c1e-1b2c-4d5e-8f90-{cgroup_id:012x}/{cgroup_id:064x}"


class BenchLogs:
    def names(self, pod_uid: str) -> SimpleNamespace:
        return SimpleNamespace(namespace="shop", pod=f"web-{pod_uid[-3:]}")

    def container_name(self, pod_uid: str, container_id: str) -> str:
        del pod_uid, container_id
        return "main"


def bcc_way(table: Any) -> None:
    seen = 0
    for _key, value in table.items():  # noqa: PERF102  the very way that is measured
        seen += value.count > 0
    table.clear()
    assert seen == ENTRIES


def draining(module: Any) -> list[Figure]:
    keys, stats = sample(ENTRIES)
    flows = FlowMaps(outer_fd=module["flows"].map_fd, inner_fds=(module["flows_0"].map_fd, module["flows_1"].map_fd))
    resolver = Resolver(
        cgroups=BenchPaths(),  # type: ignore[arg-type]
        logs=BenchLogs(),  # type: ignore[arg-type]
        host_netns_inode=1,
        mesh_ports=(15001, 15006),
    )
    ours: list[float] = []
    cycle: list[float] = []
    peers: list[float] = []
    bare: list[float] = []
    wire = 0
    table = module["flows_0"]
    active = 0

    def drain_alone() -> None:
        assert sum(len(part) for part in flows.drain(flows.swap())) == ENTRIES

    def whole_cycle() -> None:
        nonlocal wire
        rows = wire = 0
        resolver.begin_interval()
        for part in flows.drain(flows.swap()):
            rows += len(part)
            columns = resolver.attribute(part).columns
            for _records, batch in encode(columns, start=part.start, end=part.end, loss=flowlink_pb2.Loss()):
                wire += len(batch.SerializeToString())
        assert rows == ENTRIES

    spare_keys, spare_stats = np.empty(ROOM, FlowKey), np.empty(ROOM, FlowStats)

    def bare_syscall() -> None:
        token = ctypes.c_uint64()
        attr = bpf.batch_attr(
            in_token=0,
            out_token=ctypes.addressof(token),
            keys=spare_keys.ctypes.data,
            values=spare_stats.ctypes.data,
            capacity=ROOM,
            map_fd=table.map_fd,
        )
        assert bpf.take_batch(attr.ctypes.data)

    for repetition in range(REPETITIONS + 1):
        for sink, work in ((ours, drain_alone), (cycle, whole_cycle)):
            fill((module["flows_0"], module["flows_1"])[active].map_fd, keys, stats)
            active = 1 - active
            sink.append(cpu_us(ENTRIES, work))
        fill(table.map_fd, keys, stats)
        bare.append(cpu_us(ENTRIES, bare_syscall))
        if repetition < 3:
            fill(table.map_fd, keys, stats)
            peers.append(cpu_us(ENTRIES, lambda: bcc_way(table)))
    (drain_us, drain_spread), (cycle_us, cycle_spread) = median_and_spread(ours[1:]), median_and_spread(cycle[1:])
    peer_us, _ = median_and_spread(peers)
    bare_us, _ = median_and_spread(bare[1:])
    return [
        Figure(
            figure="drain: CPU an entry, BCC items() + clear() over swap and batch drain",
            value=drain_us,
            unit="us",
            against=f"BCC {peer_us:.2f} us",
            ratio=peer_us / drain_us,
            bar=Bar(comparison=">=", limit=20, of="ratio"),
            spread=drain_spread,
        ),
        Figure(
            figure="drain: CPU an entry beside the bare batch system call",
            value=drain_us,
            unit="us",
            against=f"LOOKUP_AND_DELETE_BATCH alone {bare_us:.3f} us",
            ratio=bare_us / drain_us,
            bar=Bar(comparison=">=", limit=0.9, of="ratio"),
            spread=drain_spread,
        ),
        Figure(
            figure=f"whole cycle: drain, attribute, encode, serialize; CPU an entry at {ENTRIES} entries",
            value=cycle_us,
            unit="us",
            against=f"the drain alone {drain_us:.3f} us",
            ratio=cycle_us / drain_us,
            bar=Bar(comparison="<=", limit=0.35),
            spread=cycle_spread,
        ),
        Figure(
            figure="wire: bytes a flow record",
            value=wire / ENTRIES,
            unit="B",
            against=f"the kernel's own entry {FlowKey.itemsize + FlowStats.itemsize} B",
            ratio=wire / ENTRIES / (FlowKey.itemsize + FlowStats.itemsize),
        ),
    ]


def run_program(program_fd: int, events: int, stop: threading.Event | None = None) -> int:
    """BPF_PROG_TEST_RUN, over and over; returns the runs."""
    packet = ctypes.create_string_buffer(64)
    done, chunk = 0, 500_000
    while done < events and not (stop and stop.is_set()):
        attr = bytearray(128)
        struct.pack_into("<IIIIQQI", attr, 0, program_fd, 0, 64, 0, ctypes.addressof(packet), 0, chunk)
        bpf._call(_PROG_TEST_RUN, attr, "running the driver")  # noqa: SLF001  only a bench drives programs
        done += chunk
    return done


def boundary(module: Any) -> list[Figure]:
    """Every run of the driver must be in what was drained, or in a counter, while the maps are swapped under it."""
    import bcc  # noqa: PLC0415  see compile_module

    flows = FlowMaps(outer_fd=module["flows"].map_fd, inner_fds=(module["flows_0"].map_fd, module["flows_1"].map_fd))

    def drained() -> int:
        return sum(int(part.stats["count"].sum()) for part in flows.drain(flows.swap()))

    drained()
    drained()
    counters = Counters(module["counters"].map_fd)
    before = counters.read()[Counter.MAP_FULL]
    ours = module.load_func(b"drive_flows", bcc.BPF.XDP).fd
    runs, swaps, seen = _drive(ours, BOUNDARY_EVENTS, drained)
    seen += drained() + drained()
    refused = counters.read()[Counter.MAP_FULL] - before
    lost = runs - seen - refused

    table = module["peer"]
    peer = module.load_func(b"drive_peer", bcc.BPF.XDP).fd

    def bcc_way() -> int:
        counted = sum(int(value.count) for _key, value in table.items())
        table.clear()
        return counted

    peer_runs, _peer_swaps, peer_seen = _drive(peer, BCC_BOUNDARY_EVENTS, bcc_way)
    peer_seen += bcc_way()
    peer_lost = peer_runs - peer_seen
    return [
        Figure(
            figure=f"boundary: events lost of {runs:,} in {swaps} swaps, two threads",
            value=float(lost),
            unit="events",
            against=f"BCC items() + clear(): {peer_lost:,} of {peer_runs:,} ({peer_lost / peer_runs * 1e6:,.0f} ppm)",
            ratio=lost / max(1, peer_lost),
            bar=Bar(comparison="<=", limit=0),
        )
    ]


def _drive(program_fd: int, events: int, drain: Callable[[], int]) -> tuple[int, int, int]:
    runs = [0, 0]

    def drive(thread: int) -> None:
        runs[thread] = run_program(program_fd, events // 2)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    swaps = seen = 0
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.01)
        seen += drain()
        swaps += 1
    for thread in threads:
        thread.join()
    return sum(runs), swaps, seen


def figures() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="wattle-bench-") as folder:
        module = compile_module(Path(folder))
        return [*draining(module), *boundary(module)]
