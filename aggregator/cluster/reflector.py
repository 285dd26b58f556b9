"""Reflector: keeps one kind of one cluster in the view, by list and watch.

Enters: pages of a list and lines of a watch. Leaves: applied, removed and replaced objects in a Sink, and the time at
which the cache was last known to be right. Invariant: after a gap of any length or cause (410, ERROR, a stream that
hangs in silence, a server that restarts) the cache becomes equal to the server's again, and asking never storms:
every repetition waits a random time of up to twice the last (full jitter), until a watch has held for a while.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from aggregator.cluster.kinds import Watched
from aggregator.cluster.transport import GONE, ApiError, KubernetesApi, Lines


class Sink(Protocol):
    """Where a reflector puts what it reads; called from its thread."""

    def apply(self, kind: str, raw: dict[str, Any]) -> None: ...

    def remove(self, kind: str, raw: dict[str, Any]) -> None: ...

    def known(self, kind: str) -> set[tuple[str, str, str]]:
        """(namespace, name, uid) of everything of this kind in the view."""
        ...

    def same(self, kind: str, raw: dict[str, Any]) -> tuple[str, str, str]:
        """The key by which `known` names this object."""
        ...

    def vanish(self, kind: str, keys: set[tuple[str, str, str]]) -> None:
        """These were not in a new list."""
        ...


class State(StrEnum):
    STARTING = "starting"
    WATCHING = "watching"
    RETRYING = "retrying"
    NOT_SERVED = "not-served"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How patient a reflector is, in seconds."""

    hang_seconds: float = 90.0  # a watch that says nothing for so long hangs: bookmarks come about once a minute
    watch_seconds: float = 270.0  # the server ends a watch then; each draws 90-110 % of it
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 30.0
    absent_wait_seconds: float = 300.0  # a kind that is not served, or not allowed, is looked for again
    healthy_after_seconds: float = 5.0  # a watch that held for so long ends the back-off


