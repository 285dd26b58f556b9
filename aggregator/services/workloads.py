"""Which namespaces and workloads there are, also those that nobody has seen communicate.

Enters: a Question. Leaves: NamespaceRow and WorkloadRow views. Invariant: what the cluster shows and what only recorded
links still know are both listed, each once, in one order.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from aggregator.model.link import ObservedLink
from aggregator.model.workload import Workload
from aggregator.services.policies.applied import AppliedPolicies, directions_of
from aggregator.services.question import Question
from aggregator.services.views import NamespaceRow, WorkloadRow
from aggregator.store.links import Span


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What the rows of one workload add up to."""

    ingress: int = 0
    egress: int = 0
    failed: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def take(self, row: ObservedLink, *, outward: bool) -> None:
        if not row.established:
            self.failed += 1
            return
        if outward:
            self.egress += 1
        else:
            self.ingress += 1
        self.first = min(filter(None, (self.first, row.evidence.first_seen)), default=None)
        self.last = max(filter(None, (self.last, row.evidence.last_seen)), default=None)


def list_workloads(question: Question, namespace: str, span: Span | None) -> list[WorkloadRow]:
    """All of a namespace, or of every namespace that the caller sees."""
    seen = _counted(question, namespace) if span is None else _seen_in(question, namespace, span)
    applied = question.derived.selecting
    return [
        _row(question, workload, seen.get(workload, _Seen()), applied)
        for workload in sorted(question.known_workloads | seen.keys())
        if namespace in {"", workload.namespace} and question.sight.namespace(workload.namespace)
    ]


def _counted(question: Question, namespace: str) -> dict[Workload, _Seen]:
    counts = question.overview.by_workload(question.cluster.name, namespace)
    return {
        count.workload: _Seen(
            ingress=count.ingress,
            egress=count.egress,
            failed=count.failed,
            first=count.first_seen,
            last=count.last_seen,
        )
        for count in counts
    }


def _seen_in(question: Question, namespace: str, span: Span) -> dict[Workload, _Seen]:
    rows = question.rows(namespace=namespace or None, span=span)
    return _seen_by_workload([*rows.clear, *rows.masked])


def list_namespaces(question: Question) -> list[NamespaceRow]:
    pairs = question.overview.by_namespace(question.cluster.name)
    names = {n.name for n in question.cluster.namespaces} | {w.namespace for w in question.known_workloads}
    names |= {name for pair in pairs for name in (pair.src, pair.dst) if name}
    recorded = question.overview.workloads(question.cluster.name)
    per_namespace = Counter(workload.namespace for workload in question.known_workloads | recorded)
    pods = Counter(pod.namespace for pod in question.cluster.pods if not pod.ended)
    policies = Counter(policy.namespace for policy in question.cluster.policies)
    links: Counter[str] = Counter()
    last: dict[str, datetime] = {}
    for pair in pairs:
        for name in {pair.src, pair.dst} - {""}:
            links[name] += pair.links
            last[name] = max(last.get(name, pair.last_seen), pair.last_seen)
    return [
        NamespaceRow(
            name=name,
            workloads=per_namespace[name],
            pods=pods[name],
            links=links[name],
            last_seen=last.get(name),
            policies=policies[name],
        )
        for name in sorted(names)
        if question.sight.namespace(name)
    ]


def _seen_by_workload(rows: Iterable[ObservedLink]) -> dict[Workload, _Seen]:
    found: dict[Workload, _Seen] = {}
    for row in rows:
        for end, outward in ((row.link.src, True), (row.link.dst, False)):
            if isinstance(end, Workload):
                found.setdefault(end, _Seen()).take(row, outward=outward)
    return found


def _row(question: Question, workload: Workload, seen: _Seen, applied: AppliedPolicies) -> WorkloadRow:
    policies = applied.selecting(workload)
    pods = question.cluster.pods_by_workload.get(workload, ())
    return WorkloadRow(
        namespace=workload.namespace,
        kind=workload.kind,
        name=workload.name,
        pods=sum(not pod.ended for pod in pods),
        in_cluster=workload in question.known_workloads,
        observed=bool(seen.ingress or seen.egress),
        ingress_links=seen.ingress,
        egress_links=seen.egress,
        failed_links=seen.failed,
        first_seen=seen.first,
        last_seen=seen.last,
        policies=[str(policy) for policy in policies],
        isolated=[direction.value for direction in directions_of(policies)],
    )
