"""Whose flow it is, from ids alone: cgroup first, namespace cookie second, never an address, never a guess."""

from types import SimpleNamespace

import numpy as np

from agent.flow import Direction, FlowKey, FlowStats, address_bytes
from agent.identity.resolver import Attributed, FirstSight, Resolver
from agent.kernel.maps import Drained, Instant

UID = "8a3f6c1e-1b2c-4d5e-8f90-11223344556{}"
HOST_INODE, HOST_COOKIE, POD_COOKIE = 4026531840, 1, 77
NOW = Instant(boot_ns=0, wall_ns=0)


class Paths:
    def __init__(self) -> None:
        self.paths = {1: "/", 2: "/system.slice/sshd.service"}

    def find(self, cgroup_id: int, *, pid: int = 0) -> str | None:
        del pid
        return self.paths.get(cgroup_id)

    def learn(self, cgroup_id: int, path: str) -> None:
        self.paths[cgroup_id] = path


class Logs:
    def names(self, pod_uid: str) -> SimpleNamespace:
        return SimpleNamespace(namespace="shop", pod=f"pod-{pod_uid[-1]}")

    def container_name(self, pod_uid: str, container_id: str) -> str:
        del pod_uid
        return "main" if container_id else ""


def resolver(kubelet_cgroup: str = "/") -> Resolver:
    made = Resolver(
        cgroups=Paths(),  # type: ignore[arg-type]
        logs=Logs(),  # type: ignore[arg-type]
        host_netns_inode=HOST_INODE,
        mesh_ports=(15001, 15006),
        kubelet_cgroup=kubelet_cgroup,
    )
    made.cgroup_created(30, f"/kubepods/pod{UID.format(3)}/{'3' * 64}")
    made.cgroup_created(40, f"/kubepods/pod{UID.format(4)}/{'4' * 64}")
    return made


def flow(
    cgroup_id: int,
    cookie: int,
    *,
    remote: str = "10.0.0.9",
    own: str = "10.0.0.3",
    port: int = 80,
    direction: Direction = Direction.EGRESS,
    count: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    key, stats = np.zeros(1, FlowKey), np.zeros(1, FlowStats)
    key["cgroup_id"], key["netns_cookie"], key["port"], key["direction"] = cgroup_id, cookie, port, direction
    key["protocol"], key["confidence"], stats["count"] = 6, 1, count
    key["remote"] = np.frombuffer(address_bytes(remote), "<u8")
    stats["local"] = np.frombuffer(address_bytes(own), "<u8")
    return key, stats


def attribute(resolver: Resolver, *flows: tuple[np.ndarray, np.ndarray]) -> Attributed:
    keys, stats = (np.concatenate(parts) for parts in zip(*flows, strict=True))
    return resolver.attribute(Drained(keys=keys, stats=stats, start=NOW, end=NOW))


def pods(attributed: Attributed) -> list[str]:
    columns = attributed.columns
    return [columns.locals[number].pod_name for number in columns.local]


def test_cgroup_names_the_pod() -> None:
    attributed = attribute(resolver(), flow(30, POD_COOKIE), flow(40, 78))
    assert pods(attributed) == ["pod-3", "pod-4"]
    side = attributed.columns.locals[0]
    assert (side.pod_uid, side.container_id, side.container_name) == (UID.format(3), "3" * 64, "main")
    assert side.address == address_bytes("10.0.0.3")


def test_a_pod_of_another_kubelet_on_this_kernel_is_not_ours() -> None:
    made = resolver("/node-1")
    made.cgroup_created(50, f"/node-1/kubepods/pod{UID.format(5)}/{'5' * 64}")
    made.cgroup_created(60, f"/node-10/kubepods/pod{UID.format(6)}/{'6' * 64}")
    made.saw(FirstSight(pid=0, cgroup_id=60, netns_cookie=78, netns_inode=5))
    attributed = attribute(made, flow(30, POD_COOKIE), flow(50, POD_COOKIE), flow(60, 78, count=3))
    assert pods(attributed) == ["pod-5"]
    assert attributed.unreported.not_a_pod == 4


def test_cookie_names_it_where_the_cgroup_is_unknown() -> None:
    """A softirq without an owner: the namespace is the pod's, and only the container stays open."""
    made = resolver()
    made.saw(FirstSight(pid=0, cgroup_id=30, netns_cookie=POD_COOKIE, netns_inode=5))
    attributed = attribute(made, flow(999, POD_COOKIE))
    assert pods(attributed) == ["pod-3"]
    assert attributed.columns.locals[0].container_id == ""
    assert attributed.unreported.unresolved == 0


def test_the_nodes_own_namespace_names_nobody() -> None:
    """hostNetwork pods share it: the cookie of one must not name the flows of another."""
    made = resolver()
    made.saw(FirstSight(pid=0, cgroup_id=30, netns_cookie=HOST_COOKIE, netns_inode=HOST_INODE))
    attributed = attribute(made, flow(30, HOST_COOKIE), flow(40, HOST_COOKIE), flow(999, HOST_COOKIE))
    assert pods(attributed) == ["pod-3", "pod-4", ""]
    assert all(side.host_network for side in attributed.columns.locals)
    assert attributed.unreported.unresolved == 1


def test_what_nothing_names_is_sent_as_unresolved_with_what_is_known() -> None:
    attributed = attribute(resolver(), flow(999, 888, count=5))
    (side,) = attributed.columns.locals
    assert (side.pod_uid, side.cgroup_id, side.netns_cookie) == ("", 999, 888)
    assert side.address == address_bytes("10.0.0.3")
    assert attributed.unreported.unresolved == 5


def test_processes_outside_pods_are_counted_in_events_and_left_out() -> None:
    attributed = attribute(resolver(), flow(2, HOST_COOKIE, count=7), flow(1, HOST_COOKIE, count=0))
    assert len(attributed.columns) == 0
    assert attributed.unreported.not_a_pod == 8


def test_mesh_and_loopback_hops_are_left_out() -> None:
    """Row 33 of the pitfalls."""
    inside = [
        flow(30, POD_COOKIE, remote="127.0.0.1"),
        flow(30, POD_COOKIE, remote="127.0.0.6", direction=Direction.INGRESS, port=8080),
        flow(30, POD_COOKIE, remote="::1"),
        flow(30, POD_COOKIE, remote="::6", direction=Direction.INGRESS, port=8080),
        flow(30, POD_COOKIE, remote="10.0.0.3", own="10.0.0.3"),
        flow(30, POD_COOKIE, direction=Direction.INGRESS, port=15006),
    ]
    outside = [
        flow(30, POD_COOKIE, direction=Direction.EGRESS, port=15006),
        flow(30, POD_COOKIE, direction=Direction.INGRESS, port=15008),  # HBONE: a port that policies must allow
        flow(30, POD_COOKIE, remote="128.0.0.1"),
    ]
    attributed = attribute(resolver(), *inside, *outside)
    assert len(attributed.columns) == len(outside)
    assert attributed.unreported.mesh_loopback == len(inside)


def test_wildcard_sockets_take_the_address_that_others_told() -> None:
    made = resolver()
    attributed = attribute(made, flow(30, POD_COOKIE, own="0.0.0.0"), flow(30, POD_COOKIE, own="10.0.0.3", port=81))
    assert [side.address for side in attributed.columns.locals] == [address_bytes("10.0.0.3")]
    later = attribute(made, flow(30, POD_COOKIE, own="0.0.0.0"))
    assert later.columns.locals[0].address == address_bytes("10.0.0.3")
    unbound = attribute(made, flow(40, 78, own="0.0.0.0"))
    assert unbound.columns.locals[0].address == b""
