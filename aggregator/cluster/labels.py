"""The labels that a workload's pods have worn, and which of them last.

Enters: the labels of pods and pod templates, with the time at which they were seen. Leaves: per workload the sets worn
within the retention, and the labels that all of them share and that a selector may use (NP-46, NP-47). Invariant: a
generated label (a hash, an index, a Job's name) never makes two sets of one, so the number of sets stays small.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from aggregator.cluster.reduce import keep
from aggregator.model.cluster import Labels
from aggregator.model.decision import LabelLists
from aggregator.model.workload import Workload
from aggregator.policy.generation.labels import LabelClass, classify_key, stable

MOST_SETS = 50  # per workload; the oldest goes first


@dataclass(slots=True)
class Worn:
    """One set of labels, and when pods wore it (epoch seconds)."""

    first: float
    last: float


@lru_cache(maxsize=1 << 14)
def _lasting(labels: Labels) -> Labels:
    """Without those that are generated anew with each pod or rollout."""
    return keep(tuple(pair for pair in labels if classify_key(pair[0]) is not LabelClass.GENERATED))


@dataclass(slots=True)
class LabelHistory:
    worn: dict[Workload, dict[Labels, Worn]] = field(default_factory=dict)

    def see(self, workload: Workload, labels: Labels, at: float) -> None:
        lasting = _lasting(labels)
        sets = self.worn.setdefault(workload, {})
        known = sets.get(lasting)
        if known is not None:
            known.first, known.last = min(known.first, at), max(known.last, at)
            return
        sets[lasting] = Worn(at, at)
        if len(sets) > MOST_SETS:
            del sets[min(sets, key=lambda labels: sets[labels].last)]

    def shared(self, workload: Workload) -> Mapping[str, str]:
        """The labels that every pod of the workload has worn alike."""
        sets = [set(labels) for labels in self.worn.get(workload, ())]
        return dict(sorted(set.intersection(*sets))) if sets else {}

    def stable(self, workload: Workload, lists: LabelLists | None = None) -> Mapping[str, str]:
        """Those of the shared ones that a selector may use."""
        return stable(self.shared(workload), lists or LabelLists())

    def changing(self, workload: Workload) -> tuple[str, ...]:
        """Keys that pods of the workload have worn with several values, or not all of them."""
        sets = self.worn.get(workload, {})
        if len(sets) < 2:
            return ()
        return tuple(sorted({key for labels in sets for key, _ in labels} - self.shared(workload).keys()))

    def past(self) -> Iterator[tuple[Workload, Labels, Worn]]:
        for workload, sets in self.worn.items():
            for labels, worn in sets.items():
                yield workload, labels, worn

    def forget(self, before: float) -> None:
        for workload in list(self.worn):
            sets = self.worn[workload]
            for labels in [labels for labels, worn in sets.items() if worn.last < before]:
                del sets[labels]
            if not sets:
                del self.worn[workload]
