"""`wattle-agent --doctor`: everything that can keep an agent from its work, looked at one after the other.

Enters: AgentConfig. Leaves: findings, worst news last: the trial of the programs names what the others explain.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import kernel_release
from agent.doctor.clock import check_clock
from agent.doctor.door import check_door
from agent.doctor.finding import Finding, State, lines
from agent.doctor.kernel import check_btf, check_kernel, check_lockdown, check_perf_events
from agent.doctor.programs import check_programs
from agent.doctor.rights import check_capabilities, check_places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import AgentConfig

__all__ = ["State", "examine", "lines"]


def examine(config: AgentConfig) -> Iterator[Finding]:
    yield check_kernel(kernel_release())
    yield check_btf(Path("/sys/kernel/btf/vmlinux"))
    yield check_lockdown(Path("/sys/kernel/security/lockdown"))
    yield check_perf_events(config.proc_root / "sys/kernel/perf_event_paranoid")
    yield from check_capabilities(config.proc_root / "self/status")
    yield from check_places(config)
    yield check_clock()
    yield from check_door(config)
    yield from check_programs(config)
