"""Is this kernel new enough, and does it describe itself?

Enters: uname's release, the folder of its type information. Leaves: findings. 5.8 is the first kernel with CAP_BPF and
with ring buffers; 6.3 the first with the tracepoint that counts connected UDP.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from agent.doctor.finding import Finding, ill, poor, well

if TYPE_CHECKING:
    from pathlib import Path

OLDEST: Final = (5, 8)
COUNTS_CONNECTED_UDP: Final = (6, 3)
MAINLINE_PARANOID: Final = 2


def check_kernel(release: str) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST:
        return ill("kernel", f"{release} is older than 5.8", "use a node image with kernel 5.8 or newer")
    if version < COUNTS_CONNECTED_UDP:
        return poor(
            "kernel",
            f"{release}; without kprobes it shows connected UDP, but does not count it",
            "kprobes make up for it where the kernel is not locked down; else 6.3 or newer",
        )
    return well("kernel", release)


def check_btf(file: Path) -> Finding:
    try:
        size = file.stat().st_size
    except OSError as exc:
        return ill(
            "BTF",
            f"{file}: {exc.strerror or exc}",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (the large distributions' are), and mount /sys",
        )
    return well("BTF", f"{file}, {size // 1024} KiB")


def check_lockdown(file: Path) -> Finding:
    """Lockdown takes kprobes and reading kernel memory away, whatever the capabilities say."""
    try:
        chosen = re.search(r"\[(\w+)\]", file.read_text(encoding="ascii"))
    except OSError:
        return well("lockdown", "this kernel has none, or does not show it")
    mode = chosen[1] if chosen else "none"
    if mode == "confidentiality":
        return ill(
            "lockdown",
            "confidentiality: no program may read the kernel's memory",
            "boot with lockdown=integrity or none",
        )
    return well("lockdown", mode)


def check_perf_events(file: Path) -> Finding:
    """Debian's kernels know a level 3, at which kprobes ask for more than CAP_PERFMON (mainline's highest is 2)."""
    try:
        level = int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return well("perf events", "this kernel shows no limit")
    if level > MAINLINE_PARANOID:
        return poor(
            "perf events",
            f"kernel.perf_event_paranoid is {level}: kprobes are refused to an agent with capabilities alone",
            "sysctl -w kernel.perf_event_paranoid=2 gives them; without them it takes tracepoints and cgroup hooks",
        )
    return well("perf events", f"kernel.perf_event_paranoid is {level}")
