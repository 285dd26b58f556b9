"""Findings from the view itself: what a person should know before believing a verdict or a proposal.

Enters: a ClusterView and what a person listed. Leaves: Findings, each with its way out, in a stable order.
"""

from collections.abc import Iterator

from aggregator.cluster.cni import cni_findings
from aggregator.cluster.kinds import Watched
from aggregator.cluster.view import ClusterView
from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot
from aggregator.model.decision import LabelDecision
from aggregator.model.finding import Finding, Severity
from aggregator.policy.generation.labels import stable
from aggregator.policy.generation.selectors import NotSeparable, Selectors


class ViewFindings:
    """The findings of a view, worked out anew only when it has changed."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._generation = -1
        self._found: tuple[Finding, ...] = ()

    def now(self) -> tuple[Finding, ...]:
        generation = self._view.generation
        if generation != self._generation:
            self._found, self._generation = view_findings(self._view), generation
        return self._found


def view_findings(view: ClusterView, labels: LabelDecision | None = None) -> tuple[Finding, ...]:
    """Everything but what a source knows of its own (files, watches)."""
    lists = labels or LabelDecision()
    with view.lock:
        snapshot = view.snapshot()
        found = (*_unreadable(view), *_unknown_owners(view), *cni_findings(view))
    return tuple(
        sorted(
            (*found, *namespace_findings(snapshot, lists), *selector_findings(snapshot, lists)), key=Finding.sort_key
        )
    )


def forbidden_finding(cluster: str, watched: Watched, reason: str) -> Finding:
    """The API server does not let the aggregator read a kind."""
    return Finding(
        code="kind-forbidden",
        severity=Severity.ERROR if watched.needed else Severity.WARNING,
        subject=f"{cluster}: {watched.kind}",
        message=f"the API server does not let the aggregator read {watched.resource}: {reason}",
        way_out=f"grant get, list and watch on {watched.resource} (API group {watched.group!r}) to its ServiceAccount",
    )


def namespace_findings(snapshot: ClusterSnapshot, labels: LabelDecision) -> Iterator[Finding]:
    """Namespaces that no rule of another namespace can name (NP-51)."""
    for namespace in snapshot.namespaces:
        worn = dict(namespace.labels)
        named = worn.get(NAMESPACE_NAME_LABEL) == namespace.name
        if named and labels.namespace_labels.permits(NAMESPACE_NAME_LABEL):
            continue
        others = {k: v for k, v in stable(worn, labels.namespace_labels).items() if k != NAMESPACE_NAME_LABEL}
        why = f"excluded by the label lists: {NAMESPACE_NAME_LABEL}" if named else f"absent: {NAMESPACE_NAME_LABEL}"
        yield Finding(
            code="namespace-without-labels",
            severity=Severity.WARNING,
            subject=namespace.name,
            message=f"rules cannot name the namespace {namespace.name} by the label that every namespace has ({why})"
            + (f"; it also wears {', '.join(sorted(others))}" if others else " and it wears no other that lasts"),
            way_out=f"permit {NAMESPACE_NAME_LABEL} in the namespace label lists"
            if named
            else f"kubectl label namespace {namespace.name} {NAMESPACE_NAME_LABEL}={namespace.name}",
        )


def selector_findings(snapshot: ClusterSnapshot, labels: LabelDecision) -> Iterator[Finding]:
    """Workloads that no selector tells from others of their namespace (NP-48, NP-49)."""
    selectors = Selectors(snapshot, labels.workload_labels)
    on_host = {r.workload for r in snapshot.workloads if r.host_network}
    on_host |= {pod.workload for pod in snapshot.pods if pod.host_network}
    workloads = {record.workload for record in snapshot.workloads} | set(snapshot.pods_by_workload)
    for workload in sorted(workloads - on_host):  # policies do not act on the node's network (NP-28)
        answer = selectors.select(workload)
        if isinstance(answer, NotSeparable):
            yield Finding(
                code="workload-not-separable",
                severity=Severity.WARNING,
                subject=str(workload),
                message=answer.reason,
                way_out=f"give its pod template a label of its own, e.g. app.kubernetes.io/name: {workload.name}",
            )


def _unreadable(view: ClusterView) -> Iterator[Finding]:
    for (kind, namespace, name), reason in view.unreadable.items():
        yield Finding(
            code="object-unreadable",
            severity=Severity.WARNING,
            subject=f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}",
            message=f"the object makes no sense and was left out: {reason}",
            way_out="correct the object",
        )


def _unknown_owners(view: ClusterView) -> Iterator[Finding]:
    for facts in view.pod_facts.values():
        if facts.owner is not None and view.owners.top(facts) is None:
            yield Finding(
                code="owner-not-seen",
                severity=Severity.WARNING,
                subject=f"{facts.namespace}/{facts.name}",
                message=f"its controller {facts.owner.kind} {facts.owner.name} is not in the view, so what owns that "
                "is not known",
                way_out=f"add the {facts.owner.kind}: kubectl get {facts.owner.kind.lower()} -n {facts.namespace} "
                f"{facts.owner.name} -o yaml",
            )
