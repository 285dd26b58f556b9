"""What a set of policies does as a whole, and what each policy and rule adds to it.

Enters: the VerdictTable. Leaves: vacuous, redundant and shadowed, by NETPOL's definitions: remove it and compare all
verdicts. "Redundant" is a statement about the pods of now: a default-deny is never proposed for deletion.
"""

from collections.abc import Iterator

from aggregator.model.finding import Finding, Severity
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.policy.lint.codes import Code
from aggregator.policy.lint.table import RuleRef, VerdictTable
from aggregator.policy.lint.universe import all_rules


def rule_subject(policy: NetworkPolicy, ref: RuleRef) -> str:
    """A rule's name in findings: namespace/policy:direction:index, 0-based."""
    return f"{policy}:{ref.direction.value.lower()}:{ref.index}"


def check_effect(table: VerdictTable) -> Iterator[Finding]:
    """Vacuous sets and policies, redundant and shadowed policies and rules."""
    policies = table.universe.policies
    # Of policies in files without any pod nothing is known, and that is no fault of theirs.
    if policies and table.universe.cluster.pods and table.is_vacuous():
        yield Finding(
            code=Code.VACUOUS,
            severity=Severity.WARNING,
            subject="all policies",
            message="together these policies deny nothing",
            way_out="check the selectors and look for a stray empty rule ('- {}')",
        )
    for number, policy in enumerate(policies):
        yield from _allows_everything(policy)
        if table.subjects[number]:
            yield from _redundant_policy(table, number)
            yield from _redundant_rules(table, number)


def _allows_everything(policy: NetworkPolicy) -> Iterator[Finding]:
    for direction in sorted(policy.directions, key=lambda d: d.value):
        if any(not rule.peers and not rule.ports for rule in policy.rules(direction)):
            yield Finding(
                code=Code.ALLOWS_EVERYTHING,
                severity=Severity.WARNING,
                subject=f"{policy}:{direction.value.lower()}",
                message=f"an empty rule allows all {direction.value.lower()} of the selected pods",
                way_out="remove the empty rule, or name who may connect and to which ports",
            )


def is_default_deny(policy: NetworkPolicy) -> bool:
    """Whether it selects a whole namespace and allows nothing in at least one direction."""
    return policy.pod_selector.is_empty and any(not policy.rules(d) for d in policy.directions)


def _redundant_policy(table: VerdictTable, number: int) -> Iterator[Finding]:
    if table.changes_without_policy(number):
        return
    policies = table.universe.policies
    policy = policies[number]
    if is_default_deny(policy):
        yield Finding(
            code=Code.REDUNDANT_POLICY,
            severity=Severity.INFO,
            subject=str(policy),
            message="redundant now: other policies isolate every pod that it selects",
            way_out="keep it: it still protects pods that are to come",
        )
        return
    for other in table.beside(number):
        broader = policies[other]
        if _stands_in(table, number, other):
            yield Finding(
                code=Code.SHADOWED_POLICY,
                severity=Severity.WARNING,
                subject=str(policy),
                message=f"redundant now: {broader} isolates the same pods and allows all that this one allows",
                way_out=f"remove it, or narrow {broader} if this one was meant to restrict: policies only add up",
            )
            return
    yield Finding(
        code=Code.REDUNDANT_POLICY,
        severity=Severity.INFO,
        subject=str(policy),
        message="redundant now: no verdict changes without it",
        way_out="remove it if it is not meant for pods that are to come",
    )


def _stands_in(table: VerdictTable, number: int, other: int) -> bool:
    """Whether `other` alone isolates all that `number` isolates and opens all that it opens."""
    mine, theirs = table.universe.policies[number], table.universe.policies[other]
    return (
        mine.directions <= theirs.directions
        and not table.subjects[number] & ~table.subjects[other]
        and table.covers(number, lambda rule: rule.policy == other)
    )


def _redundant_rules(table: VerdictTable, number: int) -> Iterator[Finding]:
    policy = table.universe.policies[number]
    for direction, index, _, _ in all_rules(policy):
        ref = RuleRef(policy=number, direction=direction, index=index)
        if table.changes_without_rule(ref):
            continue
        if not table.opens_anything(ref):
            code, reason = Code.REDUNDANT_RULE, "it matches nothing"
        else:
            code, reason = _shadow(table, ref)
        yield Finding(
            code=code,
            severity=Severity.INFO,
            subject=rule_subject(policy, ref),
            message=f"redundant now: {reason}",
            way_out="remove the rule, or narrow what covers it",
        )


def _shadow(table: VerdictTable, ref: RuleRef) -> tuple[Code, str]:
    for other in table.rules_beside(ref):
        if table.covers(ref, frozenset({other}).__contains__):
            by = rule_subject(table.universe.policies[other.policy], other)
            return Code.SHADOWED_RULE, f"{by} allows all that it allows"
    if table.covers(ref, lambda rule: rule != ref):
        return Code.REDUNDANT_RULE, "other rules together allow all that it allows"
    return Code.REDUNDANT_RULE, "the other end denies all that only this rule allows"
