"""Selectors that select exactly one workload among all of its namespace.

Enters: a ClusterSnapshot and a person's label lists. Leaves: per workload a Selected or a NotSeparable. Invariant: a
selector never matches a pod, a pod template or a scaled-to-zero workload of another workload of the namespace, matches
every one of its own, and is never empty (NP-48, NP-49).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from aggregator.model.cluster import ClusterSnapshot, Labels
from aggregator.model.decision import LabelLists
from aggregator.model.networkpolicy import LabelSelector, Operator, Requirement
from aggregator.model.workload import Workload
from aggregator.policy.generation.labels import LabelClass, classify, classify_key, is_version_key, preference

MAX_SEARCHED_SIZE = 3  # larger discriminating sets are found by taking all stable labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    selector: LabelSelector
    volatile_keys: tuple[str, ...] = ()  # keys that change with an upgrade, used because nothing else separates


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSeparable:
    """`others` are the workloads that every possible selector would match, too; empty when there is no label at all."""

    reason: str
    others: tuple[Workload, ...] = ()
    no_labels: bool = False


Selection = Selected | NotSeparable


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """One set of labels that pods of a workload wear."""

    workload: Workload
    labels: Mapping[str, str]


class NamespaceSelectors:
    """Selectors for the workloads of one namespace, by an index from label to the variants that wear it."""

    def __init__(
        self,
        variants: Iterable[tuple[Workload, Labels]],
        owners: Mapping[Workload, Labels],
        lists: LabelLists,
        changing: Mapping[Workload, frozenset[str]] | None = None,
    ) -> None:
        seen: dict[tuple[Workload, Labels], None] = dict.fromkeys(variants)
        self._variants = [_Variant(workload=workload, labels=dict(labels)) for workload, labels in sorted(seen)]
        self._owners = owners
        self._changing = changing or {}
        self._lists = lists
        self._answers: dict[Workload, Selection] = {}

    @cached_property
    def _by_label(self) -> Mapping[tuple[str, str], frozenset[int]]:
        found: dict[tuple[str, str], set[int]] = {}
        for number, variant in enumerate(self._variants):
            for label in variant.labels.items():
                found.setdefault(label, set()).add(number)
        return {label: frozenset(numbers) for label, numbers in found.items()}

    @cached_property
    def _by_workload(self) -> Mapping[Workload, tuple[int, ...]]:
        found: dict[Workload, list[int]] = {}
        for number, variant in enumerate(self._variants):
            found.setdefault(variant.workload, []).append(number)
        return {workload: tuple(numbers) for workload, numbers in found.items()}

    def knows(self, workload: Workload) -> bool:
        return workload in self._by_workload

    def select(self, workload: Workload) -> Selection:
        """The selector of a workload, or why there is none."""
        answer = self._answers.get(workload)
        if answer is None:
            answer = self._answers[workload] = self._find(workload)
        return answer

    def _find(self, workload: Workload) -> Selection:
        own = self._by_workload.get(workload)
        if not own:
            return NotSeparable(reason=f"the cluster shows no pod and no template of {workload}")
        common = self._common(own)
        usable = {key: value for key, value in common.items() if classify(key, value) is LabelClass.STABLE}
        owner = {k: v for k, v in self._owners.get(workload, ()) if self._lists.permits(k) and common.get(k) == v}
        found = next((one for one in self._candidates(common, usable, owner, own) if one is not None), None)
        if found is not None:
            return found
        if not usable:
            return NotSeparable(reason=f"{workload} has no label that lasts", no_labels=True)
        others = tuple(sorted({self._variants[n].workload for n in self._matching(usable)} - {workload}))
        names = ", ".join(str(other) for other in others)
        return NotSeparable(reason=f"every label of {workload} that lasts is worn by {names}, too", others=others)

    def _candidates(
        self, common: Mapping[str, str], usable: Mapping[str, str], owner: Mapping[str, str], own: tuple[int, ...]
    ) -> Iterator[Selected | None]:
        """Best first; each is looked for only when those before it are not to be had."""
        yield self._whole({key: value for key, value in owner.items() if key in usable}, own)
        changing = self._changing.get(self._variants[own[0]].workload)
        if changing:  # what its pods have worn otherwise before may change again
            yield self._smallest({key: value for key, value in usable.items() if key not in changing}, own)
        yield self._smallest(usable, own)
        yield self._whole({k: v for k, v in owner.items() if classify_key(k) is not LabelClass.GENERATED}, own)
        yield self._smallest({k: v for k, v in common.items() if k in usable or is_version_key(k)}, own)
        yield self._with_absence(usable, own)

    def _common(self, own: tuple[int, ...]) -> dict[str, str]:
        """Permitted labels that every pod and template of the workload wears alike, generated ones left out."""
        first, *rest = (self._variants[number].labels for number in own)
        return {
            key: value
            for key, value in first.items()
            if classify_key(key) is not LabelClass.GENERATED
            and self._lists.permits(key)
            and all(labels.get(key) == value for labels in rest)
        }

    def _matching(self, labels: Mapping[str, str]) -> frozenset[int]:
        groups = sorted((self._by_label.get(label, frozenset()) for label in labels.items()), key=len)
        return frozenset.intersection(*groups) if groups else frozenset(range(len(self._variants)))

    def _whole(self, labels: Mapping[str, str], own: tuple[int, ...]) -> Selected | None:
        if not labels or self._matching(labels) != frozenset(own):
            return None
        return _selected(labels)

    def _smallest(self, labels: Mapping[str, str], own: tuple[int, ...]) -> Selected | None:
        """The smallest exact set; between equals, the one with the best-known keys."""
        keys, exact = sorted(labels, key=preference), frozenset(own)
        for key in keys:
            if self._by_label[key, labels[key]] == exact:
                return _selected({key: labels[key]})
        if not keys or self._matching(labels) != exact:
            return None
        for size in range(2, min(MAX_SEARCHED_SIZE, len(keys)) + 1):
            for chosen in combinations(keys, size):
                found = self._whole({key: labels[key] for key in chosen}, own)
                if found is not None:
                    return found
        return _selected(labels)

    def _with_absence(self, labels: Mapping[str, str], own: tuple[int, ...]) -> Selected | None:
        """The stable labels, and the absence of keys that only the others wear (NP-16: DoesNotExist)."""
        if not labels:
            return None
        others = self._matching(labels) - frozenset(own)
        worn = {key for number in own for key in self._variants[number].labels}
        missing: list[str] = []
        while others:
            counts: dict[str, int] = {}
            for number in others:
                for key, value in self._variants[number].labels.items():
                    if key not in worn and self._lists.permits(key) and classify(key, value) is LabelClass.STABLE:
                        counts[key] = counts.get(key, 0) + 1
            if not counts:
                return None
            best = min(counts, key=lambda key: (-counts[key], preference(key)))
            missing.append(best)
            others = frozenset(number for number in others if best not in self._variants[number].labels)
        return _selected(labels, absent=missing)


class Selectors:
    """Selectors for a whole cluster, each namespace indexed when it is first asked for."""

    def __init__(self, cluster: ClusterSnapshot, lists: LabelLists) -> None:
        self._lists = lists
        self._namespaces: dict[str, NamespaceSelectors] = {}
        self._variants: dict[str, list[tuple[Workload, Labels]]] = {}
        self._owners: dict[str, dict[Workload, Labels]] = {}
        self._changing = {r.workload: frozenset(r.changing_labels) for r in cluster.workloads if r.changing_labels}
        for pod in cluster.pods:
            self._variants.setdefault(pod.namespace, []).append((pod.workload, pod.labels))
        for record in cluster.workloads:
            namespace = record.workload.namespace
            template = record.template_labels or record.selector
            if template or record.workload not in cluster.pods_by_workload:
                self._variants.setdefault(namespace, []).append((record.workload, template))
            self._owners.setdefault(namespace, {})[record.workload] = record.selector

    def select(self, workload: Workload) -> Selection:
        return self.namespace(workload.namespace).select(workload)

    def namespace(self, name: str) -> NamespaceSelectors:
        found = self._namespaces.get(name)
        if found is None:
            variants, owners = self._variants.get(name, ()), self._owners.get(name, {})
            found = NamespaceSelectors(variants, owners, self._lists, self._changing)
            self._namespaces[name] = found
        return found


def _selected(labels: Mapping[str, str], absent: Iterable[str] = ()) -> Selected:
    volatile = tuple(sorted(key for key, value in labels.items() if classify(key, value) is not LabelClass.STABLE))
    requirements = tuple(Requirement(key=key, operator=Operator.DOES_NOT_EXIST) for key in sorted(absent))
    selector = LabelSelector(match_labels=tuple(sorted(labels.items())), match_expressions=requirements)
    return Selected(selector=selector, volatile_keys=volatile)
