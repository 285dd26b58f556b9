"""Hierarchies, log folders, sockets, ranges: what the agent reads off a node's file systems."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.flow import Confidence, Direction, address_text
from agent.identity.cgroups import CgroupPaths, find_hierarchy
from agent.identity.cidrs import CidrHint, find_cidrs
from agent.identity.podlogs import PodLogs, PodNames
from agent.identity.sockets import ESTABLISHED, LISTEN, SocketLine, parse_sockets, tcp_direction, udp_direction
from agent.kernel.pins import in_bpf_file_system

UID = "8a3f6c1e-1b2c-4d5e-8f90-112233445566"
CONTAINER = "c" * 64


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroups").write_text("#subsys_name\thierarchy\tnum_cgroups\tenabled\npids\t8\t1\t1\nmemory\t4\t1\t1\n")
    return proc


def v2(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "cgroup.controllers").touch()


def test_cgroup_v2_is_taken_where_it_is_all_there_is(tmp_path: Path, proc: Path) -> None:
    v2(tmp_path / "cg")
    found = find_hierarchy(tmp_path / "cg", proc=proc)
    assert (found.root, found.subsystem, found.hierarchy_id) == (tmp_path / "cg", None, 0)


@pytest.mark.parametrize(
    ("pods_in", "root", "subsystem", "hierarchy_id"),
    [
        pytest.param(("unified/kubepods", "pids/kubepods"), "unified", None, 0, id="pods in both: v2"),
        pytest.param(("pids/kubepods.slice",), "pids", "pids", 8, id="systemd's hybrid mode: v1"),
        pytest.param(("memory/kubepods",), "memory", "memory", 4, id="only in memory"),
        pytest.param(("pids/kubelet.slice/kubelet-kubepods.slice",), "pids", "pids", 8, id="kind"),
        pytest.param((), "unified", None, 0, id="no pod yet: v2"),
    ],
)
def test_hybrid_takes_the_hierarchy_that_holds_pods(
    tmp_path: Path, proc: Path, pods_in: tuple[str, ...], root: str, subsystem: str | None, hierarchy_id: int
) -> None:
    mount = tmp_path / "cg"
    v2(mount / "unified")
    for name in ("pids", "memory"):
        (mount / name).mkdir(parents=True)
    for pods in pods_in:
        (mount / pods).mkdir(parents=True)
    found = find_hierarchy(mount, proc=proc)
    assert (found.root, found.subsystem, found.hierarchy_id) == (mount / root, subsystem, hierarchy_id)
    assert found.v2_root == mount / "unified"


def test_no_cgroup_file_system_is_said_with_the_way_out(tmp_path: Path, proc: Path) -> None:
    with pytest.raises(ConfigError, match="set --cgroup-root"):
        find_hierarchy(tmp_path, proc=proc)


def test_path_of_a_group_is_found_by_its_inode_and_outlives_it(tmp_path: Path, proc: Path) -> None:
    v2(tmp_path / "cg")
    group = tmp_path / "cg" / "kubepods" / f"pod{UID}" / CONTAINER
    group.mkdir(parents=True)
    inode = group.stat().st_ino
    paths = CgroupPaths(find_hierarchy(tmp_path / "cg", proc=proc), proc=proc)
    assert paths.find(inode) == f"/kubepods/pod{UID}/{CONTAINER}"
    group.rmdir()
    assert paths.find(inode) == f"/kubepods/pod{UID}/{CONTAINER}"


def test_unknown_groups_cost_one_walk_a_second(tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v2(tmp_path / "cg")
    now = [100.0]
    paths = CgroupPaths(find_hierarchy(tmp_path / "cg", proc=proc), proc=proc, monotonic_seconds=lambda: now[0])
    walks: list[float] = []
    monkeypatch.setattr(CgroupPaths, "walk", lambda _self: walks.append(now[0]))
    for step in range(30):
        now[0] = 100 + step / 10
        assert paths.find(12345) is None
    assert len(walks) == 3


def test_a_process_tells_its_group_only_if_the_inode_agrees(tmp_path: Path, proc: Path) -> None:
    """A pid that was reused must not name another pod."""
    v2(tmp_path / "cg")
    (tmp_path / "cg/kubepods").mkdir()
    (proc / "77").mkdir()
    (proc / "77/cgroup").write_text("0::/kubepods\n")
    paths = CgroupPaths(find_hierarchy(tmp_path / "cg", proc=proc), proc=proc)
    assert paths.find((tmp_path / "cg/kubepods").stat().st_ino, pid=77) == "/kubepods"
    assert paths.find(987654321, pid=77) is None


def test_names_from_log_folders(tmp_path: Path) -> None:
    logs = tmp_path / "pods"
    (logs / f"shop_web-0_{UID}" / "main").mkdir(parents=True)
    (logs / "not a pod").mkdir()
    (logs / f"Shop_web_{UID[:-1]}7").mkdir()
    found = PodLogs(logs)
    assert found.names(UID) == PodNames(namespace="shop", pod="web-0")
    assert found.names("ffffffff-0000-4000-8000-000000000000") is None
    assert found.container_name(UID, CONTAINER) == "main"


def test_container_of_several_is_told_by_its_link_or_not_at_all(tmp_path: Path) -> None:
    logs = tmp_path / "pods"
    for container in ("main", "sidecar"):
        (logs / f"shop_web-0_{UID}" / container).mkdir(parents=True)
    found = PodLogs(logs)
    assert found.container_name(UID, CONTAINER) == ""
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / f"web-0_shop_sidecar-{CONTAINER}.log").symlink_to("/nowhere")
    assert found.container_name(UID, CONTAINER) == "sidecar"


def test_names_outlive_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / f"shop_job_{UID}"
    folder.mkdir()
    found = PodLogs(tmp_path)
    assert found.names(UID) is not None
    folder.rmdir()
    assert found.names(UID) is not None


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0201000A:A000 0300000A:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: garbage
"""
TCP6 = """  sl  local_address  remote_address  st tx rx tr tm uid timeout inode
   0: 0000000000000000FFFF00000100007F:0050 B80D0120000000000000000001000000:C000 01 00:00 00:0 0 0 0 99 1
"""


