"""Lint: what a person should know about a set of policies, each with the way out.

Enters: NetworkPolicies, the cluster that they act on, the links that were seen. Leaves: Findings with stable codes
(docs/findings.md) in a total order. Invariant: verdict-based findings are exact over every pod of the cluster, every
edge of every ipBlock and every port that the policies can tell apart.
"""

from collections.abc import Iterable

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.finding import Finding, Severity
from aggregator.model.link import Link
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.policy.generation.dns import find_dns
from aggregator.policy.lint.admin import check_admin, of_networkpolicies_alone
from aggregator.policy.lint.broad import check_broad
from aggregator.policy.lint.effect import check_effect
from aggregator.policy.lint.reach import check_reach
from aggregator.policy.lint.scope import check_scope
from aggregator.policy.lint.static import Owners, check_static
from aggregator.policy.lint.table import VerdictTable
from aggregator.policy.lint.universe import Universe

_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


def verdict_table(
    policies: Iterable[NetworkPolicy], cluster: ClusterSnapshot, *, ipblock_matches_pods: bool = True
) -> VerdictTable:
    """What every finding on the effect of policies is read off."""
    dns = find_dns(cluster)
    addresses = (*dns.caches, *(ip for ip, _ in dns.addresses))
    universe = Universe(policies, cluster, addresses=addresses, ipblock_matches_pods=ipblock_matches_pods)
    return VerdictTable(universe)


def lint(
    policies: Iterable[NetworkPolicy],
    cluster: ClusterSnapshot,
    *,
    observed: Iterable[Link] = (),
    ipblock_matches_pods: bool = True,
) -> tuple[Finding, ...]:
    """All findings, worst first."""
    table = verdict_table(policies, cluster, ipblock_matches_pods=ipblock_matches_pods)
    return findings_of(table, observed=observed)


def findings_of(table: VerdictTable, *, observed: Iterable[Link] = ()) -> tuple[Finding, ...]:
    """All findings that a table shows, worst first."""
    found: list[Finding] = []
    owners = Owners(table.universe.cluster)
    for policy in table.universe.policies:
        found += check_static(policy, owners)
    found += check_scope(table)
    found += check_effect(table)
    found += check_broad(table, observed)
    found += check_reach(table)
    found += check_admin(table)
    return in_order(of_networkpolicies_alone(found, table.universe.cluster))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first, then by code, subject and message; each once."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: (_RANK[f.severity], *f.sort_key())))
