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
from aggregator.services.applied import AppliedPolicies, directions_of
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
    rows = question.rows(namespace=namespace or None, span=span)
    seen = _seen_by_workload([*rows.clear, *rows.masked])
    applied = AppliedPolicies(cluster=question.cluster)
    found = question.known_workloads | seen.keys()
    listed = []
    for workload in sorted(found):
        if namespace and workload.namespace != namespace:
            continue
        if question.sight.namespace(workload.namespace):
            listed.append(_row(question, workload, seen.get(workload, _Seen()), applied))
    return listed


def list_namespaces(question: Question) -> list[NamespaceRow]:
    rows = question.rows(span=None)
    seen = _seen_by_workload([*rows.clear, *rows.masked])
    workloads = question.known_workloads | seen.keys()
    names = {n.name for n in question.cluster.namespaces} | {w.namespace for w in workloads}
    per_namespace = Counter(workload.namespace for workload in workloads)
    pods = Counter(pod.namespace for pod in question.cluster.pods if not pod.ended)
    policies = Counter(policy.namespace for policy in question.cluster.policies)
    links: Counter[str] = Counter()
    last: dict[str, datetime] = {}
    for row in (*rows.clear, *rows.masked):
        for name in {end.namespace for end in (row.link.src, row.link.dst) if isinstance(end, Workload)}:
            links[name] += row.established
            at = row.evidence.last_seen
            if at is not None:
                last[name] = max(last.get(name, at), at)
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
