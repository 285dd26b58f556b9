"""Owners: from a pod's controller to its top workload.

Enters: ReplicaSets and Jobs (whose own controller matters), and the controller that a pod names. Leaves: a Workload, or
None while a controller in between has not been seen. Invariant: never a guess from a name or a label.
"""

from aggregator.cluster.reduce import OwnerFacts, OwnerRef, PodFacts
from aggregator.model.workload import Workload

# Kinds whose own controller is looked up. Every other kind is a workload by itself, custom ones by their own kind.
LOOKED_UP = frozenset({"ReplicaSet", "Job"})
MOST_WAITED_FOR = 10_000


class Owners:
    """The controllers of one cluster, and the pods that wait for one to be seen."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._seen: dict[str, OwnerFacts] = {}  # by UID, and by "namespace/Kind/name"
        self._waiting: dict[str, dict[str, PodFacts]] = {}
        self._workloads: dict[Workload, Workload] = {}

    def see(self, facts: OwnerFacts) -> dict[str, PodFacts]:
        """A ReplicaSet or Job exists; the pods that waited for it, by key."""
        waited: dict[str, PodFacts] = {}
        for name in _names(facts):
            self._seen[name] = facts
            waited |= self._waiting.pop(name, {})
        return waited

    def forget(self, kind: str, namespace: str, name: str) -> None:
        facts = self._seen.pop(f"{namespace}/{kind}/{name}", None)
        if facts is not None:
            self._seen.pop(facts.uid, None)

    def wait(self, pod_key: str, facts: PodFacts) -> None:
        """Remember that this pod waits for the controller that is missing in its chain."""
        missing = self._climb(facts.namespace, facts.owner)[1] if facts.owner else ""
        if missing:
            self._waiting.setdefault(missing, {})[pod_key] = facts
        while len(self._waiting) > MOST_WAITED_FOR:  # what was deleted before it was seen never comes
            del self._waiting[next(iter(self._waiting))]

    def top(self, facts: PodFacts) -> Workload | None:
        if facts.owner is None or facts.owner.kind == "Node":  # a static pod's mirror is owned by its node
            return self.workload(facts.namespace, "Pod", facts.name)
        ref, missing = self._climb(facts.namespace, facts.owner)
        return None if missing else self.workload(facts.namespace, ref.kind, ref.name)

    def nearest(self, facts: PodFacts) -> Workload:
        """The controller that the pod itself names: what a snapshot shows until the chain is known."""
        if facts.owner is None or facts.owner.kind == "Node":
            return self.workload(facts.namespace, "Pod", facts.name)
        return self.workload(facts.namespace, facts.owner.kind, facts.owner.name)

    def workload(self, namespace: str, kind: str, name: str) -> Workload:
        made = Workload(cluster=self._cluster, namespace=namespace, kind=kind, name=name)
        return self._workloads.setdefault(made, made)

    def _climb(self, namespace: str, ref: OwnerRef) -> tuple[OwnerRef, str]:
        """The last controller of the chain, and the key of the one that is missing, or ""."""
        for _ in range(4):  # Pod -> Job -> CronJob is the longest chain; a loop must end all the same
            if ref.kind not in LOOKED_UP:
                break
            key = ref.uid or f"{namespace}/{ref.kind}/{ref.name}"
            facts = self._seen.get(key)
            if facts is None:
                return ref, key
            if facts.owner is None:
                break
            ref = facts.owner
        return ref, ""


def _names(facts: OwnerFacts) -> tuple[str, ...]:
    by_name = f"{facts.namespace}/{facts.kind}/{facts.name}"
    return (by_name, facts.uid) if facts.uid else (by_name,)
