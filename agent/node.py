"""This node's kernel and its pods, opened together.

Enters: AgentConfig. Leaves: `Node`: an attached, self-tested Capture and the Resolver that names what it counts.
Invariant: a Node that exists has seen its own loopback connection with every number right.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from agent import metrics
from agent.identity.cgroups import CgroupPaths, Hierarchy, find_hierarchy
from agent.identity.podlogs import PodLogs
from agent.identity.resolver import Resolver
from agent.kernel.backends import BackendName
from agent.kernel.capture import Capture, CaptureRequest, open_capture
from agent.kernel.headers import CgroupSource
from agent.kernel.selftest import self_test

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import AgentConfig
    from agent.kernel.maps import Drained

log = logging.getLogger(__name__)


class Node:
    """Owns the kernel side."""

    def __init__(
        self, *, config: AgentConfig, hierarchy: Hierarchy, capture: Capture, leftovers: tuple[Drained, ...]
    ) -> None:
        self._config = config
        self._hierarchy = hierarchy
        self.capture = capture
        self.leftovers = leftovers
        self.cgroups = CgroupPaths(hierarchy, proc=config.proc_root)
        self.cgroups.walk()
        self.resolver = Resolver(
            cgroups=self.cgroups,
            logs=PodLogs(config.pod_logs),
            host_netns_inode=_host_netns_inode(config.proc_root),
            mesh_ports=config.mesh_ports,
        )

    @classmethod
    def open(cls, config: AgentConfig, *, pinned: bool) -> Node:
        hierarchy = find_hierarchy(config.cgroup_root, proc=config.proc_root)
        capture = open_capture(
            CaptureRequest(
                backend=BackendName(config.backend),
                cgroups=CgroupSource(hierarchy_id=hierarchy.hierarchy_id, subsystem=hierarchy.subsystem),
                cgroup_v2_root=str(hierarchy.v2_root) if hierarchy.v2_root else None,
                flow_entries=config.flow_entries,
            )
        )
        try:
            seen = self_test(capture)
        except BaseException:
            capture.close()
            raise
        return cls(config=config, hierarchy=hierarchy, capture=capture, leftovers=(seen,))

    def describe(self) -> list[str]:
        """What was chosen, and why not another."""
        capture, hierarchy = self.capture, self._hierarchy
        version = "cgroup v2" if hierarchy.subsystem is None else f"cgroup v1 ({hierarchy.subsystem})"
        return [
            f"backend {capture.backend.name}: attached, self-test passed, room for {capture.flow_entries} flows",
            *(f"refused: {sentence}" for sentence in capture.refused),
            *(f"without: {sentence}" for sentence in capture.skipped),
            f"pods are told apart by {version} at {hierarchy.root}, named by {self._config.pod_logs}",
        ]

    def publish(self) -> None:
        """Numbers that are read when somebody asks."""
        metrics.BACKEND.labels(self.capture.backend.name).set(1)
        for name, program in self.capture.programs().items():
            metrics.PROGRAM_RUNS.labels(name).set(program.runs)
            metrics.PROGRAM_NS.labels(name).set(program.run_time_ns)

    def close(self) -> None:
        self.capture.close()


def _host_netns_inode(proc: Path) -> int:
    """The node's own network namespace: init's, or, where that may not be read, the agent's (which runs hostNetwork)."""
    for process in ("1", "self"):
        with suppress(OSError):
            return (proc / process / "ns/net").stat().st_ino
    return 0
