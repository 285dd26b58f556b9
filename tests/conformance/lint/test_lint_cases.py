"""Every case of lint.json (own facts; `source` in each case tells from where): findings against facts."""

import json
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from aggregator.cluster.scenario import Scenario, scenario_of
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.policy.lint import findings_of, verdict_table
from aggregator.policy.lint.summary import summary

CASES = json.loads((Path(__file__).parent / "lint.json").read_text())
LIST_KEYS = {
    "unused",
    "redundant_policies",
    "redundant_rules",
    "empty_rules",
    "empty_peers",
    "ignored_directions",
    "missing_policy_types",
    "unresolved_named_ports",
    "dns_blocked",
    "dns_tcp_blocked",
    "over_broad",
    "generated_labels",
    "ipblock_on_pod_ip",
    "ipblock_on_service_ip",
    "hostnetwork_only",
    "mergeable",
    "isolates",
}


def _scenario(case: dict[str, Any]) -> Scenario:
    scenario = scenario_of(case)
    context = case["expected"].get("context", {})
    cluster = replace(
        scenario.cluster,
        pod_cidrs=tuple(map(ip_network, context.get("podCIDRs", ()))),
        service_cidrs=tuple(map(ip_network, context.get("serviceCIDRs", ()))),
    )
    return replace(scenario, cluster=cluster)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_lint_agrees_with_the_case(case: dict[str, Any]) -> None:
    scenario = _scenario(case)
    policies = [p for p in scenario.policies if isinstance(p, NetworkPolicy)]
    table = verdict_table(policies, scenario.cluster)
    found = summary(table, findings_of(table))
    checked = 0
    for key, expected in case["expected"].items():
        if key in {"note", "context"}:
            continue
        checked += 1
        got = found[key]
        if key in LIST_KEYS:
            assert sorted(got) == sorted(expected), key
        else:
            assert got == expected, key
    assert checked


def test_no_case_was_lost() -> None:
    assert len(CASES) == 36
    assert sum(len(set(case["expected"]) - {"note", "context"}) for case in CASES) == 56
