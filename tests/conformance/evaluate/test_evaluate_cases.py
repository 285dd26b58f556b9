"""Every fact of the case files, through both evaluators: each must give the stated verdict by itself."""

import numpy as np
import pytest
from casefiles import EVALUATED, facts, raw_cases, scenarios

from aggregator.model.finding import Severity
from aggregator.policy.compiled import VERDICTS, compile_policies
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.manifest.parse import parse_policy
from aggregator.policy.manifest.validate import is_accepted, validate
from aggregator.policy.profiles.known import CILIUM, GENERIC, PROFILES
from aggregator.policy.profiles.profile import Answer
from aggregator.services.offline.checking import check_scenarios

COUNTS = {"k8s_e2e": 506, "k8s_e2e_full_matrix": 25_056, "curated": 858, "grid": 16_121}


@pytest.mark.parametrize("name", EVALUATED)
def test_the_plain_evaluator_states_every_fact(name):
    checked, wrong = 0, []
    for scenario in scenarios(name):
        for traffic, expected in facts(scenario):
            checked += 1
            explanation = evaluate(scenario.policies, scenario.cluster, scenario.connection(traffic), GENERIC)
            if explanation.verdict is not expected:
                wrong.append((scenario.name, str(traffic), explanation))
    assert wrong == []
    assert checked == COUNTS[name]


@pytest.mark.parametrize("name", EVALUATED)
def test_the_compiled_evaluator_states_every_fact(name):
    checked, wrong = 0, []
    for scenario in scenarios(name):
        for traffic, expected, found in _compiled(scenario, GENERIC):
            checked += 1
            if found is not expected:
                wrong.append((scenario.name, str(traffic), found))
    assert wrong == []
    assert checked == COUNTS[name]


def _compiled(scenario, profile):
    stated = facts(scenario)
    connections = [scenario.connection(traffic) for traffic, _ in stated]
    ends = [end for connection in connections for end in (connection.src, connection.dst)]
    compiled = compile_policies(scenario.policies, scenario.cluster, profile, others=ends)
    codes = compiled.verdicts(
        np.array([compiled.number(c.src) for c in connections], dtype=np.int64),
        np.array([compiled.number(c.dst) for c in connections], dtype=np.int64),
        np.array([c.protocol.number for c in connections], dtype=np.int64),
        np.array([c.port for c in connections], dtype=np.int64),
    )
    return [(traffic, expected, VERDICTS[code]) for (traffic, expected), code in zip(stated, codes, strict=True)]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_both_evaluators_agree_under_every_profile(profile):
    for name in ("k8s_e2e", "curated"):
        for scenario in scenarios(name):
            for traffic, _, found in _compiled(scenario, profile):
                connection = scenario.connection(traffic)
                assert found is evaluate(scenario.policies, scenario.cluster, connection, profile).verdict, traffic


@pytest.mark.parametrize("name", ["k8s_e2e", "grid"])
def test_a_plug_in_whose_ipblock_spares_pods_gives_the_opposite_where_flagged(name):
    assert CILIUM.ipblock_matches_pods is Answer.NO
    flagged = 0
    for scenario in scenarios(name):
        flagged += sum(expectation.ipblock_pod for expectation in scenario.expectations)
        for traffic, expected in facts(scenario, ipblock_matches_pods=False):
            explanation = evaluate(scenario.policies, scenario.cluster, scenario.connection(traffic), CILIUM)
            assert explanation.verdict is expected, (scenario.name, str(traffic))
    assert flagged > 0


def test_wattle_test_counts_and_holds():
    report = check_scenarios([scenario for name in EVALUATED for scenario in scenarios(name)])
    assert report.as_dict() == {"checked": sum(COUNTS.values()), "failed": []}


@pytest.mark.parametrize("case", raw_cases("validation"), ids=lambda case: case["name"])
def test_validation(case):
    found = validate(case["object"])
    strict = validate(case["object"], strict_cidrs=True)
    match case["accepted"]:
        case True:
            assert found == strict == ()
        case False:
            assert not is_accepted(found)
            assert {violation.field for violation in found} == {case["field"]}
        case None:
            assert is_accepted(found)
            assert not is_accepted(strict)
            assert [(v.field, v.severity) for v in found] == [(case["field"], Severity.WARNING)]
            parse_policy(case["object"])


@pytest.mark.parametrize("name", ["k8s_e2e", "curated", "grid"])
def test_every_policy_of_the_cases_is_valid(name):
    objects = [obj for case in raw_cases(name) for obj in case["policies"]]
    assert objects
    assert [obj for obj in objects if validate(obj)] == []
