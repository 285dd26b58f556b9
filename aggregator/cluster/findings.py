"""Findings from the view itself: what a person should know before believing a verdict or a proposal.

Enters: a ClusterView. Leaves: Findings, each with its way out, in a stable order.
"""

from collections.abc import Iterator

from aggregator.cluster.kinds import Watched
from aggregator.cluster.view import ClusterView
from aggregator.model.finding import Finding, Severity


def view_findings(view: ClusterView) -> tuple[Finding, ...]:
    return tuple(sorted((*_unreadable(view), *_unknown_owners(view)), key=Finding.sort_key))


def forbidden_finding(cluster: str, watched: Watched, reason: str) -> Finding:
    """The API server lets the aggregator not read a kind."""
    return Finding(
        code="kind-forbidden",
        severity=Severity.ERROR if watched.needed else Severity.WARNING,
        subject=f"{cluster}: {watched.kind}",
        message=f"the API server does not let the aggregator read {watched.resource}: {reason}",
        way_out=f"grant get, list and watch on {watched.resource} (API group {watched.group!r}) to its ServiceAccount",
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
