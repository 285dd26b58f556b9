"""Control groups: which hierarchy the pods live in, and the path behind a kernel's cgroup id.

Enters: the mount of the cgroup file systems, announcements of new groups. Leaves: paths.
Invariant: a path stays known after its group is gone (ids are not reused within a boot), until newer ones need room.
On a 64-bit kernel a group's id is its directory's inode, so a walk finds it: open_by_handle_at() would be quicker, but
needs CAP_DAC_READ_SEARCH, which the agent does not have.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_V1_SUBSYSTEMS: Final = ("pids", "memory")  # the two that every kubelet uses
_REMEMBERED: Final = 65_536
_WALK_EVERY_SECONDS: Final = 1.0
_SEARCH_DEPTH: Final = 4  # kind: /docker/<id>/kubelet.slice/kubelet-kubepods.slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """Where pods are found. `subsystem` is None for cgroup v2; `v2_root` is where cgroup hooks can attach."""

    root: Path
    hierarchy_id: int
    subsystem: str | None
    v2_root: Path | None


def find_hierarchy(mount: Path, *, proc: Path) -> Hierarchy:
    """Cgroup v2 where the kubelet uses it, else the v1 hierarchy that holds its pods."""
    if (mount / "cgroup.controllers").exists():
        return Hierarchy(root=mount, hierarchy_id=0, subsystem=None, v2_root=mount)
    unified = mount / "unified"
    v2 = unified if (unified / "cgroup.controllers").exists() or (unified / "cgroup.procs").exists() else None
    if v2 is not None and _holds_pods(v2):
        return Hierarchy(root=v2, hierarchy_id=0, subsystem=None, v2_root=v2)
    for subsystem in _V1_SUBSYSTEMS:
        root = mount / subsystem
        if root.is_dir() and _holds_pods(root):
            return Hierarchy(root=root, hierarchy_id=_hierarchy_id(proc, subsystem), subsystem=subsystem, v2_root=v2)
    if v2 is not None:
        return Hierarchy(root=v2, hierarchy_id=0, subsystem=None, v2_root=v2)
    for subsystem in _V1_SUBSYSTEMS:
        if (mount / subsystem).is_dir():
            hierarchy_id = _hierarchy_id(proc, subsystem)
            return Hierarchy(root=mount / subsystem, hierarchy_id=hierarchy_id, subsystem=subsystem, v2_root=None)
    raise ConfigError(f"{mount} holds no cgroup file system; set --cgroup-root to where the node's is mounted")


def _hierarchy_id(proc: Path, subsystem: str) -> int:
    for line in (proc / "cgroups").read_text(encoding="ascii").splitlines():
        fields = line.split()
        if fields and fields[0] == subsystem:
            return int(fields[1])
    raise ConfigError(f"{proc}/cgroups does not list {subsystem}")


def _holds_pods(root: Path, depth: int = _SEARCH_DEPTH) -> bool:
    try:
        directories = [entry for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return False
    if any("kubepods" in entry.name for entry in directories):
        return True
    return depth > 1 and any(_holds_pods(Path(entry.path), depth - 1) for entry in directories)


class CgroupPaths:
    """Path of a cgroup id, from announcements, from a walk, or from the process that was just seen in it."""

    def __init__(
        self, hierarchy: Hierarchy, *, proc: Path, monotonic_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._hierarchy = hierarchy
        self._proc = proc
        self._monotonic_seconds = monotonic_seconds
        self._paths: dict[int, str] = {}
        self._walked_at = -_WALK_EVERY_SECONDS

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def hierarchy_root(self) -> Path:
        return self._hierarchy.root

    def known(self, cgroup_id: int) -> str | None:
        return self._paths.get(cgroup_id)

    def learn(self, cgroup_id: int, path: str) -> None:
        while len(self._paths) >= _REMEMBERED:
            del self._paths[next(iter(self._paths))]
        self._paths[cgroup_id] = path

    def find(self, cgroup_id: int, *, pid: int = 0) -> str | None:
        """Look wherever the answer can be; a walk at most once a second."""
        path = self._paths.get(cgroup_id)
        if path is not None:
            return path
        if pid:
            with suppress(OSError):
                path = self._path_of_process(pid)
                if path is not None and self._hierarchy.root.joinpath(path.lstrip("/")).stat().st_ino == cgroup_id:
                    self.learn(cgroup_id, path)
                    return path
        now = self._monotonic_seconds()
        if now - self._walked_at >= _WALK_EVERY_SECONDS:
            self._walked_at = now
            self.walk()
        return self._paths.get(cgroup_id)

    def walk(self) -> None:
        root = self._hierarchy.root
        with suppress(OSError):
            self.learn(root.stat().st_ino, "/")
        for inode, path in _directories(str(root), ""):
            if inode not in self._paths:
                self.learn(inode, path)

    def processes(self, path: str) -> list[int]:
        """Those that live in the group now."""
        try:
            text = self._hierarchy.root.joinpath(path.lstrip("/"), "cgroup.procs").read_text(encoding="ascii")
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def live(self) -> Iterator[tuple[int, str]]:
        return _directories(str(self._hierarchy.root), "")

    def _path_of_process(self, pid: int) -> str | None:
        subsystem = self._hierarchy.subsystem
        for line in (self._proc / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines():
            hierarchy, controllers, path = line.split(":", 2)
            if hierarchy == "0" if subsystem is None else subsystem in controllers.split(","):
                return path
        return None


def _directories(directory: str, path: str) -> Iterator[tuple[int, str]]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return  # gone meanwhile
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            below = f"{path}/{entry.name}"
            yield entry.inode(), below
            yield from _directories(entry.path, below)
