"""What a proposal says besides the rows that were seen: what stands in its way, and rows that nobody has seen.

Enters: a ProposalView. Leaves: Obstacles, each with its way out; Announced rows to decide. Nothing is decided here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.services.policies.policy_views import ProposalView
from aggregator.services.question import WorkloadRef
from aggregator.services.views import FindingView, LinkRow

# Findings of a proposal that no switch at a row mends: said on top, with the way out.
IN_THE_WAY = (
    "certificate-broken",
    "workload-without-usable-labels",
    "selector-not-separable",
    "namespace-without-labels",
    "dns-not-separable",
    "dns-not-found",
    "cluster-subnets-incomplete",
    "overwrites-policy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A row that nobody has seen: declared by an object of the cluster, or included by a person."""

    id: str
    src: str
    dst: str
    port: str
    text: str
    included: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What stands in the way of a right policy, and how to take it away; `more`: how often it stands there besides."""

    severity: str
    subject: str
    message: str
    way_out: str
    more: int
    settings: str  # the part of Settings that mends it, or ""


def obstacles(proposal: ProposalView | None) -> list[Obstacle]:
    """Each once for what it is about, in the order of IN_THE_WAY."""
    found: dict[tuple[int, str], list[FindingView]] = {}
    for one in proposal.findings if proposal is not None else ():
        if one.code in IN_THE_WAY:
            found.setdefault((IN_THE_WAY.index(one.code), one.subject), []).append(one)
    parts = {"namespace-without-labels": "labels", "cluster-subnets-incomplete": "cidrs"}
    return [
        Obstacle(
            severity=first.severity,
            subject=first.subject,
            message=first.message,
            way_out=first.way_out,
            more=len(rest),
            settings=parts.get(first.code, ""),
        )
        for _, (first, *rest) in sorted(found.items())
    ]


def announced(proposal: ProposalView | None, rows: Sequence[LinkRow], ref: WorkloadRef, tab: str) -> list[Announced]:
    """Of this direction: callers that the cluster's own objects announce, and unseen rows that a person included."""
    if proposal is None:
        return []
    own, seen = f"{ref.namespace}/{ref.kind}/{ref.name}", {row.id for row in rows}
    included = [
        Announced(id=row.id, src=row.src, dst=row.dst, port=f"{row.protocol} {row.port}", text=row.text, included=True)
        for row in proposal.included
        if row.id not in seen
    ]
    offered = [
        Announced(id=row.id, src=row.src, dst=row.dst, port=f"{row.protocol} {row.port}", text=row.text, included=False)
        for row in proposal.declared
    ]
    return [one for one in (*offered, *included) if own == (one.dst if tab == "ingress" else one.src)]
