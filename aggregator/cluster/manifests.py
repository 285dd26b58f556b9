"""ManifestSource: the cluster view from plain manifests, re-read on change.

Enters: a file or a directory of YAML or JSON (`kubectl get -o yaml`, Helm output, several documents, Lists). Leaves: a
ClusterSource. Invariant: what is missing is said in a finding, never made up; a file that cannot be read keeps what it
last said. Only files whose name, size, inode or time changed are read again.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aggregator.cluster import reduce
from aggregator.cluster.cidrs import incomplete_finding
from aggregator.cluster.discover import CidrDiscovery
from aggregator.cluster.findings import ViewFindings
from aggregator.cluster.foreign import kind_of
from aggregator.cluster.persist import Persistence
from aggregator.cluster.reduce import Raw
from aggregator.cluster.resolve import ViewResolver
from aggregator.cluster.standing import DECIDING
from aggregator.cluster.view import NONSENSE, ClusterView
from aggregator.cluster.yamltext import load_documents
from aggregator.errors import ClusterError, InputError
from aggregator.model.cidrs import ClusterCidrs
from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot
from aggregator.model.finding import Finding, Severity
from aggregator.model.history import EpisodeStore

SUFFIXES = (".yaml", ".yml", ".json")
# Owners first, so that a pod's chain of controllers is there when the pod comes.
ORDER = (
    "Namespace",
    "Node",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "CronJob",
    "ReplicaSet",
    "Job",
    "Pod",
    "Service",
)
STALE_AFTER_SECONDS = 30.0

ObjectId = tuple[str, str, str, str]  # kind, namespace, name, uid


class _Stamp(NamedTuple):
    inode: int
    size: int
    mtime_ns: int


class ManifestSource:
    """Implements ClusterSource. `load()` reads once, as a cluster that stands still; `run()` follows the changes."""

    def __init__(
        self,
        path: Path,
        *,
        cluster: str = "default",
        poll_seconds: float = 0.5,
        grace_seconds: float = 30.0,
        store: EpisodeStore | None = None,
    ) -> None:
        self._path = path
        self._poll_seconds = poll_seconds
        self.view = ClusterView(cluster, derive=True, grace_seconds=grace_seconds)
        self._resolver = ViewResolver(self.view)
        self._findings = ViewFindings(self.view)
        self._stamps: dict[Path, _Stamp] = {}
        self._objects: dict[Path, dict[ObjectId, Raw]] = {}
        self._unreadable: dict[Path, str] = {}
        self.discovery = CidrDiscovery()
        self._persistence = Persistence(self.view, store) if store is not None else None
        self._running = False
        self._read_at = 0.0

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
    def findings(self) -> tuple[Finding, ...]:
        broken = tuple(
            Finding(
                code="manifest-unreadable",
                severity=Severity.WARNING,
                subject=str(path),
                message=reason,
                way_out="correct the file; until then what it last said holds",
            )
            for path, reason in sorted(self._unreadable.items())
        )
        incomplete = incomplete_finding(self.view.cidrs, self.cluster)
        return (*broken, *((incomplete,) if incomplete else ()), *self._findings.now())

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.time() - self._read_at) if self._running else 0.0

    @property
    def stale(self) -> bool:
        return self.age_seconds > STALE_AFTER_SECONDS

    def load(self) -> None:
        """Read once. Raises ClusterError when there is nothing to read, InputError when a file makes no sense."""
        if not self._path.exists():
            raise ClusterError(f"no manifests at {self._path}")
        self._refresh()
        self.view.confirmed = reduce.FOREVER  # it stands still: nothing can happen that is not seen
        for path, reason in sorted(self._unreadable.items()):
            raise InputError(reason, file=str(path))

    async def run(self) -> None:
        """Follow the directory until cancelled. A path that is not there yet is waited for."""
        if self._persistence is not None:
            await asyncio.to_thread(self._persistence.load)
        self._running = True
        try:
            await asyncio.to_thread(self._refresh)
            self.view.end_what_is_gone(self._read_at)
            while True:
                if self._persistence is not None and self._persistence.due(time.monotonic()):
                    await asyncio.to_thread(self._persistence.save)
                await asyncio.sleep(self._poll_seconds)
                await asyncio.to_thread(self._refresh)
        finally:
            self._running = False
            if self._persistence is not None:
                self._persistence.save()

    # ---- reading ----------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        started = time.time()
        before = {key: raw for objects in self._objects.values() for key, raw in objects.items()}
        if self._read_changed_files():
            after = {key: raw for objects in self._objects.values() for key, raw in objects.items()}
            self._apply(before, after, started)
        self.discovery.refresh(self.view)
        self._read_at = started
        if self._running:
            if self.view.confirmed < started - STALE_AFTER_SECONDS:
                for kind in DECIDING:
                    self.view.standing.gap(kind, started)
            self.view.confirmed = started

    def _read_changed_files(self) -> bool:
        found = dict(self._files())
        changed = False
        for path in self._stamps.keys() - found.keys():
            del self._stamps[path]
            changed |= self._objects.pop(path, None) is not None
            self._unreadable.pop(path, None)
        for path, stamp in found.items():
            if self._stamps.get(path) == stamp:
                continue
            self._stamps[path] = stamp
            try:
                self._objects[path] = dict(_objects_in(path))
            except FileNotFoundError:
                self._stamps.pop(path)  # it went away in between: the next round sees that
            except (OSError, UnicodeDecodeError, InputError) as exc:
                self._unreadable[path] = f"cannot be read: {exc}"
                continue
            self._unreadable.pop(path, None)
            changed = True
        return changed

    def _files(self) -> Iterator[tuple[Path, _Stamp]]:
        paths = self._path.rglob("*") if self._path.is_dir() else [self._path]
        for path in paths:
            if path.suffix not in SUFFIXES or path.name.startswith("."):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield path, _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)

    def _apply(self, before: dict[ObjectId, Raw], after: dict[ObjectId, Raw], at: float) -> None:
        with self.view.lock:  # one change of the directory is one change of the view
            self._apply_all(before, after, at)

    def _apply_all(self, before: dict[ObjectId, Raw], after: dict[ObjectId, Raw], at: float) -> None:
        gone = sorted((_rank(key), key) for key in before.keys() - after.keys())
        for _, (kind, namespace, name, uid) in reversed(gone):
            self.view.remove(kind, namespace, name, at=at, uid=uid)
        changed = sorted((_rank(key), key) for key, raw in after.items() if before.get(key) != raw)
        for _, key in changed:
            kind, namespace, name, _ = key
            try:
                self.view.apply(kind, after[key], at=at)
            except NONSENSE as exc:
                self.view.note_unreadable(kind, namespace, name, f"{type(exc).__name__}: {exc}", at=at)
        self.view.refresh_derived(at)


def _rank(key: ObjectId) -> int:
    return ORDER.index(key[0]) if key[0] in ORDER else len(ORDER)


def _objects_in(path: Path) -> Iterator[tuple[ObjectId, Raw]]:
    for document in load_documents(path.read_text(encoding="utf-8"), file=str(path)):
        yield from _flattened(document)


def _flattened(document: object) -> Iterator[tuple[ObjectId, Raw]]:
    """The objects of a document; a List is the objects in it. What is no Kubernetes object is left alone."""
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        return
    kind = document["kind"]
    if kind.endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _flattened({"kind": kind.removesuffix("List"), **item} if isinstance(item, dict) else item)
        return
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and metadata.get("name"):
        namespace = str(metadata.get("namespace") or "")
        if not namespace and kind not in CLUSTER_SCOPED:
            namespace = "default"
        if kind == "Namespace":
            document = _named(document, metadata)
        yield (kind_of(document), namespace, str(metadata["name"]), str(metadata.get("uid") or "")), document


def _named(namespace: Raw, metadata: Raw) -> Raw:
    """NP-17: the API server writes this label on every namespace, so its absence from a manifest says nothing."""
    labels = {NAMESPACE_NAME_LABEL: str(metadata["name"]), **(metadata.get("labels") or {})}
    return {**namespace, "metadata": {**metadata, "labels": labels}}


CLUSTER_SCOPED = frozenset(
    {
        "AdminNetworkPolicy",
        "APIService",
        "BaselineAdminNetworkPolicy",
        "CiliumClusterwideNetworkPolicy",
        "ClusterNetworkPolicy",
        "CustomResourceDefinition",
        "GlobalNetworkPolicy",
        "IPAddress",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "ServiceCIDR",
        "ValidatingWebhookConfiguration",
    }
)
