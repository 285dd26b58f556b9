"""Policies of real applications, and spellings that people and tools write, against what they mean."""

from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.cluster.scenario import Scenario, load_scenarios
from aggregator.services.offline.checking import check_scenarios

PAGES = load_scenarios(Path(__file__).parent / "pages.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_holds(page: Scenario) -> None:
    report = check_scenarios([page])
    assert report.checked >= len(page.expectations) > 0
    assert report.failed == ()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_opposite_of_each_expectation_does_not(page: Scenario) -> None:
    turned = tuple(replace(expectation, allowed=not expectation.allowed) for expectation in page.expectations)
    report = check_scenarios([replace(page, expectations=turned, explanations=(), expected={})])
    assert len(report.failed) == len(turned)
