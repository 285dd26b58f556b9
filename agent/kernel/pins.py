"""What the kernel had counted outlives a killed agent.

Enters: a directory in a bpf file system, the flow maps and their stage. Leaves: what earlier agents left there, once.
Invariant: each agent pins its two flow maps, the map of maps and the stage in a folder of its own; a folder is removed
only after what it held is in the spool. Links are not pinned: programs of a dead agent stop, so its maps stand still.
What is left is moved through the dead agent's own stage, so that an agent killed while it does this loses and doubles
nothing either. A reboot takes pins and clocks away together.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import AgentError, AlreadyRunningError
from agent.kernel import bpf
from agent.kernel.maps import Drained, Instant, check_layout
from agent.kernel.stage import Place, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.kernel.capture import Capture
    from agent.kernel.maps import Array

log = logging.getLogger(__name__)

_MOUNTS: Final = Path("/proc/self/mountinfo")
_INNER: Final = ("flows_0", "flows_1")
_STAGE: Final = "stage"


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
        stage = capture.stage.descriptor
        assert stage is not None
        names = (*_INNER, "flows", _STAGE)
        for name, descriptor in zip(names, (*capture.inner_fds, capture.outer_fd, stage), strict=True):
            bpf.pin(descriptor, str(self._own / name))

    def leftovers(self, took: Callable[[Place], bool]) -> Iterator[tuple[Drained, Stage]]:
        """What earlier agents did not get round to deliver, part by part, each with the stage it stands in.

        A part is gone when the next is asked for, and a folder when all of it is. Maps of another layout are left out.
        """
        for folder in self._earlier:
            try:
                yield from _leftovers(folder, took)
            except AgentError as exc:
                log.warning("what an earlier agent left in %s cannot be read: %s", folder, exc)
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


def _leftovers(folder: Path, took: Callable[[Place], bool]) -> Iterator[tuple[Drained, Stage]]:
    with ExitStack() as opened:
        stage = Stage.open_pinned(str(folder / _STAGE)) if (folder / _STAGE).exists() else Stage()
        opened.callback(stage.close)
        keys, stats = stage.left(took)
        if len(keys):
            yield _drained(keys, stats), stage
        stage.clear()
        for path in (folder / name for name in _INNER):
            if not path.exists():
                continue  # killed while it pinned
            descriptor = bpf.get_pinned(str(path))
            opened.callback(os.close, descriptor)
            check_layout(descriptor)
            for keys, stats in stage.drain(descriptor):
                yield _drained(keys, stats), stage


def _drained(keys: Array, stats: Array) -> Drained:
    now = Instant.now()
    begin = int(stats["first_ns"].min())
    start = Instant(boot_ns=begin, wall_ns=now.wall_ns - (now.boot_ns - begin))
    return Drained(keys=keys, stats=stats, start=start, end=now)