def test_socket_tables() -> None:
    listening, established = parse_sockets(TCP)
    assert (address_text(listening.local), listening.local_port, listening.state) == ("127.0.0.1", 8080, LISTEN)
    assert (address_text(established.remote), established.remote_port) == ("10.0.0.3", 8080)
    assert (established.state, established.inode) == (ESTABLISHED, 4712)
    (v6,) = parse_sockets(TCP6)
    assert (address_text(v6.local), address_text(v6.remote), v6.remote_port) == ("127.0.0.1", "2001:db8::1", 49152)


@given(st.text(max_size=400))
def test_arbitrary_socket_tables_are_left_out(text: str) -> None:
    for line in parse_sockets(f"header\n{text}"):
        assert len(line.local) == len(line.remote) == 16


def line(local_port: int, remote_port: int) -> SocketLine:
    return SocketLine(
        local=bytes(16), local_port=local_port, remote=bytes(16), remote_port=remote_port, state=ESTABLISHED, inode=1
    )


def test_direction_of_an_open_connection_comes_from_who_listens() -> None:
    """Row 1 of the pitfalls: never from the port's number alone, and never with confidence."""
    assert tcp_direction(line(40_000, 50_000), {40_000}) == (Direction.INGRESS, Confidence.HIGH)
    assert tcp_direction(line(50_000, 5432), set()) == (Direction.EGRESS, Confidence.HIGH)
    assert tcp_direction(line(8080, 50_000), set()) == (Direction.INGRESS, Confidence.LOW)
    assert tcp_direction(line(50_000, 40_000), set())[1] is Confidence.LOW
    assert udp_direction(line(443, 50_000), {443}) == (Direction.INGRESS, Confidence.HIGH)
    assert udp_direction(line(50_000, 53), set()) == (Direction.EGRESS, Confidence.HIGH)


def test_ranges_are_read_from_control_plane_arguments_alone(proc: Path) -> None:
    arguments = {
        "1": ["/usr/bin/kube-apiserver", "--service-cluster-ip-range=10.96.0.0/12", "--secret=hidden"],
        "2": ["kube-controller-manager", "--cluster-cidr", "10.244.0.0/16,fd00::/48"],
        "3": ["/bin/other", "--cluster-cidr=1.2.3.0/24"],
    }
    for pid, words in arguments.items():
        (proc / pid).mkdir()
        (proc / pid / "cmdline").write_bytes(b"\0".join(word.encode() for word in words) + b"\0")
    assert find_cidrs(proc, ("kube-apiserver", "kube-controller-manager")) == [
        CidrHint(process="kube-apiserver", flag="--service-cluster-ip-range", value="10.96.0.0/12"),
        CidrHint(process="kube-controller-manager", flag="--cluster-cidr", value="10.244.0.0/16,fd00::/48"),
    ]


def test_bpf_file_system_is_told_by_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:1 / / rw - ext4 a rw\n"
        "2 1 0:2 / /sys/fs/bpf rw - bpf bpf rw\n"
        "3 2 0:3 / /sys/fs/bpf/covered rw - tmpfs t rw\n"
    )
    assert in_bpf_file_system(Path("/sys/fs/bpf/wattle"), mounts)
    assert not in_bpf_file_system(Path("/sys/fs/bpf/covered/wattle"), mounts)
    assert not in_bpf_file_system(Path("/sys/fs/bpfx"), mounts)
