"""How old an open connection can be, as /proc tells it."""

import os
import time
from pathlib import Path

import pytest

from agent.identity.cgroups import CgroupPaths, Hierarchy
from agent.identity.open import OpenSockets
from agent.identity.podlogs import PodLogs
from agent.identity.resolver import Resolver

GROUP = "kubepods/pod8a3f6c1e-1b2c-4d5e-8f90-112233445566/" + "c" * 64
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
CONNECTED = (
    "   0: 0100000A:9C40 0200000A:1538 01 00000000:00000000 00:00000000 00000000     0        0 77 1 0 20 4 30 10 -1\n"
)


def age_seconds(tmp_path: Path, starts: dict[int, int | None]) -> float:
    """Of the one connection of a pod whose processes were started so long ago; None = it ends before it is read."""
    proc, groups = tmp_path / "proc", tmp_path / "cg"
    (groups / GROUP).mkdir(parents=True)
    (groups / GROUP / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in starts))
    uptime_seconds = time.clock_gettime(time.CLOCK_BOOTTIME)
    for pid, seconds in starts.items():
        (proc / str(pid) / "net").mkdir(parents=True)
        (proc / str(pid) / "net" / "tcp").write_text(HEADER + CONNECTED)
        for name in ("tcp6", "udp", "udp6"):
            (proc / str(pid) / "net" / name).write_text(HEADER)
        (proc / str(pid) / "ns").mkdir()
        (proc / str(pid) / "fd").mkdir()
        (proc / str(pid) / "comm").write_text("web\n")
        (proc / str(pid) / "ns" / "net").symlink_to("/proc/self/ns/net")
        if seconds is not None:
            started = int((uptime_seconds - seconds) * TICKS_A_SECOND)
            (proc / str(pid) / "stat").write_text(f"{pid} (a ) b) S " + "0 " * 18 + f"{started} 0 0\n")
    paths = CgroupPaths(Hierarchy(root=groups, hierarchy_id=0, subsystem=None, v2_root=groups), proc=proc)
    resolver = Resolver(cgroups=paths, logs=PodLogs(tmp_path / "logs"), host_netns_inode=1, mesh_ports=())
    columns = OpenSockets(proc=proc, cgroups=paths, resolver=resolver).look().columns
    assert len(columns) == 1
    return float(columns.longest_ns[0]) / 1e9


@pytest.mark.parametrize(
    ("starts", "seconds"),
    [
        ({11: 10}, 10),
        ({11: 10, 12: 40, 13: 5}, 40),
        ({11: None, 12: 40, 13: 5}, 40),
        ({11: 40, 12: None}, 40),
        ({11: None}, None),
    ],
    ids=["one process", "the oldest tells", "one has ended", "another has ended", "nobody tells: since boot"],
)
def test_a_connection_is_no_older_than_its_pod(
    tmp_path: Path, starts: dict[int, int | None], seconds: int | None
) -> None:
    most = time.clock_gettime(time.CLOCK_BOOTTIME) if seconds is None else seconds
    assert age_seconds(tmp_path, starts) == pytest.approx(most, abs=3)
