"""Which of the cluster's own ranges are not known, and how to come by them.

Enters: ClusterCidrs. Leaves: the finding "cluster subnets incomplete", with the command that fixes it.
"""

from collections.abc import Iterable

from aggregator.model.cidrs import CidrSource, ClusterCidrs
from aggregator.model.finding import Finding, Severity

INCOMPLETE = "cluster-subnets-incomplete"
LOOK = "kubectl cluster-info dump | grep -m 2 -oE -e '--(cluster-cidr|service-cluster-ip-range)=[^\"]+'"


def incomplete_finding(cidrs: ClusterCidrs, cluster: str) -> Finding | None:
    """Cluster subnets incomplete, with the command that fixes it; None when they are complete."""
    if cidrs.complete:
        return None
    lacking = " and ".join(f"{role.value} CIDR" for role in cidrs.missing)
    body = ", ".join(f'"{role.value}_cidrs": ["..."]' for role in cidrs.missing)
    return Finding(
        code=INCOMPLETE,
        severity=Severity.WARNING,
        subject=cluster,
        message=f"cluster subnets incomplete: the {lacking} was found nowhere, so no address can be called external",
        way_out=f"look: {LOOK}; then set by hand what it says: PUT /api/v1/settings/cidrs {{{body}}}",
    )


def complete_with(sources: Iterable[CidrSource], by_hand: Iterable[CidrSource]) -> tuple[CidrSource, ...]:
    """What was discovered and what a person set, the latter first, each once."""
    return tuple(dict.fromkeys((*by_hand, *sources)))
