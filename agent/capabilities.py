"""Which Linux capabilities the agent needs, what for, and which of them this process lacks.

Enters: /proc/self/status. Leaves: the missing ones, each with what it costs. Sources: capabilities(7), and what the
kernel asks for in bpf_capable() and perfmon_capable(), which CAP_SYS_ADMIN satisfies, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYS_ADMIN: Final = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    name: str
    bit: int
    without: str  # a sentence: what does not work
    required: bool = True
    contained: bool = False  # in CAP_SYS_ADMIN


NEEDED: Final = (
    Capability(
        name="CAP_BPF", bit=39, without="the kernel makes no BPF map and loads no program for it", contained=True
    ),
    Capability(
        name="CAP_PERFMON",
        bit=38,
        without="programs cannot be attached to tracepoints and kprobes, nor read the kernel's memory",
        contained=True,
    ),
    Capability(name="CAP_NET_ADMIN", bit=12, without="the cgroup hooks that see UDP are not loaded"),
    Capability(
        name="CAP_SYS_PTRACE",
        bit=19,
        without="sockets of other users' processes stay hidden: connections that were open before the agent came, and "
        "who listens, are not seen",
        required=False,
    ),
)


def effective(status: Path = Path("/proc/self/status")) -> int:
    """The set as a number, bit by bit."""
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def missing(held: int) -> tuple[Capability, ...]:
    """Those of NEEDED that `held` has neither by name nor by CAP_SYS_ADMIN."""
    admin = bool(held >> SYS_ADMIN & 1)
    return tuple(each for each in NEEDED if not held >> each.bit & 1 and not (each.contained and admin))


def complaint(lacking: Capability) -> str:
    return (
        f"{lacking.name} is missing: {lacking.without}; add it to the container's capabilities (the chart does), or "
        "run the agent privileged"
    )
