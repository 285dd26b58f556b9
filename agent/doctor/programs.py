"""Does this kernel take the eBPF programs, and do they count right?

Enters: the configuration. Leaves: findings of a trial: load, attach, self-test, leave. The agent that runs meanwhile is
not disturbed: the trial has maps of its own, which are not pinned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.doctor.finding import Finding, ill, poor, well
from agent.errors import AgentError, KernelError
from agent.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import AgentConfig


def check_programs(config: AgentConfig) -> Iterator[Finding]:
    try:
        node = Node.open(config, pinned=False)
    except KernelError as exc:
        yield ill(
            "programs",
            str(exc),
            "if capabilities and BTF are well above: seccomp or an LSM may forbid bpf(); try agent.privileged=true",
        )
        return
    except AgentError as exc:
        yield ill("programs", str(exc), "mount what the chart mounts; see the findings above")
        return
    try:
        for sentence in node.describe():
            about, colon, rest = sentence.partition(": ")
            if colon and about == "without" and "is missing" not in rest:
                yield poor("programs", f"without {rest}", "nothing to do: docs/install.md says what is not seen then")
            elif about not in {"refused", "without"}:
                yield well("programs", sentence)
    finally:
        node.close(orderly=True)
