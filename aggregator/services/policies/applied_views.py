"""Applied policies as a caller is shown them: whom each selects, what it says in words, what it did over the span.

Enters: a Question, rows. Leaves: AppliedPoliciesView, ExplainedLinkView. Invariant: hits come from the evaluator, link
by link: a link counts for every rule that allows it, and as denied for every selecting policy only where it is blocked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aggregator.model.link import Link, link_id
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction
from aggregator.model.verdict import DirectionOutcome, PolicyReason
from aggregator.model.workload import Workload
from aggregator.policy.describing.native import describe
from aggregator.policy.describing.words import text as words_of
from aggregator.policy.fix import minimal_fix
from aggregator.policy.generation.generate import MANAGED_BY
from aggregator.policy.manifest.render import render_one
from aggregator.services.policies.applied import AppliedPolicies
from aggregator.services.policies.policy_views import (
    AppliedPoliciesView,
    AppliedPolicyView,
    ExplainedLinkView,
    FixView,
    OtherPolicyView,
    PolicyUseView,
    UncoveredView,
)
from aggregator.services.question import Question, Rows
from aggregator.services.verdicts import LinkVerdict
from aggregator.services.wording import verdict_view

_DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)


@dataclass(slots=True, kw_only=True)
class _Use:
    allowed_links: int = 0
    allowed_connections: int = 0
    denied_links: int = 0
    denied_attempts: int = 0
    rules: Counter[tuple[Direction, int]] = field(default_factory=Counter)


def applied_policies(
    question: Question,
    rows: Rows,
    policies: Iterable[NetworkPolicy],
    workloads: Iterable[Workload],
    others: Iterable[OtherPolicyView],
    *,
    scope: str,
    span: str,
) -> AppliedPoliciesView:
    """These policies with their hits, those beside them, and which of these workloads nothing isolates."""
    applied = question.derived.selecting
    use = _use_by_policy(question, rows)
    return AppliedPoliciesView(
        scope=scope,
        span=span,
        policies=[_view(question, policy, applied, use.get(str(policy), _Use())) for policy in policies],
        others=list(others),
        uncovered=[
            UncoveredView(workload=str(workload), direction=direction.value)
            for workload in workloads
            for direction in _DIRECTIONS
            if direction not in applied.isolated(workload)
        ],
    )


def _use_by_policy(question: Question, rows: Rows) -> Mapping[str, _Use]:
    found: dict[str, _Use] = {}
    for row in rows.clear:
        explanation = question.applied.of(row.link).explanation
        if explanation is None:
            continue
        for side in (explanation.egress, explanation.ingress):
            for finding in side.policies:
                use = found.setdefault(finding.policy, _Use())
                if side.outcome is DirectionOutcome.DENIED:
                    use.denied_links += 1
                    use.denied_attempts += row.evidence.failed_attempts
                elif finding.reason is PolicyReason.ALLOWED:
                    use.allowed_links += 1
                    use.allowed_connections += row.evidence.connections
                    for rule in finding.rules:
                        use.rules[side.direction, rule] += row.evidence.connections
    return found


def _view(question: Question, policy: NetworkPolicy, applied: AppliedPolicies, use: _Use) -> AppliedPolicyView:
    others = [other for other in question.cluster.policies if other.namespace == policy.namespace and other != policy]
    selected = applied.selected_by(policy)
    return AppliedPolicyView(
        namespace=policy.namespace,
        name=policy.name,
        yaml=render_one(policy),
        words=words_of(describe(policy, question.cluster, others)),
        selects=[str(workload) for workload in selected],
        directions=[direction.value for direction in _DIRECTIONS if direction in policy.directions],
        made_by_wattle=set(MANAGED_BY) <= set(policy.labels),
        unused=not selected,
        use=PolicyUseView(
            allowed_links=use.allowed_links,
            allowed_connections=use.allowed_connections,
            denied_links=use.denied_links,
            denied_attempts=use.denied_attempts,
            rules=[
                use.rules[direction, number]
                for direction in _DIRECTIONS
                for number in range(1, len(policy.rules(direction)) + 1)
            ],
        ),
    )


def explained(question: Question, link: Link) -> ExplainedLinkView:
    """Which side's policies allow or block it, and the smallest change on each side that blocks."""
    found = question.applied.of(link)
    return ExplainedLinkView(
        id=str(link_id(link)),
        link=str(link),
        applied=verdict_view(question, found),
        example=found.example,
        fixes=list(_fixes(question, found)),
    )


def _fixes(question: Question, found: LinkVerdict) -> Iterable[FixView]:
    if found.explanation is None or found.connection is None or question.stale:
        return
    for side in (found.explanation.egress, found.explanation.ingress):
        fix = minimal_fix(side, found.connection, question.cluster)
        if fix is not None:
            yield FixView(
                direction=fix.direction.value, policy=fix.policy, yaml=_rule_text(fix.policy, fix.direction, fix.rule)
            )


def _rule_text(policy: str, direction: Direction, rule: object) -> str:
    """The rule as it stands in a policy's spec."""
    namespace, _, name = policy.partition("/")
    rules = {"ingress": (rule,)} if direction is Direction.INGRESS else {"egress": (rule,)}
    whole = render_one(NetworkPolicy(namespace=namespace, name=name, policy_types=(direction,), **rules))  # type: ignore[arg-type]
    lines = whole.splitlines()
    start = lines.index(f"  {direction.value.lower()}:")
    return "\n".join(line[2:] for line in lines[start:]) + "\n"
