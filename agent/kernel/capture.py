"""The kernel side as the rest of the agent sees it: opened, drained, closed.

Enters: what a person asked for. Leaves: `Capture`, attached and counting, and `Attempt`s that say why others are not.
Invariant: what loads is used, best first; what was refused is told with the kernel's own words.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.errors import LoaderError, NoBackendError
from agent.kernel import bpf
from agent.kernel.backends import AGAIN, Backend, BackendName, candidates
from agent.kernel.loader import Loaded, LoadRequest, load
from agent.kernel.maps import Counter, Counters, Drained, FlowMaps, Interval
from agent.kernel.ring import RingBuffer
from agent.kernel.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.kernel.headers import CgroupSource
    from agent.kernel.stage import Place

_FIRST_SIGHT, _CGROUP_CREATED = 1, 2
_FIRST_SIGHT_LAYOUT: Final = struct.Struct("<IIQQII")
_CGROUP_CREATED_LAYOUT: Final = struct.Struct("<IIQ")
_LISTENER_KEY: Final = struct.Struct("<16sIHH")
_LISTENER: Final = struct.Struct("<QII16s")
_SIGHTING: Final = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSightEvent:
    """struct first_sight."""

    pid: int
    cgroup_id: int
    netns_cookie: int
    netns_inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupCreatedEvent:
    """struct cgroup_created."""

    cgroup_id: int
    path: str


Announcement = FirstSightEvent | CgroupCreatedEvent


def announcement_of(record: bytes) -> Announcement | None:
    """None for what is neither; never an exception: one would end the agent's ears."""
    kind = int.from_bytes(record[:4], "little")
    if kind == _FIRST_SIGHT and len(record) >= _FIRST_SIGHT_LAYOUT.size:
        _kind, pid, cgroup_id, cookie, inode, _zero = _FIRST_SIGHT_LAYOUT.unpack_from(record)
        return FirstSightEvent(pid=pid, cgroup_id=cgroup_id, netns_cookie=cookie, netns_inode=inode)
    if kind == _CGROUP_CREATED and len(record) >= _CGROUP_CREATED_LAYOUT.size:
        _kind, _hierarchy, cgroup_id = _CGROUP_CREATED_LAYOUT.unpack_from(record)
        path = record[_CGROUP_CREATED_LAYOUT.size :].split(b"\0", 1)[0].decode("utf-8", "replace")
        return CgroupCreatedEvent(cgroup_id=cgroup_id, path=path)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerEntry:
    """Who listens on an address and port; `local` is 16 bytes."""

    local: bytes
    netns_inode: int
    port: int
    cgroup_id: int
    pid: int
    process: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRequest:
    backend: BackendName
    cgroups: CgroupSource
    cgroup_v2_root: str | None
    flow_entries: int


class Capture:
    """Attached programs and their maps."""

    def __init__(
        self,
        backend: Backend,
        loaded: Loaded,
        refused: tuple[str, ...],
        *,
        stage: Stage | None = None,
    ) -> None:
        """`stage`: of an agent that was killed, whose programs these are."""
        self.backend = backend
        self.refused = refused
        self.skipped = loaded.skipped
        self.taken_over = stage is not None
        self.loaded = loaded
        self._counters = Counters(loaded.maps["counters"])
        self.ring = RingBuffer(loaded.maps["announcements"], bpf.map_info(loaded.maps["announcements"]).max_entries)
        if self.taken_over:
            # What was announced to the one before is announced again.
            bpf.clear(loaded.maps["sightings"], _SIGHTING.size)
        self._flows = FlowMaps(
            outer_fd=loaded.maps["flows"],
            inner_fds=(loaded.maps["flows_0"], loaded.maps["flows_1"]),
            stage=stage or Stage.create(),
            in_use=self.taken_over,
        )

    @property
    def flow_entries(self) -> int:
        return self._flows.entries

    @property
    def stage(self) -> Stage:
        return self._flows.stage

    def swap(self) -> Interval:
        return self._flows.swap()

    def drain(self, interval: Interval) -> Iterator[Drained]:
        return self._flows.drain(interval)

    def left_behind(self, took: Callable[[Place], bool]) -> Iterator[tuple[Drained, Stage]]:
        """Of a capture that was taken over: what was counted until now and not delivered."""
        for drained in self._flows.left_behind(took):
            yield drained, self.stage

    def peek(self) -> Drained:
        """What the current interval has counted so far; it stays there."""
        return self._flows.peek()

    def counters(self) -> Mapping[Counter, int]:
        return self._counters.read()

    def missed(self) -> int:
        """Events that no program of their hook was run for, since loading; at most that many where there are two."""
        programs = self.programs()
        pairs = ((program, programs.get(name + AGAIN)) for name, program in programs.items() if AGAIN not in name)
        return sum(min(first.missed, again.missed) if again else first.missed for first, again in pairs)

    def announcements(self) -> Iterator[Announcement]:
        for record in self.ring.records():
            announcement = announcement_of(record)
            if announcement is not None:
                yield announcement

    def tell_listener(self, entry: ListenerEntry) -> bool:
        """Name the owner of a socket that listened before the agent came; the kernel's own knowledge wins."""
        key = _LISTENER_KEY.pack(entry.local, entry.netns_inode, entry.port, 0)
        value = _LISTENER.pack(entry.cgroup_id, entry.pid, 0, entry.process)
        return bpf.update(self.loaded.maps["listeners"], key, value, bpf.UPDATE_NO_EXIST)

    def programs(self) -> Mapping[str, bpf.ProgramInfo]:
        return {name: bpf.program_info(fd) for name, fd in self.loaded.programs.items()}

    def detach(self) -> None:
        """Stop counting; the maps stay readable."""
        for descriptor in self.loaded.links:
            os.close(descriptor)
        self.loaded = Loaded(
            maps=self.loaded.maps, programs=self.loaded.programs, links=(), skipped=self.loaded.skipped
        )

    def close(self) -> None:
        self.ring.close()
        self.stage.close()
        self.loaded.close()


def open_capture(
    request: CaptureRequest,
    *,
    loader: Callable[[LoadRequest], Loaded] = load,
    about_to_count: Callable[[], None] = lambda: None,
) -> Capture:
    """Try each backend in turn. `about_to_count` is called when one is attached and does not count yet."""
    refused: list[str] = []
    for backend in candidates(request.backend):
        try:
            loaded = loader(
                LoadRequest(
                    backend=backend,
                    cgroups=request.cgroups,
                    cgroup_v2_root=request.cgroup_v2_root,
                    flow_entries=request.flow_entries,
                )
            )
        except LoaderError as exc:
            refused.append(" ".join(str(exc).split()))
            continue
        about_to_count()
        return Capture(backend, loaded, tuple(refused))
    raise NoBackendError("this kernel takes no backend: " + "; ".join(refused))
