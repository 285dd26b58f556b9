"""The cases are sharp: each known wrong evaluator, made out of ours, is caught by every file said to catch it."""

import pytest
from casefiles import facts, parsed, raw_cases, scenarios
from mutations import MUTATIONS

from aggregator.policy.evaluation import evaluate as evaluating

KILLERS = {
    mutant["mutant"]: [name for name, by in mutant["killed_by"].items() if by["cases"]]
    for mutant in raw_cases("mutants")
}
LISTED = len(KILLERS)
KILLERS["v4 default route matches v6, less its excepts"] = ["grid"]
KILLERS["named port ignores the container's protocol"] = ["grid"]


def test_every_listed_mutant_is_written():
    assert LISTED == 38
    assert sorted(KILLERS) == sorted(mutation.name for mutation in MUTATIONS)


@pytest.mark.parametrize(
    ("mutation", "name"),
    [
        pytest.param(mutation, name, id=f"{mutation.name}-{name}")
        for mutation in MUTATIONS
        for name in KILLERS[mutation.name]
    ],
)
def test_a_mutant_is_caught(mutation, name, monkeypatch):
    assert not _is_caught(name, reparse=False, limit=1), "the evaluator itself must hold"
    mutation.apply(monkeypatch)
    assert _is_caught(name, reparse=mutation.reparse)


def _is_caught(name, *, reparse, limit=None):
    """Whether any fact of the file does not hold; stops at the first."""
    cases = parsed(name) if reparse else scenarios(name)
    return any(
        evaluating.evaluate(scenario.policies, scenario.cluster, scenario.connection(traffic)).verdict is not expected
        for scenario in cases[:limit]
        for traffic, expected in facts(scenario)
    )
