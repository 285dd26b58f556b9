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
from aggregator.services.paging import Page, Wanted, page_of_names
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
    listed = _Listed(question, namespace, span)
    return [listed.row(workload) for workload in listed.workloads]


def workloads_page(question: Question, namespace: str, span: Span | None, wanted: Wanted) -> Page[WorkloadRow]:
    """Of thousands, only those on the page are looked at closely."""
    listed = _Listed(question, namespace, span)
    page = page_of_names(listed.workloads, wanted)
    return Page(items=[listed.row(workload) for workload in page.items], total=page.total, next_cursor=page.next_cursor)


class _Listed:
    """The workloads of a question, in one order, and what is known of each."""

    def __init__(self, question: Question, namespace: str, span: Span | None) -> None:
        self._question = question
        self._seen = _counted(question, namespace) if span is None else _seen_in(question, namespace, span)
        known = (
            workload
            for workload in question.known_workloads | self._seen.keys()
            if namespace in {"", workload.namespace} and question.sight.namespace(workload.namespace)
        )
        self.workloads = sorted(known, key=lambda workload: (workload.namespace, workload.kind, workload.name))

    def row(self, workload: Workload) -> WorkloadRow:
        seen = self._seen.get(workload, _Seen())
        return _row(self._question, workload, seen, self._question.derived.selecting)


def _counted(question: Question, namespace: str) -> dict[Workload, _Seen]:
    name = question.cluster.name
    counts = question.overview.by_workload(name, namespace) if namespace else question.overview.whole(name)
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
    counts = question.overview.whole(question.cluster.name)
    known = question.known_workloads
    names = {n.name for n in question.cluster.namespaces}
    per_namespace = Counter(workload.namespace for workload in known)
    links: Counter[str] = Counter()
    last: dict[str, datetime] = {}
    for count in counts:
        name = count.workload.namespace
        per_namespace[name] += count.workload not in known
        links[name] += count.ingress + count.egress - count.inside  # a link inside is one
        last[name] = max(last.get(name, count.last_tried), count.last_tried)
    names |= per_namespace.keys()
    pods = Counter(pod.namespace for pod in question.cluster.pods if not pod.ended)
    policies = Counter(policy.namespace for policy in question.cluster.policies)
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
