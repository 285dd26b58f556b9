"""KubernetesSource: the cluster view from an API server.

Enters: a KubernetesApi and the kinds to follow. Leaves: a ClusterSource. Invariant: the view counts as right up to the
oldest of the caches that an answer needs, less the time by which a watch may lag; a cache that is not heard of grows
old, and an old view is stale. One thread a kind reads; `run` on the event loop keeps time.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from aggregator import metrics
from aggregator.cluster.cidrs import incomplete_finding
from aggregator.cluster.discover import CidrDiscovery
from aggregator.cluster.findings import ViewFindings, forbidden_finding
from aggregator.cluster.foreign import EXTRA_KINDS
from aggregator.cluster.kinds import WATCHED, Watched
from aggregator.cluster.persist import Persistence
from aggregator.cluster.reduce import NEVER
from aggregator.cluster.reflector import Reflector, State, Timing, key_of
from aggregator.cluster.resolve import ViewResolver
from aggregator.cluster.transport import KubernetesApi
from aggregator.cluster.view import NONSENSE, ClusterView
from aggregator.model.cidrs import ClusterCidrs
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.finding import Finding
from aggregator.model.history import EpisodeStore

TICK_SECONDS = 0.25
# A kubelet writes a pod's address some moments after the pod has it, and the watch brings it some moments later.
SETTLE_SECONDS = 2.0
STALE_AFTER_SECONDS = 60.0
# A name may be used again by another object only of these kinds within one gap, and it matters which.
_TOLD_BY_UID = frozenset({"Pod"})


class ViewSink:
    """What reflectors write to: the view, at the time of writing. Nonsense is noted and left out. `defined` is told of
    every CustomResourceDefinition that comes or changes.
    """

    def __init__(
        self,
        view: ClusterView,
        clock: Callable[[], float] = time.time,
        *,
        defined: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._view = view
        self._clock = clock
        self._defined = defined

    def apply(self, kind: str, raw: dict[str, Any]) -> None:
        namespace, name, _ = key_of(raw)
        if kind == "CustomResourceDefinition":
            self._defined(name)
        try:
            self._view.apply(kind, raw, at=self._clock())
        except NONSENSE as exc:
            self._view.note_unreadable(kind, namespace, name, f"{type(exc).__name__}: {exc}", at=self._clock())
            metrics.CLUSTER_UNREADABLE.labels(self._view.cluster, kind).inc()

    def remove(self, kind: str, raw: dict[str, Any]) -> None:
        namespace, name, uid = key_of(raw)
        self._view.remove(kind, namespace, name, at=self._clock(), uid=uid, last=raw)

    def known(self, kind: str) -> set[tuple[str, str, str]]:
        with self._view.lock:
            return set(self._view.known(kind))

    def vanish(self, kind: str, keys: set[tuple[str, str, str]]) -> None:
        for namespace, name, uid in keys:
            self._view.remove(kind, namespace, name, at=self._clock(), uid=uid)

    def same(self, kind: str, raw: dict[str, Any]) -> tuple[str, str, str]:
        """The key by which `known` would name this object."""
        namespace, name, uid = key_of(raw)
        return namespace, name, uid if kind in _TOLD_BY_UID else ""


class KubernetesSource:
    """Implements ClusterSource."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        cluster: str,
        kinds: Sequence[Watched] = WATCHED,
        timing: Timing | None = None,
        grace_seconds: float = 30.0,
        settle_seconds: float = SETTLE_SECONDS,
        stale_after_seconds: float = STALE_AFTER_SECONDS,
        store: EpisodeStore | None = None,
    ) -> None:
        self.view = ClusterView(cluster, grace_seconds=grace_seconds)
        self.discovery = CidrDiscovery()
        self._api = api
        self._resolver = ViewResolver(self.view)
        self._findings = ViewFindings(self.view)
        self._settle_seconds = settle_seconds
        self._stale_after_seconds = stale_after_seconds
        self._was_ready = False
        self._persistence = Persistence(self.view, store) if store is not None else None
        sink = ViewSink(self.view, defined=self._wake)
        self.reflectors = {
            watched.kind: Reflector(api, watched, sink, timing=timing, count=self._count) for watched in kinds
        }

    @property
    def cluster(self) -> str:
        return self.view.cluster

    @property
    def snapshot(self) -> ClusterSnapshot:
        return self.view.snapshot()

    @property
    def resolver(self) -> ViewResolver:
        return self._resolver

    @property
    def cidrs(self) -> ClusterCidrs:
        return self.view.cidrs

    @property
    def ready(self) -> bool:
        """Every cache that an answer needs has been filled once."""
        return all(r.listed for r in self.reflectors.values() if r.watched.needed)

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.time() - self._right_at())

    @property
    def stale(self) -> bool:
        return self.age_seconds > self._stale_after_seconds

    @property
    def findings(self) -> tuple[Finding, ...]:
        forbidden = [
            forbidden_finding(self.cluster, r.watched, r.reason)
            for r in self.reflectors.values()
            if r.state is State.FORBIDDEN
        ]
        incomplete = incomplete_finding(self.view.cidrs, self.cluster)
        return (*forbidden, *((incomplete,) if incomplete else ()), *self._findings.now())

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        if self._persistence is not None:
            await asyncio.to_thread(self._persistence.load)
        threads = [self._thread(reflector) for reflector in self.reflectors.values()]
        try:
            while True:
                self._tick()
                if self._persistence is not None and self._persistence.due(time.monotonic()):
                    await asyncio.to_thread(self._persistence.save)
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for reflector in self.reflectors.values():
                reflector.stop()
            await asyncio.shield(asyncio.to_thread(_join, threads))
            if self._persistence is not None:
                self._persistence.save()
            self._api.close()

    def _thread(self, reflector: Reflector) -> threading.Thread:
        def body() -> None:
            if not reflector.watched.needed:  # what an answer needs goes first
                reflector.pause(random.random())  # noqa: S311 - spreads load, guards nothing
            reflector.run()

        thread = threading.Thread(target=body, name=f"watch-{reflector.watched.kind}", daemon=True)
        thread.start()
        return thread

    def _wake(self, definition: str) -> None:
        """A kind that was not served may be from now on."""
        for reflector in self.reflectors.values():
            if definition in reflector.watched.definitions:
                reflector.wake()

    def _unread(self) -> frozenset[str]:
        """Kinds of policies that are there and not followed: for lack of a right, or because nobody answers."""
        oldest = time.time() - self._stale_after_seconds
        return frozenset(
            kind
            for kind in EXTRA_KINDS & self.reflectors.keys()
            if (reflector := self.reflectors[kind]).state is not State.NOT_SERVED
            and (reflector.state is State.FORBIDDEN or not reflector.listed or reflector.right_at < oldest)
        )

    def _tick(self) -> None:
        ready, right_at = self.ready, self._right_at()
        self.view.set_unread(self._unread())
        self.discovery.refresh(self.view)
        if ready:
            if not self._was_ready:
                self._was_ready = True
                self.view.end_what_is_gone(time.time())
            self.view.confirmed = max(self.view.confirmed, right_at - self._settle_seconds)
        now = time.time()
        for kind, reflector in self.reflectors.items():
            if reflector.state is not State.NOT_SERVED:
                metrics.CLUSTER_CACHE_AGE.labels(self.cluster, kind).set(max(0.0, now - reflector.right_at))
            else:  # a kind that is not there has no age
                with suppress(KeyError):
                    metrics.CLUSTER_CACHE_AGE.remove(self.cluster, kind)
        metrics.CLUSTER_VIEW_STALE.labels(self.cluster).set(self.stale)
        metrics.CLUSTER_OBJECTS.labels(self.cluster, "Pod").set(len(self.view.pods))
        metrics.CLUSTER_OBJECTS.labels(self.cluster, "Node").set(len(self.view.nodes))

    def _right_at(self) -> float:
        needed = [r for r in self.reflectors.values() if r.watched.needed]
        return min((r.right_at if r.listed else NEVER for r in needed), default=NEVER)

    def _count(self, kind: str, event: str) -> None:
        metrics.CLUSTER_WATCH_EVENTS.labels(self.cluster, kind, event).inc()
        # What happened since the last watch ended is not told one by one. Of a kind that is not served there is nothing
        # to miss, and it is looked for again and again.
        if event == "list" and self.reflectors[kind].state is not State.NOT_SERVED:
            self.view.standing.gap(kind, time.time())


def _join(threads: Sequence[threading.Thread]) -> None:
    """A thread that waits for an answer's first byte cannot be woken: it ends by its own timeout, as a daemon."""
    deadline = time.monotonic() + 2.0
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
