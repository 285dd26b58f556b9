"""30 generation cases: flows in, properties out. Source: the project's own case collection (pitfalls C01 to C30).

Every policy is judged as rendered and parsed back, by the plain evaluator. In these cases a person has said yes to
every outside address seen.
"""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from aggregator.cluster.scenario import Scenario, load_scenarios
from aggregator.model.decision import Decisions
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, SelectorPeer
from aggregator.model.proposal import Generation
from aggregator.model.protocol import Direction
from aggregator.model.verdict import Verdict
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.generation.generate import generate
from aggregator.policy.manifest.parse import parse_policy
from aggregator.policy.manifest.render import render
from aggregator.services.offline import settings_of
from aggregator.services.offline.flows import resolve_flows

CASES = load_scenarios(Path(__file__).with_name("cases.json"))


def proposed(case: Scenario) -> Generation:
    return generate(resolve_flows(case).links, Decisions(), case.cluster, settings_of(case, include_external=True))


def parsed_back(generation: Generation) -> list[NetworkPolicy]:
    return [parse_policy(obj) for obj in yaml.safe_load_all(render(generation.policies)) if obj]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_holds(case: Scenario) -> None:
    generation = proposed(case)
    policies = parsed_back(generation)
    page = case.page
    assert policies == list(generation.policies)
    for expected, traffics in ((Verdict.ALLOWED, case.must_allow), (Verdict.DENIED, case.must_deny)):
        for traffic in traffics:
            found = evaluate(policies, case.cluster, case.connection(traffic))
            assert found.verdict is expected, f"{traffic} is {found}\n{render(policies)}"
    assert not label_keys(policies) & set(page.forbidden_label_keys)
    assert not {str(block.cidr) for block in blocks(policies)} & set(page.forbid_peers)
    for labels in page.forbid_selectors:
        assert LabelSelector(match_labels=tuple(sorted(labels.items()))) not in selectors(policies)
    codes = {finding.code for finding in generation.findings}
    assert set(page.expect_findings) <= codes
    if page.expect_policies is not None:
        assert len(policies) == page.expect_policies
    for direction, limit in page.max_rules.items():
        for policy in policies:
            assert len(policy.egress if direction == "egress" else policy.ingress) <= limit
    assert not any(selector.is_empty for selector in [p.pod_selector for p in policies])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_order_of_flows_changes_no_byte(case: Scenario) -> None:
    expected = render(proposed(case).policies)
    flows = list(case.flows)
    for seed in range(3):
        random.Random(seed).shuffle(flows)
        assert render(proposed(replace(case, flows=tuple(flows))).policies) == expected


def test_every_case_is_here() -> None:
    raw = json.loads(Path(__file__).with_name("cases.json").read_text())
    assert len(raw) == len(CASES) == 30
    assert sum(len(case.must_allow) + len(case.must_deny) for case in CASES) == 67  # 66, and one of `extra_must_allow`


def label_keys(policies: list[NetworkPolicy]) -> set[str]:
    return {key for selector in selectors(policies) for key, _ in selector.match_labels} | {
        requirement.key for selector in selectors(policies) for requirement in selector.match_expressions
    }


def selectors(policies: list[NetworkPolicy]) -> list[LabelSelector]:
    found = [policy.pod_selector for policy in policies]
    for peer in peers(policies):
        if isinstance(peer, SelectorPeer):
            found += [s for s in (peer.pod_selector, peer.namespace_selector) if s is not None]
    return found


def blocks(policies: list[NetworkPolicy]) -> list[IPBlock]:
    return [peer for peer in peers(policies) if isinstance(peer, IPBlock)]


def peers(policies: list[NetworkPolicy]) -> list[SelectorPeer | IPBlock]:
    return [
        peer
        for policy in policies
        for direction in Direction
        for rule in policy.rules(direction)
        for peer in rule.peers
    ]
