"""Checking: unit tests for policies. Does everything that a scenario expects of its own policies hold?

Enters: Scenarios with expectations, a matrix, explanations and `expected.unprotected`. Leaves: a CheckReport that
counts what was checked and lists what does not hold. An UNKNOWN verdict holds for nobody.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aggregator.cluster.scenario import ExpectedExplanation, ExpectedSide, PolicySay, Scenario, Traffic
from aggregator.model.cluster import Pod
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction
from aggregator.model.verdict import DirectionExplanation, Explanation, PolicyReason, Verdict
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Answer, Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One expectation that does not hold. `check` = expectation | matrix | explanation | unprotected."""

    file: str
    scenario: str
    check: str
    src: str = ""
    dst: str = ""
    port: int | None = None
    protocol: str = ""
    expected: str
    actual: str
    reason: str

    def as_dict(self) -> Mapping[str, Any]:
        shown = {
            "file": self.file,
            "scenario": self.scenario,
            "check": self.check,
            "from": self.src,
            "to": self.dst,
            "port": self.port,
            "protocol": self.protocol,
            "expected": self.expected,
            "actual": self.actual,
            "reason": self.reason,
        }
        return {key: value for key, value in shown.items() if value not in ("", None)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    checked: int
    failed: tuple[Failure, ...]

    @property
    def holds(self) -> bool:
        return not self.failed

    def as_dict(self) -> Mapping[str, Any]:
        return {"checked": self.checked, "failed": [failure.as_dict() for failure in self.failed]}


def check_scenarios(scenarios: Iterable[Scenario], profile: Profile = GENERIC) -> CheckReport:
    """Every expectation of every scenario, under one plug-in's profile."""
    outcomes = [outcome for scenario in scenarios for outcome in _outcomes(scenario, profile)]
    return CheckReport(checked=len(outcomes), failed=tuple(outcome for outcome in outcomes if outcome is not None))


def _outcomes(scenario: Scenario, profile: Profile) -> Iterator[Failure | None]:
    """None for each check that holds."""
    for expectation in scenario.expectations:
        wanted = _allowed(expectation.allowed, expectation.ipblock_pod, profile)
        yield _verdict("expectation", scenario, expectation.traffic, wanted, profile)
    for (protocol, port), rows in scenario.matrix.items():
        for src, row in zip(scenario.order, rows, strict=True):
            for dst, cell in zip(scenario.order, row, strict=True):
                if cell != "-":
                    traffic = Traffic(src=src, dst=dst, port=port, protocol=protocol)
                    yield _verdict("matrix", scenario, traffic, cell == "1", profile)
    for explanation in scenario.explanations:
        yield from _explanation(scenario, explanation, profile)
    yield from _unprotected(scenario)


def _allowed(stored: bool, ipblock_pod: bool, profile: Profile) -> bool:  # noqa: FBT001 - the page's own words
    """The stored verdict is the one of a plug-in whose ipBlock matches pods (NP-20)."""
    return stored != (ipblock_pod and profile.ipblock_matches_pods is Answer.NO)


def _verdict(
    check: str,
    scenario: Scenario,
    traffic: Traffic,
    wanted: bool,  # noqa: FBT001 - as above
    profile: Profile,
) -> Failure | None:
    explanation = evaluate(scenario.policies, scenario.cluster, scenario.connection(traffic), profile)
    expected = Verdict.ALLOWED if wanted else Verdict.DENIED
    if explanation.verdict is expected:
        return None
    return _failure(
        check, scenario, traffic, expected=expected.value, actual=explanation.verdict.value, reason=told(explanation)
    )


def _failure(check: str, scenario: Scenario, traffic: Traffic, *, expected: str, actual: str, reason: str) -> Failure:
    return Failure(
        file=scenario.file,
        scenario=scenario.name,
        check=check,
        src=traffic.src,
        dst=traffic.dst,
        port=traffic.port,
        protocol=traffic.protocol.value,
        expected=expected,
        actual=actual,
        reason=reason,
    )


def told(explanation: Explanation) -> str:
    """An explanation in one line: `egress default-allow; ingress denied (app/deny: no-rules)`."""
    return f"egress {_told_side(explanation.egress)}; ingress {_told_side(explanation.ingress)}"


def _told_side(side: DirectionExplanation) -> str:
    says = ", ".join(
        f"{finding.policy}: {finding.reason}" + (f" {_numbers(finding.rules)}" if finding.rules else "")
        for finding in side.policies
    )
    return side.outcome + (f" ({says})" if says else "") + (f" [{side.cause}]" if side.cause else "")


def _numbers(rules: tuple[int, ...]) -> str:
    return "rule " + ",".join(map(str, rules))


def _explanation(scenario: Scenario, wanted: ExpectedExplanation, profile: Profile) -> Iterator[Failure | None]:
    """The verdict, where it is stated, and each side that is stated are one check each."""
    if wanted.allowed is not None:
        allowed = _allowed(wanted.allowed, wanted.ipblock_pod, profile)
        yield _verdict("explanation", scenario, wanted.traffic, allowed, profile)
    explanation = evaluate(scenario.policies, scenario.cluster, scenario.connection(wanted.traffic), profile)
    for name, side, actual in (
        ("egress", wanted.egress, explanation.egress),
        ("ingress", wanted.ingress, explanation.ingress),
    ):
        if side is None:
            continue
        if _side_holds(side, actual):
            yield None
        else:
            yield _failure(
                "explanation",
                scenario,
                wanted.traffic,
                expected=f"{name} {_expected_side(side)}",
                actual=f"{name} {_told_side(actual)}",
                reason=f"the {name} side is explained otherwise",
            )


def _side_holds(wanted: ExpectedSide, actual: DirectionExplanation) -> bool:
    """Every policy that is stated says so, and every policy that decides is stated.

    Beside an allow, policies that did not allow need not be stated.
    """
    if wanted.outcome != actual.outcome:
        return False
    if wanted.policies is None:
        return True
    says = {finding.policy: finding for finding in actual.policies}
    for say in wanted.policies:
        finding = says.pop(_full_name(say.policy, says), None)
        if finding is None or finding.reason != say.reason or say.rules not in (None, finding.rules):
            return False
    decided_by_allow = any(finding.reason is PolicyReason.ALLOWED for finding in actual.policies)
    return all(decided_by_allow and finding.reason is not PolicyReason.ALLOWED for finding in says.values())


def _full_name(policy: str, says: Mapping[str, object]) -> str:
    """A policy may be stated by its name alone where only one selecting policy is called so."""
    named = [full for full in says if full.rpartition("/")[2] == policy]
    return named[0] if len(named) == 1 else policy


def _expected_side(side: ExpectedSide) -> str:
    says = ", ".join(_expected_say(say) for say in side.policies or ())
    return side.outcome + (f" ({says})" if says else "")


def _expected_say(say: PolicySay) -> str:
    return f"{say.policy}: {say.reason}" + (f" {_numbers(say.rules)}" if say.rules else "")


def unprotected(policies: Iterable[NetworkPolicy], pods: Sequence[Pod], direction: Direction) -> tuple[Pod, ...]:
    """The pods that no policy of this direction selects; pods on the host's network and ended ones are nobody's."""
    acting = [policy for policy in policies if direction in policy.directions]
    return tuple(
        pod
        for pod in pods
        if not pod.host_network
        and not pod.ended
        and not any(
            policy.namespace == pod.namespace and policy.pod_selector.matches(dict(pod.labels)) for policy in acting
        )
    )


def _unprotected(scenario: Scenario) -> Iterator[Failure | None]:
    """`expected.unprotected.{ingress,egress}`: workloads that no policy of that direction selects."""
    stated = scenario.expected.get("unprotected")
    if stated is None:
        return
    if not isinstance(stated, Mapping) or set(stated) - {"ingress", "egress"}:
        raise scenario.refuse("must be lists of workloads under ingress and egress", "expected.unprotected")
    policies = [policy for policy in scenario.policies if isinstance(policy, NetworkPolicy)]
    for key, wanted in stated.items():
        direction = Direction[key.upper()]
        if not isinstance(wanted, list):
            raise scenario.refuse("must be a list of workloads", f"expected.unprotected.{key}")
        found = unprotected(policies, scenario.cluster.pods, direction)
        actual = {alias for pod in found for alias in _spellings(pod, wanted)}
        expected = {str(item) for item in wanted}
        yield (
            None
            if actual == expected
            else Failure(
                file=scenario.file,
                scenario=scenario.name,
                check="unprotected",
                expected=f"{key}: {', '.join(sorted(expected)) or 'nobody'}",
                actual=f"{key}: {', '.join(sorted(actual)) or 'nobody'}",
                reason="missing: "
                + (", ".join(sorted(expected - actual)) or "nobody")
                + "; unexpected: "
                + (", ".join(sorted(actual - expected)) or "nobody"),
            )
        )


def _spellings(pod: Pod, wanted: Sequence[object]) -> tuple[str, ...]:
    """A workload may be written namespace/name, with its kind, or by its pod; the page's own spelling counts."""
    workload = pod.workload
    name = f"{workload.namespace}/{workload.name}"
    spellings = (name, str(workload), f"{name}[{workload.kind}]", str(pod))
    return tuple(spelling for spelling in spellings if spelling in wanted)[:1] or spellings[:1]
