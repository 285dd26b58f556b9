"""Says whose every flow is.

Enters: Drained flows, first sights. Leaves: `FlowColumns` of pods' flows, and what was left out, counted.
Invariant: cgroup id first, namespace cookie second, never an address; what neither tells is reported as unresolved with
what is known, never guessed. hostNetwork pods share the node's namespace, so there only the cgroup counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from agent.flow import OUTCOME_OF_ERROR, Direction, FlowColumns, Local, factorize
from agent.identity.paths import ContainerPath, parse

if TYPE_CHECKING:
    from agent.flow import Words
    from agent.identity.cgroups import CgroupPaths
    from agent.identity.podlogs import PodLogs
    from agent.kernel.maps import Drained

_REMEMBERED: Final = 65_536

Key = TypeVar("Key")
Value = TypeVar("Value")
_V4_MAPPED: Final = np.uint64(0xFFFF_0000)  # bytes 8..11 of a v4-mapped address: 00 00 ff ff
_LOW_32: Final = np.uint64(0xFFFF_FFFF)
_V4_LOOPBACK_NET: Final = np.uint64(127)
_V6_LOOPBACK: Final = np.uint64(1 << 56)  # ::1
_V6_MESH: Final = np.uint64(6 << 56)  # ::6, from which Istio hands inbound connections to the application


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreported:
    """Flow events that are not sent as a pod's, per reason."""

    unresolved: int = 0  # sent, but without a pod
    not_a_pod: int = 0
    mesh_loopback: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    columns: FlowColumns
    unreported: Unreported


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSight:
    pid: int
    cgroup_id: int
    netns_cookie: int
    netns_inode: int


_KEYS: Final = ("remote", "port", "protocol", "direction", "error", "confidence")
_STATS: Final = ("process", "count", "tx_bytes", "rx_bytes", "first_ns", "last_ns", "longest_ns")


class _NotAPod:
    """The path is known, and it is no pod's."""


_NOT_A_POD: Final = _NotAPod()


