"""What the kernel had counted outlives a killed agent.

Enters: a directory in a bpf file system, the flow maps. Leaves: what an earlier agent left there, once.
Invariant: each agent pins its two flow maps and the map of maps in a folder of its own; a folder is removed only after
what it held is in the spool. Links are not pinned: programs of a dead agent stop, so its maps stand still.
A reboot takes pins and clocks away together.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from agent.errors import AgentError, AlreadyRunningError
from agent.flow import FlowKey, FlowStats
from agent.kernel import bpf
from agent.kernel.maps import Drained, Instant, check_layout, drain

if TYPE_CHECKING:
    from agent.kernel.capture import Capture

_MOUNTS: Final = Path("/proc/self/mountinfo")
_INNER: Final = ("flows_0", "flows_1")


class Pins:
    """One agent's folder below `directory`, and those of its predecessors."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock)
            raise AlreadyRunningError(f"another agent counts on this node: it holds {directory}") from exc
        self._own = directory / f"agent-{os.getpid()}-{Instant.now().boot_ns}"
        self._earlier = [path for path in directory.iterdir() if path.is_dir()]

    def pin(self, capture: Capture) -> None:
        self._own.mkdir(mode=0o700)
        for name, descriptor in zip((*_INNER, "flows"), (*capture.inner_fds, capture.outer_fd), strict=True):
            bpf.pin(descriptor, str(self._own / name))

    def leftovers(self) -> list[Drained]:
        """What earlier agents did not get round to drain; a map of another layout is left out, and said so."""
        found = []
        for folder in self._earlier:
            for name in _INNER:
                path = folder / name
                if path.exists():
                    drained = _read(str(path))
                    if len(drained):
                        found.append(drained)
        return found

    def forget_earlier(self) -> None:
        """Call when the leftovers are in the spool."""
        for folder in self._earlier:
            shutil.rmtree(folder, ignore_errors=True)
        self._earlier = []

    def close(self) -> None:
        """An orderly end drained everything: nothing is left behind."""
        shutil.rmtree(self._own, ignore_errors=True)
        with suppress(OSError):
            os.close(self._lock)


def in_bpf_file_system(directory: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether the innermost mount above `directory` is one (proc(5), mountinfo)."""
    innermost, kind = "", ""
    for line in mounts.read_text(encoding="utf-8").splitlines():
        before, _separator, after = line.partition(" - ")
        point = before.split(" ")[4]
        if directory.is_relative_to(point) and len(point) >= len(innermost):
            innermost, kind = point, after.split(" ")[0]
    return kind == "bpf"


def _read(path: str) -> Drained:
    now = Instant.now()
    try:
        descriptor = bpf.get_pinned(path)
        try:
            entries = check_layout(descriptor).max_entries
            keys, stats = np.empty(entries, FlowKey), np.empty(entries, FlowStats)
            filled = drain(descriptor, keys, stats, remove=False)
        finally:
            os.close(descriptor)
    except AgentError:
        return Drained(keys=np.empty(0, FlowKey), stats=np.empty(0, FlowStats), start=now, end=now)
    keys, stats = keys[:filled].copy(), stats[:filled].copy()
    begin = int(stats["first_ns"].min()) if filled else now.boot_ns
    start = Instant(boot_ns=begin, wall_ns=now.wall_ns - (now.boot_ns - begin))
    return Drained(keys=keys, stats=stats, start=start, end=now)