class Reflector:
    """One kind. `run` blocks; `stop` wakes it from another thread."""

    def __init__(
        self,
        api: KubernetesApi,
        watched: Watched,
        sink: Sink,
        *,
        timing: Timing | None = None,
        count: Callable[[str, str], None] = lambda _kind, _reason: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.watched = watched
        self.state = State.STARTING
        self.reason = ""
        self.listed = False  # the whole list has been applied at least once
        self._api, self._sink, self._count, self._draw = api, sink, count, draw
        self._timing = timing or Timing()
        self._stopping = threading.Event()
        self._waking = threading.Event()
        self._path = watched.path  # the one of `watched.paths` that is followed
        self._lines: Lines | None = None
        self._version = ""
        self._heard_at = 0.0  # monotonic
        self._right_at = 0.0  # wall clock: the cache was right then
        self._failures = 0

    @property
    def right_at(self) -> float:
        """When the cache was last known to be right: now, while a watch is heard."""
        heard = time.monotonic() - self._heard_at
        if self.state is State.WATCHING and heard < self._timing.hang_seconds:
            return time.time()
        return self._right_at

    def stop(self) -> None:
        self._stopping.set()
        self._waking.set()
        lines = self._lines
        if lines is not None:
            lines.shut()

    def pause(self, seconds: float) -> None:
        """Wait, unless it is stopped or woken before."""
        self._waking.wait(seconds)
        if not self._stopping.is_set():
            self._waking.clear()

    def wake(self) -> None:
        """The kind may be served from now on: look at once. From another thread."""
        if self.state is not State.WATCHING:
            self._waking.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
            except ApiError as failure:
                self.pause(self._after(failure))

    def _after(self, failure: ApiError) -> float:
        """What a failure means, and how long to wait."""
        self.reason = str(failure)
        if failure.status == GONE:
            self._version = ""
            self._count(self.watched.kind, "gone")
        elif failure.status == 404 or (failure.status == 403 and not self._is_served()):
            return self._look_elsewhere()
        elif failure.status in {401, 403}:
            self.state = State.FORBIDDEN
            self._count(self.watched.kind, "forbidden")
            if self._failures > 3:
                return self._draw() * self._timing.absent_wait_seconds
        else:
            self._count(self.watched.kind, "no-answer" if failure.status == 0 else f"http-{failure.status}")
        if self.state is not State.FORBIDDEN:
            self.state = State.RETRYING
        return max(failure.retry_after_seconds, self._back_off())

    def _look_elsewhere(self) -> float:
        """Nobody serves this path: on to the next one, from the last one back to the first, which may come later."""
        paths, self._version = self.watched.paths, ""
        after = paths.index(self._path) + 1
        self._path = paths[after % len(paths)]
        if after < len(paths):
            return 0.0
        self.state = State.NOT_SERVED
        self._sink.vanish(self.watched.kind, self._sink.known(self.watched.kind))
        return (0.5 + self._draw() / 2) * self._timing.absent_wait_seconds

    def _is_served(self) -> bool:
        """Of a kind that may not be read: is it there at all? Everybody may read what an API group serves."""
        watched = self.watched
        if watched.needed or not watched.group or watched.field_selector:
            return True
        try:
            group = self._api.get(self._path.rpartition("/")[0])
        except ApiError as failure:
            return failure.status != 404
        return any(resource.get("name") == watched.resource for resource in group.get("resources") or ())

    def _back_off(self) -> float:
        self._failures += 1
        timing = self._timing
        longest = min(timing.longest_wait_seconds, timing.first_wait_seconds * float(2 ** min(self._failures, 16)))
        return self._draw() * longest

    # ---- list -------------------------------------------------------------------------------------------------------

    def _list(self) -> None:
        """Page by page into the view: the whole list is never in memory."""
        watched, token, version, started = self.watched, "", "", time.time()
        seen: set[tuple[str, str, str]] = set()

        def take(raw: dict[str, Any]) -> None:
            seen.add(self._sink.same(watched.kind, raw))
            self._sink.apply(watched.kind, raw)

        self._count(watched.kind, "list")
        while True:
            metadata = self._api.each(
                self._path,
                {"limit": watched.page, "continue": token, "fieldSelector": watched.field_selector},
                take,
                read_seconds=self._timing.hang_seconds,
            )
            version, token = str(metadata.get("resourceVersion") or ""), str(metadata.get("continue") or "")
            if not token:
                break
            if self._stopping.is_set():
                return
        self._sink.vanish(watched.kind, self._sink.known(watched.kind) - seen)
        self._version, self.listed = version, True
        self._right_at = started

    # ---- watch ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._stopping.is_set():
            return
        timing, watched = self._timing, self.watched
        opened = time.monotonic()
        with self._api.lines(
            self._path,
            {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": self._version,
                "timeoutSeconds": max(1, int(timing.watch_seconds * (0.9 + self._draw() / 5))),
                "fieldSelector": watched.field_selector,
            },
            read_seconds=timing.hang_seconds,
        ) as lines:
            self._lines = lines
            if self._stopping.is_set():  # it was told while it connected, when there was nothing to shut
                return
            self._heard()
            self.state, self.reason = State.WATCHING, ""
            try:
                for line in lines:
                    if line.strip():
                        self._take(line)
                    if self._stopping.is_set():
                        return
            finally:
                self._lines = None
                self._right_at = time.time() - (time.monotonic() - self._heard_at)
                held = time.monotonic() - opened >= timing.healthy_after_seconds
                if held:
                    self._failures = 0
        if not held:
            self.pause(self._back_off())  # a server that ends every watch at once is not asked in a loop

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind, raw = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as exc:
            raise ApiError(f"watch {self._path}", 0, f"a line makes no sense: {exc}") from exc
        self._heard()
        match kind:
            case "ADDED" | "MODIFIED":
                self._sink.apply(self.watched.kind, raw)
            case "DELETED":
                self._sink.remove(self.watched.kind, raw)
            case "BOOKMARK":
                pass
            case "ERROR":
                self._count(self.watched.kind, "error-event")
                raise ApiError(
                    f"watch {self._path}", int(raw.get("code") or 0), str(raw.get("message") or "an error event")
                )
            case _:
                return
        self._version = str((raw.get("metadata") or {}).get("resourceVersion") or self._version)

    def _heard(self) -> None:
        self._heard_at = time.monotonic()


def key_of(raw: dict[str, Any]) -> tuple[str, str, str]:
    metadata = raw.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or ""), str(metadata.get("uid") or "")