class Resolver:
    """Identity of (cgroup, network namespace) pairs, remembered beyond their end."""

    def __init__(
        self,
        *,
        cgroups: CgroupPaths,
        logs: PodLogs,
        host_netns_inode: int,
        mesh_ports: tuple[int, ...],
        kubelet_cgroup: str = "/",
    ) -> None:
        self._cgroups = cgroups
        self._pods_below = kubelet_cgroup.rstrip("/") + "/"
        self._logs = logs
        self._host_netns_inode = host_netns_inode
        self._mesh_ports = np.array(mesh_ports, np.uint16)
        self._host_cookie = 0
        self._pod_of_cookie: dict[int, str] = {}
        self._cookie_of_cgroup: dict[int, int] = {}
        self._addresses: dict[tuple[int, int], bytes] = {}
        self._sides: dict[tuple[int, int], Local | None] = {}  # of this interval

    # ---- first sight -------------------------------------------------------------------------------------------------

    def saw(self, sight: FirstSight) -> None:
        """Look while the process lives: its group and its log folder may be gone at the next drain."""
        if sight.netns_inode == self._host_netns_inode:
            self._host_cookie = sight.netns_cookie
        path = self._cgroups.find(sight.cgroup_id, pid=sight.pid)
        found = self._pod_of(path) if path is not None else None
        if found is None:
            return
        _remember(self._cookie_of_cgroup, sight.cgroup_id, sight.netns_cookie)
        if sight.netns_cookie != self._host_cookie:
            _remember(self._pod_of_cookie, sight.netns_cookie, found.pod_uid)
        self._logs.names(found.pod_uid)
        self._logs.container_name(found.pod_uid, found.container_id)

    def cgroup_created(self, cgroup_id: int, path: str) -> None:
        self._cgroups.learn(cgroup_id, path)

    def is_host_network(self, netns_cookie: int) -> bool:
        return netns_cookie != 0 and netns_cookie == self._host_cookie

    def is_host_namespace(self, netns_inode: int) -> bool:
        return netns_inode == self._host_netns_inode

    def cookie_of(self, cgroup_id: int) -> int:
        """0 when no event told it yet."""
        return self._cookie_of_cgroup.get(cgroup_id, 0)

    # ---- drain -------------------------------------------------------------------------------------------------------

    def attribute(self, drained: Drained) -> Attributed:
        keys, stats = drained.keys, drained.stats
        pair, firsts = factorize(keys["cgroup_id"], keys["netns_cookie"])
        events = np.maximum(stats["count"], 1)
        pairs = list(zip(keys["cgroup_id"][firsts].tolist(), keys["netns_cookie"][firsts].tolist(), strict=True))
        settled = all(self._is_settled(each) for each in pairs)
        addresses = {} if settled else _own_addresses(pair, len(firsts), stats["local"])
        locals_: list[Local] = []
        local_of_pair = np.full(len(firsts), -1, np.int64)
        resolved_pair = np.zeros(len(firsts), bool)
        for number, each in enumerate(pairs):
            side = self._side(each, addresses.get(number))
            if side is not None:
                local_of_pair[number] = len(locals_)
                resolved_pair[number] = bool(side.pod_uid)
                locals_.append(side)
        local: Words = local_of_pair[pair]
        in_pod = local >= 0
        stays_inside = self.stays_inside(keys["remote"], stats["local"], keys["direction"], keys["port"])
        kept = in_pod & ~stays_inside
        unreported = Unreported(
            unresolved=int(events[kept & ~resolved_pair[pair]].sum()),
            not_a_pod=int(events[~in_pod].sum()),
            mesh_loopback=int(events[in_pod & stays_inside].sum()),
        )
        if not kept.all():
            rows = np.flatnonzero(kept)  # np.take copies whole records, 20 times quicker than an index
            keys, stats, local = np.take(keys, rows), np.take(stats, rows), np.take(local, rows)
        columns = FlowColumns(
            locals=tuple(locals_),
            local=local,
            outcome=OUTCOME_OF_ERROR[np.minimum(keys["error"], len(OUTCOME_OF_ERROR) - 1)],
            **{name: keys[name] for name in _KEYS},
            **{name: stats[name] for name in _STATS},
        )
        return Attributed(columns=columns, unreported=unreported)

    def begin_interval(self) -> None:
        """Ask again: what could not be named may have got its name."""
        self._sides.clear()

    def _is_settled(self, pair: tuple[int, int]) -> bool:
        """Nothing that another flow of this interval tells would change what is known of it."""
        if pair not in self._sides:
            return False
        side = self._sides[pair]
        return side is None or bool(side.address)

    def _side(self, pair: tuple[int, int], address: bytes | None) -> Local | None:
        if pair in self._sides and (address is None or self._is_settled(pair)):
            return self._sides[pair]
        side = self._sides[pair] = self.resolve(*pair, address)
        return side

    def resolve(self, cgroup_id: int, netns_cookie: int, address: bytes | None = None) -> Local | None:
        """None: not a pod's. A Local without a pod UID: not known."""
        where = self._container(cgroup_id)
        if isinstance(where, _NotAPod):
            return None
        local = Local(
            cgroup_id=cgroup_id,
            netns_cookie=netns_cookie,
            host_network=self.is_host_network(netns_cookie),
            address=self._address(cgroup_id, netns_cookie, address),
        )
        if where is None:
            pod_uid = self._pod_of_cookie.get(netns_cookie, "")
            where = ContainerPath(pod_uid=pod_uid, container_id="")
        elif netns_cookie and not local.host_network:
            _remember(self._pod_of_cookie, netns_cookie, where.pod_uid)
        if not where.pod_uid:
            return local
        names = self._logs.names(where.pod_uid)
        return replace(
            local,
            pod_uid=where.pod_uid,
            container_id=where.container_id,
            namespace=names.namespace if names else "",
            pod_name=names.pod if names else "",
            container_name=self._logs.container_name(where.pod_uid, where.container_id),
        )

    def _container(self, cgroup_id: int) -> ContainerPath | _NotAPod | None:
        if not cgroup_id:
            return None
        path = self._cgroups.find(cgroup_id)
        if path is None:
            return None
        return self._pod_of(path) or _NOT_A_POD

    def _pod_of(self, path: str) -> ContainerPath | None:
        """A pod of this node's kubelet: nodes that share a kernel each have a cgroup of their own."""
        return parse(path) if path.startswith(self._pods_below) else None

    def _address(self, cgroup_id: int, netns_cookie: int, seen: bytes | None) -> bytes:
        """A wildcard UDP socket does not tell its address; an earlier flow of the same pod did."""
        pair = (cgroup_id, netns_cookie)
        if seen is not None:
            _remember(self._addresses, pair, seen)
            return seen
        return self._addresses.get(pair, b"")

    def stays_inside(self, remote: Words, own: Words, direction: Words, port: Words) -> Words:
        """Hops that never leave the pod: loopback, its own address, a mesh proxy's redirect ports."""
        inside: Words = _is_loopback(remote) | ((remote[:, 0] == own[:, 0]) & (remote[:, 1] == own[:, 1]))
        if len(self._mesh_ports):
            inside |= (direction == Direction.INGRESS) & np.isin(port, self._mesh_ports)
        return inside


def _is_loopback(address: Words) -> Words:
    high, low = address[:, 0], address[:, 1]
    v4 = ((low & _LOW_32) == _V4_MAPPED) & (((low >> np.uint64(32)) & np.uint64(0xFF)) == _V4_LOOPBACK_NET)
    loopback: Words = (high == 0) & (v4 | (low == _V6_LOOPBACK) | (low == _V6_MESH))
    return loopback


def _own_addresses(pair: Words, pairs: int, own: Words) -> dict[int, bytes]:
    """One address each, IPv4 before IPv6; none where every socket was unbound or on loopback."""
    high, low = own[:, 0], own[:, 1]
    unset = (high == 0) & ((low == 0) | (low == _V4_MAPPED))
    usable = ~unset & ~_is_loopback(own)
    chosen = np.full(pairs, -1, np.int64)
    v4 = (high == 0) & ((low & _LOW_32) == _V4_MAPPED)
    for wanted in (usable & ~v4, usable & v4):  # the later assignment wins
        rows = np.flatnonzero(wanted)
        chosen[pair[rows]] = rows
    return {int(number): own[chosen[number]].tobytes() for number in np.flatnonzero(chosen >= 0)}


def _remember(known: dict[Key, Value], key: Key, value: Value) -> None:
    if key not in known:
        while len(known) >= _REMEMBERED:
            del known[next(iter(known))]
    known[key] = value
