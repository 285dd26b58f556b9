"""Connections that are open now, whenever they were opened.

Enters: /proc of the processes in pods' control groups. Leaves: `FlowColumns` with outcome OPEN and count 0, and the
listening sockets, whose owners the kernel side wants to know.
Invariant: nothing is counted twice: an OPEN row counts no connection and no byte, it says that a link is alive. Read
after attaching: what opens between the two is seen by both, and only the kernel counts it. The kernel does not tell how
old a socket is; it is no older than its pod, and that is told: the peer's address may have been another's before.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from agent import metrics
from agent.flow import PROTOCOL_TCP, PROTOCOL_UDP, Direction, FlowColumns, FlowStats, Local, Outcome
from agent.identity.paths import ContainerPath, parse
from agent.identity.sockets import (
    ESTABLISHED,
    LISTEN,
    UNCONNECTED,
    SocketLine,
    parse_sockets,
    tcp_direction,
    udp_direction,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agent.identity.cgroups import CgroupPaths
    from agent.identity.resolver import Resolver

_STARTED: Final = 19  # of the words of /proc/<pid>/stat behind the name: field 22 (proc(5)), in ticks since boot
_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_TABLES: Final = (("tcp", PROTOCOL_TCP), ("tcp6", PROTOCOL_TCP), ("udp", PROTOCOL_UDP), ("udp6", PROTOCOL_UDP))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A socket that waits for connections, and whose it is."""

    local: bytes
    port: int
    netns_inode: int
    cgroup_id: int
    pid: int
    process: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    pid: int
    cgroup_id: int
    container: ContainerPath


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _OpenKey:
    cgroup_id: int
    remote: bytes
    port: int
    protocol: int
    direction: int
    confidence: int
    process: bytes
    own: bytes
    since_ns: int  # CLOCK_BOOTTIME: not opened before


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    columns: FlowColumns
    listeners: tuple[Listener, ...]


