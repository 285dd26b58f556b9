"""Questions to the policy engine about files: may this be opened, and why; what do the policies do; what changes.

Enters: Offline values and what a person asked. Leaves: values that a door can print. Nothing here reads a file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from aggregator.cluster.scenario import Traffic
from aggregator.errors import InputError
from aggregator.model.address import IPAddress, canonical_address
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy, Policy
from aggregator.model.cluster import Pod
from aggregator.model.endpoint import Connection
from aggregator.model.finding import Finding
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import Explanation
from aggregator.policy.describing.admin import describe_admin, describe_foreign
from aggregator.policy.describing.native import describe
from aggregator.policy.describing.words import Description
from aggregator.policy.diff import PolicyDiff, diff
from aggregator.policy.evaluation.endpoints import pair
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.fix import Fix, minimal_fix
from aggregator.policy.lint import findings_of, in_order, verdict_table
from aggregator.policy.lint.broad import BroadRule, broad_rules
from aggregator.policy.lint.profile import check_profile
from aggregator.policy.lint.raw import check_object
from aggregator.policy.lint.summary import summary
from aggregator.policy.profiles.profile import Answer, Profile
from aggregator.services.offline.load import Offline

_SHOWN = 5  # names in a refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One connection under one scenario's policies."""

    scenario: str
    traffic: Traffic
    explanation: Explanation
    fixes: tuple[Fix, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LintReport:
    scenario: str
    findings: tuple[Finding, ...]
    broad: tuple[BroadRule, ...]
    summary: Mapping[str, Any]


def traffic_of(src: str, dst: str, port: int, protocol: Protocol) -> Traffic:
    """A question as a person types it; a bare address means `ip:ADDRESS`."""
    return Traffic(src=_reference(src), dst=_reference(dst), port=port, protocol=protocol)


def _reference(text: str) -> str:
    if text.startswith("ip:") or "/" in text:
        return text
    try:
        return f"ip:{canonical_address(text)}"
    except ValueError as exc:
        raise InputError(f"{text!r} is neither NAMESPACE/POD nor an address") from exc


def judge(offline: Offline, traffic: Iterable[Traffic], profile: Profile) -> tuple[Judgement, ...]:
    """Each connection with its explanation, and the smallest rule that would open it."""
    found = []
    for item in traffic:
        src, dst = pair(offline.cluster, _end(offline, item.src), _end(offline, item.dst))
        connection = Connection(src=src, dst=dst, protocol=item.protocol, port=item.port)
        explanation = evaluate(offline.policies, offline.cluster, connection, profile)
        fixes = (minimal_fix(s, connection, offline.cluster) for s in (explanation.egress, explanation.ingress))
        found.append(
            Judgement(
                scenario=offline.name,
                traffic=item,
                explanation=explanation,
                fixes=tuple(fix for fix in fixes if fix is not None),
            )
        )
    return tuple(found)


def questions(offline: Offline) -> tuple[Traffic, ...]:
    """What a page itself asks about: its flows, then its expectations."""
    if offline.scenario is None:
        return ()
    flows = [flow.traffic for flow in offline.scenario.flows]
    return tuple(dict.fromkeys([*flows, *(e.traffic for e in offline.scenario.expectations)]))


def _end(offline: Offline, reference: str) -> Pod | IPAddress:
    if reference.startswith("ip:"):
        try:
            return canonical_address(reference.removeprefix("ip:"))
        except ValueError as exc:
            raise InputError(f"{reference!r} is not an address: {exc}", file=offline.file) from exc
    pod = next((pod for pod in offline.cluster.pods if str(pod) == reference), None)
    if pod is None:
        raise InputError(f"there is no pod {reference!r}{_pods_there(offline)}", file=offline.file)
    return pod


def _pods_there(offline: Offline) -> str:
    """Whom one could have meant, a few at most."""
    names = sorted(map(str, offline.cluster.pods))
    if not names:
        return "; there are no pods"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"; there {'is' if len(names) == 1 else 'are'} {', '.join(names[:_SHOWN])}{more}"


def lint_report(offline: Offline, profile: Profile) -> LintReport:
    """All findings, the over-broad rules by blast radius, and the summary for programs."""
    table = verdict_table(
        offline.native, offline.cluster, ipblock_matches_pods=profile.ipblock_matches_pods is not Answer.NO
    )
    links = [observed.link for observed in offline.links if observed.established]
    written = [finding for obj in offline.objects for finding in check_object(obj)]
    plugin = check_profile(offline.native, offline.cluster, profile)
    findings = in_order([*written, *plugin, *findings_of(table, observed=links)])
    return LintReport(
        scenario=offline.name,
        findings=findings,
        broad=broad_rules(table, links),
        summary=summary(table, findings),
    )


def describe_all(offline: Offline, wanted: str | None) -> tuple[Description, ...]:
    """Every policy, or the one called `namespace/name` or `Kind/name` (or by its name alone)."""
    chosen = [p for p in offline.policies if wanted is None or wanted in {str(p), p.name}]
    if wanted is not None and not chosen:
        raise InputError(f"there is no policy {wanted!r}", file=offline.file)
    return tuple(_described(policy, offline) for policy in chosen)


def _described(policy: Policy, offline: Offline) -> Description:
    match policy:
        case NetworkPolicy():
            return describe(policy, offline.cluster, offline.native)
        case AdminPolicy():
            return describe_admin(policy, offline.cluster)
        case ForeignPolicy():
            return describe_foreign(policy)
        case _:
            assert_never(policy)


def compare(before: Offline, after: Offline, profile: Profile) -> PolicyDiff:
    """The policies of both, judged in the cluster of `after`, or of `before` where that shows no pods."""
    cluster = after.cluster if after.cluster.pods else before.cluster
    matches_pods = profile.ipblock_matches_pods is not Answer.NO
    return diff(before.native, after.native, cluster, ipblock_matches_pods=matches_pods)


def isolated(description: Description) -> tuple[Direction, ...]:
    return tuple(part.direction for part in description.directions if part.isolated)
