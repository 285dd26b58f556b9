"""What this process may do: capabilities, and the places that the chart mounts.

Enters: /proc/self/status, the configuration's paths. Leaves: findings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.capabilities import complaint, effective, missing
from agent.doctor.finding import Finding, ill, poor, well

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import AgentConfig

MOUNTS = Path("/proc/self/mounts")


def check_capabilities(status: Path) -> Iterator[Finding]:
    lacking = missing(effective(status))
    for each in lacking:
        about, _, way_out = complaint(each).partition("; ")
        yield (ill if each.required else poor)("capabilities", about, way_out)
    if not lacking:
        yield well("capabilities", "all that are needed")


def check_places(config: AgentConfig, mounts: Path = MOUNTS) -> Iterator[Finding]:
    yield _readable("control groups", config.cgroup_root, "mount the node's /sys/fs/cgroup (agent.hostPaths.cgroup)")
    yield _readable(
        "pod logs",
        config.pod_logs,
        "mount the kubelet's /var/log/pods (agent.hostPaths.podLogs): pods have no names without it",
    )
    kinds = _kinds(mounts)
    if _kind_of(config.pin_directory, kinds) != "bpf":
        yield poor(
            "bpffs",
            f"{config.pin_directory} is on no bpf file system: what a killed agent had counted is lost",
            "mount the node's /sys/fs/bpf (agent.hostPaths.bpf)",
        )
    else:
        yield well("bpffs", str(config.pin_directory))
    if config.spool_directory is None:
        yield poor("spool", "in memory alone: lost with the process", "set spool_directory (agent.spool.medium)")
    elif not os.access(config.spool_directory, os.W_OK):
        yield ill("spool", f"{config.spool_directory} cannot be written", "give it to this user, or choose another")
    else:
        yield well("spool", str(config.spool_directory))


def _readable(subject: str, folder: Path, way_out: str) -> Finding:
    try:
        count = sum(1 for _ in folder.iterdir())
    except OSError as exc:
        return ill(subject, f"{folder}: {exc.strerror}", way_out)
    if not count:
        return ill(subject, f"{folder} is empty", way_out)
    return well(subject, f"{folder}, {count} entries")


def _kinds(mounts: Path) -> dict[str, str]:
    return {line.split()[1]: line.split()[2] for line in mounts.read_text(encoding="utf-8").splitlines()}


def _kind_of(path: Path, kinds: dict[str, str]) -> str:
    for above in (path, *path.parents):
        if str(above) in kinds:
            return kinds[str(above)]
    return ""