class OpenSockets:
    """Looks at every namespace that a pod's process lives in, once a namespace."""

    def __init__(self, *, proc: Path, cgroups: CgroupPaths, resolver: Resolver) -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._resolver = resolver

    def look(self) -> Look:
        keys: set[_OpenKey] = set()
        listeners: list[Listener] = []
        for inode, processes in self._by_namespace().items():
            self._look_into(inode, processes, keys, listeners)
        return Look(columns=self._columns(sorted(keys)), listeners=tuple(listeners))

    def _by_namespace(self) -> dict[int, list[_Process]]:
        found: dict[int, list[_Process]] = {}
        for cgroup_id, path in self._cgroups.live():
            container = parse(path)
            if container is None:
                continue
            for pid in self._cgroups.processes(path):
                try:
                    inode = (self._proc / str(pid) / "ns/net").stat().st_ino
                except FileNotFoundError:
                    continue  # ended meanwhile
                except OSError:
                    metrics.OPEN_LOOK_FAILURES.labels("namespace").inc()
                    continue
                found.setdefault(inode, []).append(_Process(pid=pid, cgroup_id=cgroup_id, container=container))
        return found

    def _look_into(self, inode: int, processes: list[_Process], keys: set[_OpenKey], listeners: list[Listener]) -> None:
        tables = self._read_tables(processes)
        owners = self._owners(processes)
        pods = self._pods(processes)
        # Alone in its namespace, a pod owns every socket there, also one whose descriptor cannot be read.
        fallback = processes[0] if len(pods) == 1 and not self._resolver.is_host_namespace(inode) else None
        listening = {line.local_port for protocol, line in tables if _listens(protocol, line)}
        unconnected = {
            line.local_port for protocol, line in tables if protocol == PROTOCOL_UDP and line.state == UNCONNECTED
        }
        for protocol, line in tables:
            owner = owners.get(line.inode, fallback)
            if owner is None:
                continue
            process = self._comm(owner.pid) if line.inode in owners else b""
            if _listens(protocol, line):
                listeners.append(
                    Listener(
                        local=line.local,
                        port=line.local_port,
                        netns_inode=inode,
                        cgroup_id=owner.cgroup_id,
                        pid=owner.pid,
                        process=process,
                    )
                )
            elif line.state == ESTABLISHED and line.remote_port:
                decide, servers = (
                    (tcp_direction, listening) if protocol == PROTOCOL_TCP else (udp_direction, unconnected)
                )
                direction, confidence = decide(line, servers)
                port = line.local_port if direction is Direction.INGRESS else line.remote_port
                keys.add(
                    _OpenKey(
                        cgroup_id=owner.cgroup_id,
                        remote=line.remote,
                        port=port,
                        protocol=protocol,
                        direction=direction,
                        confidence=confidence,
                        process=process,
                        own=line.local,
                        since_ns=pods[owner.container.pod_uid],
                    )
                )

    def _pods(self, processes: Iterable[_Process]) -> dict[str, int]:
        """Whose processes these are, and when the first of each pod's was started: the one that holds the namespace.
        0 where that cannot be read: no connection is older than the kernel.
        """
        starts: dict[str, list[int]] = {}
        for process in processes:
            starts.setdefault(process.container.pod_uid, []).append(self._started_ns(process.pid))
        return {pod: min(filter(None, found), default=0) for pod, found in starts.items()}

    def _started_ns(self, pid: int) -> int:
        """0 where it cannot be read: it ended meanwhile."""
        with suppress(OSError, IndexError, ValueError):
            after_name = (self._proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            return int(after_name[_STARTED]) * _TICK_NS
        return 0

    def _read_tables(self, processes: list[_Process]) -> list[tuple[int, SocketLine]]:
        for process in processes:
            with suppress(OSError):
                lines: list[tuple[int, SocketLine]] = []
                for name, protocol in _TABLES:
                    path = self._proc / str(process.pid) / "net" / name
                    if path.exists():  # a kernel without IPv6
                        lines += [(protocol, line) for line in parse_sockets(path.read_text(encoding="ascii"))]
                return lines
        metrics.OPEN_LOOK_FAILURES.labels("tables").inc()
        return []

    def _owners(self, processes: Iterable[_Process]) -> dict[int, _Process]:
        owners: dict[int, _Process] = {}
        for process in processes:
            try:
                descriptors = list(os.scandir(self._proc / str(process.pid) / "fd"))
            except OSError as exc:
                if not isinstance(exc, FileNotFoundError):
                    metrics.OPEN_LOOK_FAILURES.labels("descriptors").inc()
                continue
            for descriptor in descriptors:
                with suppress(OSError):
                    target = os.readlink(descriptor.path)  # noqa: PTH115  a Path each would double the time
                    if target.startswith("socket:["):
                        owners.setdefault(int(target[8:-1]), process)
        return owners

    def _comm(self, pid: int) -> bytes:
        with suppress(OSError):
            return (self._proc / str(pid) / "comm").read_bytes().rstrip(b"\n")[:15].ljust(16, b"\0")
        return b""

    def _columns(self, keys: list[_OpenKey]) -> FlowColumns:
        rows = len(keys)
        locals_: list[Local] = []
        number: dict[tuple[int, bytes], int] = {}
        for key in keys:
            if (key.cgroup_id, key.own) not in number:
                cookie = self._resolver.cookie_of(key.cgroup_id)
                side = self._resolver.resolve(key.cgroup_id, cookie, key.own)
                number[key.cgroup_id, key.own] = len(locals_) if side is not None else -1
                if side is not None:
                    locals_.append(side)
        stats = np.zeros(rows, FlowStats)
        stats["process"] = np.frombuffer(b"".join(key.process or bytes(16) for key in keys), "<u8").reshape(rows, 2)
        now = np.uint64(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        columns = FlowColumns(
            locals=tuple(locals_),
            local=np.array([number[key.cgroup_id, key.own] for key in keys], np.int64),
            remote=np.frombuffer(b"".join(key.remote for key in keys), "<u8").reshape(rows, 2),
            port=np.array([key.port for key in keys], np.uint16),
            protocol=np.array([key.protocol for key in keys], np.uint8),
            direction=np.array([key.direction for key in keys], np.uint8),
            outcome=np.full(rows, Outcome.OPEN, np.uint8),
            error=np.zeros(rows, np.uint16),
            confidence=np.array([key.confidence for key in keys], np.uint8),
            process=stats["process"],
            count=stats["count"],
            tx_bytes=stats["tx_bytes"],
            rx_bytes=stats["rx_bytes"],
            first_ns=np.full(rows, now),
            last_ns=np.full(rows, now),
            longest_ns=now - np.minimum(np.array([key.since_ns for key in keys], np.uint64), now),
        )
        own = np.frombuffer(b"".join(key.own for key in keys), "<u8").reshape(rows, 2)
        inside = self._resolver.stays_inside(columns.remote, own, columns.direction, columns.port)
        return columns.where((columns.local >= 0) & ~inside)


def _listens(protocol: int, line: SocketLine) -> bool:
    return protocol == PROTOCOL_TCP and line.state == LISTEN
