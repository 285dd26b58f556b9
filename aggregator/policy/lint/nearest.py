"""What a selector that matches nothing was probably meant to match.

Enters: the cluster, and selectors. Leaves: words, or workloads that run no pod now. Invariant: every question is
answered once; a large cluster asks the same few again and again.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property

from aggregator.model.cluster import ClusterSnapshot, Labels, Pod
from aggregator.model.networkpolicy import LabelSelector, Operator
from aggregator.model.workload import Workload
from aggregator.policy.lint.universe import namespace_labels


class Wearers:
    """Who wears which labels, by namespace."""

    def __init__(self, cluster: ClusterSnapshot) -> None:
        self.cluster = cluster
        self._hints: dict[tuple[LabelSelector, str], str] = {}
        self._elsewhere: dict[LabelSelector, tuple[str, ...]] = {}

    @cached_property
    def pods(self) -> Mapping[str, tuple[Pod, ...]]:
        """Every pod, finished ones too, by namespace."""
        found: dict[str, list[Pod]] = {}
        for pod in self.cluster.pods:
            found.setdefault(pod.namespace, []).append(pod)
        return {namespace: tuple(pods) for namespace, pods in found.items()}

    @cached_property
    def _labels(self) -> Mapping[str, tuple[Mapping[str, str], ...]]:
        """The different label sets of the live pods of a namespace."""
        found: dict[str, dict[Labels, None]] = {}
        for pod in self.cluster.pods:
            if not pod.ended:
                found.setdefault(pod.namespace, {})[pod.labels] = None
        return {namespace: tuple(map(dict, sets)) for namespace, sets in found.items()}

    @cached_property
    def _at_rest(self) -> Mapping[str, tuple[tuple[Workload, Mapping[str, str]], ...]]:
        found: dict[str, list[tuple[Workload, Mapping[str, str]]]] = {}
        for record in self.cluster.workloads:
            pods = self.cluster.pods_by_workload.get(record.workload, ())
            if not record.host_network and all(pod.ended for pod in pods):
                template = dict(record.template_labels)
                found.setdefault(record.workload.namespace, []).append((record.workload, template))
        return {namespace: tuple(workloads) for namespace, workloads in found.items()}

    def dormant(self, namespace: str, selector: LabelSelector) -> tuple[Workload, ...]:
        """Workloads of the namespace that run no pod now and whose pods would match."""
        return tuple(w for w, template in self._at_rest.get(namespace, ()) if selector.matches(template))

    def nearest(self, selector: LabelSelector, namespace: str) -> str:
        """Why a selector matches nothing, and the label that was probably meant. "" when nothing is near."""
        key = (selector, namespace)
        if key not in self._hints:
            self._hints[key] = self._nearest(selector, namespace)
        return self._hints[key]

    def _nearest(self, selector: LabelSelector, namespace: str) -> str:
        if contradiction := _contradiction(selector):
            return contradiction
        here = self._labels.get(namespace, ())
        wanted = selector_labels(selector)
        wanted += [(r.key, "") for r in selector.match_expressions if r.operator is Operator.EXISTS]
        for label, value in wanted:
            if hint := nearest_label(label, value, here):
                return hint
        if selector not in self._elsewhere:
            self._elsewhere[selector] = tuple(
                sorted(n for n, sets in self._labels.items() if any(map(selector.matches, sets)))
            )
        elsewhere = [name for name in self._elsewhere[selector] if name != namespace]
        if elsewhere and not selector.is_empty:
            return f"pods with these labels are in the namespace {', '.join(elsewhere)}"
        return ""

    def nearest_namespace(self, selector: LabelSelector) -> str:
        """The namespace label that was probably meant."""
        labels = [namespace_labels(self.cluster, n.name) for n in self.cluster.namespaces]
        for key, value in selector_labels(selector):
            if hint := nearest_label(key, value, labels):
                return hint.replace("no pod has", "no namespace has")
        return ""


def selector_labels(selector: LabelSelector) -> list[tuple[str, str]]:
    """The labels that a selector asks for by value."""
    asked = [(r.key, v) for r in selector.match_expressions if r.operator is Operator.IN for v in r.values]
    return [*selector.match_labels, *asked]


def _contradiction(selector: LabelSelector) -> str:
    for key, value in selector.match_labels:
        for requirement in (r for r in selector.match_expressions if r.key == key):
            if not requirement.matches({key: value}):
                return (
                    f"{key}={value} contradicts {key} {requirement.operator} {', '.join(requirement.values)}".rstrip()
                )
    return ""


def nearest_label(key: str, value: str, here: Iterable[Mapping[str, str]]) -> str:
    """The label of a pod that is nearest to key=value, when none has exactly that."""
    labels = sorted({item for pod in here for item in pod.items()})
    if (key, value) in labels or (not value and any(k == key for k, _ in labels)):
        return ""
    if any(k == key for k, _ in labels):
        near = closest(value, [v for k, v in labels if k == key])
        return f"no pod has {key}={value}, did you mean {key}={near}?" if near else ""
    near = closest(key, sorted({k for k, _ in labels}))
    if near:
        return f"no pod has a label {key}, did you mean {near}?"
    same = [k for k, v in labels if v == value and value]
    return f"no pod has a label {key}, did you mean {same[0]}={value}?" if same else ""


def closest(word: str, candidates: Iterable[str]) -> str:
    """The candidate within a third of the word's length (at least two) by edits, "" when there is none."""
    scored = sorted((edit_distance(word, c), c) for c in candidates)
    return scored[0][1] if scored and scored[0][0] <= max(2, len(word) // 3) and scored[0][0] < len(word) else ""


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]
