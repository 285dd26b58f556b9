"""This node's kernel and its pods, opened together.

Enters: AgentConfig. Leaves: `Node`: an attached, self-tested Capture and the Resolver that names what it counts.
Invariant: a Node that exists has seen its own loopback connection with every number right.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from agent import capabilities, metrics
from agent.identity.cgroups import CgroupPaths, Hierarchy, find_hierarchy
from agent.identity.open import OpenSockets
from agent.identity.podlogs import PodLogs
from agent.identity.resolver import Resolver
from agent.kernel.backends import BackendName
from agent.kernel.capture import Capture, CaptureRequest, ListenerEntry, open_capture
from agent.kernel.headers import CgroupSource
from agent.kernel.pins import Pins, in_bpf_file_system
from agent.kernel.selftest import self_test

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import AgentConfig
    from agent.flow import FlowColumns
    from agent.pipeline import Pipeline

log = logging.getLogger(__name__)


class Node:
    """Owns the kernel side."""

    def __init__(self, *, config: AgentConfig, hierarchy: Hierarchy, capture: Capture, pins: Pins | None) -> None:
        self._config = config
        self._hierarchy = hierarchy
        self._pins = pins
        self.capture = capture
        self.cgroups = CgroupPaths(hierarchy, proc=config.proc_root)
        self.cgroups.walk()
        self.resolver = Resolver(
            cgroups=self.cgroups,
            logs=PodLogs(config.pod_logs),
            host_netns_inode=_host_netns_inode(config.proc_root),
            mesh_ports=config.mesh_ports,
            kubelet_cgroup=config.kubelet_cgroup,
        )
        self._sockets = OpenSockets(proc=config.proc_root, cgroups=self.cgroups, resolver=self.resolver)
        metrics.PINNED.set(pins is not None)
        metrics.TAKEN_OVER.set(capture.taken_over)
        metrics.BACKEND.labels(capture.backend.name).set(1)
        for sentence in capture.refused:
            metrics.BACKEND_REFUSED.labels(sentence.split(" ")[2]).set(1)
        for sentence in capture.skipped:
            metrics.HOOK_SKIPPED.labels(sentence.split(":")[0]).set(1)

    @classmethod
    def open(cls, config: AgentConfig, *, pinned: bool = True) -> Node:
        hierarchy = find_hierarchy(config.cgroup_root, proc=config.proc_root)
        pins = _open_pins(config.pin_directory) if pinned else None
        request = CaptureRequest(
            backend=BackendName(config.backend),
            cgroups=CgroupSource(hierarchy_id=hierarchy.hierarchy_id, subsystem=hierarchy.subsystem),
            cgroup_v2_root=str(hierarchy.v2_root) if hierarchy.v2_root else None,
            flow_entries=config.flow_entries,
        )
        if pins is not None and (taken_over := pins.take_over(request, self_test)) is not None:
            return cls(config=config, hierarchy=hierarchy, capture=taken_over, pins=pins)
        capture = open_capture(request, about_to_count=pins.silence if pins is not None else lambda: None)
        try:
            if pins is not None:
                pins.pin(capture, request)
            self_test(capture)
            return cls(config=config, hierarchy=hierarchy, capture=capture, pins=pins)
        except BaseException:
            capture.close()
            if pins is not None:
                pins.close(orderly=True)
            raise

    def begin(self, pipeline: Pipeline) -> None:
        """Hand over what earlier agents counted."""
        if self._pins is not None:
            pipeline.begin_with(self._pins.leftovers)

    def open_flows(self) -> FlowColumns:
        """Connections that are open now; tells the kernel side who listens."""
        look = self._sockets.look()
        for listener in look.listeners:
            self.capture.tell_listener(
                ListenerEntry(
                    local=listener.local,
                    netns_inode=listener.netns_inode,
                    port=listener.port,
                    cgroup_id=listener.cgroup_id,
                    pid=listener.pid,
                    process=listener.process,
                )
            )
        return look.columns

    def describe(self) -> list[str]:
        """What was chosen, and why not another."""
        capture, hierarchy = self.capture, self._hierarchy
        version = "cgroup v2" if hierarchy.subsystem is None else f"cgroup v1 ({hierarchy.subsystem})"
        lacking = capabilities.missing(capabilities.effective(self._config.proc_root / "self/status"))
        state = "taken over from an agent that was killed" if capture.taken_over else "attached"
        return [
            f"backend {capture.backend.name}: {state}, self-test passed, room for {capture.flow_entries} flows",
            *(f"refused: {sentence}" for sentence in capture.refused),
            *(f"without: {sentence}" for sentence in capture.skipped),
            *(f"without: {capabilities.complaint(each)}" for each in lacking),
            f"pods are told apart by {version} at {hierarchy.root}, named by {self._config.pod_logs}",
        ]

    def publish(self) -> None:
        """Numbers that are read when somebody asks."""
        for name, program in self.capture.programs().items():
            metrics.PROGRAM_RUNS.labels(name).set(program.runs)
            metrics.PROGRAM_SECONDS.labels(name).set(program.run_time_ns / 1e9)

    def close(self, *, orderly: bool) -> None:
        """`orderly`: what was counted is in the spool, and nothing of this agent shall stay in the kernel."""
        self.capture.close()
        if self._pins is not None:
            self._pins.close(orderly=orderly)


def _open_pins(directory: Path) -> Pins | None:
    """None, and a warning, where no bpf file system is: the agent works, but a kill costs it one interval."""
    if not in_bpf_file_system(directory):
        log.warning("%s is in no bpf file system: what the kernel counted is lost if this agent is killed", directory)
        return None
    return Pins(directory)


def _host_netns_inode(proc: Path) -> int:
    """The node's own network namespace: init's, or, where that may not be read, the agent's own (hostNetwork)."""
    for process in ("1", "self"):
        with suppress(OSError):
            return (proc / process / "ns/net").stat().st_ino
    return 0
