"""A proof is kept for what it is about: neither asked for twice, nor used for anything else."""

from collections.abc import Sequence
from typing import Any

import pytest

from aggregator.model.decision import Choice
from aggregator.model.link import link_id
from aggregator.model.verdict import Verdict
from aggregator.policy.second import compiled_verdicts
from aggregator.services.authority.caller import developer
from aggregator.services.deciding.decisions import ANY
from aggregator.services.question import WorkloadRef
from aggregator.services.review import Review
from tests.integration.services.world import (
    OLD,
    SHOP,
    WEB,
    Seen,
    World,
    dns_objects,
    link,
    other_objects,
    record,
    shop_objects,
)

ME = developer()
WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")


class Counting:
    """The second evaluator, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, *arguments: Any) -> Sequence[Verdict]:
        self.asked += 1
        return compiled_verdicts(*arguments)


@pytest.fixture
def second() -> Counting:
    return Counting()


@pytest.fixture
def review(world: World, second: Counting) -> Review:
    return world.review(second=second)


def test_the_same_proposal_is_proved_once(world: World, review: Review, second: Counting) -> None:
    first = review.proposal(ME, WEB_REF)
    asked = second.asked
    record(world.store, [Seen(link=link(WEB, OLD, 9042), count=3)])  # other counts, the same promises
    again = review.at_once().proposal(ME, WEB_REF)
    assert second.asked == asked
    assert again.certificate == first.certificate
    assert again.findings == first.findings


def test_a_decision_or_another_cluster_is_proved_anew(world: World, review: Review, second: Counting) -> None:
    review.proposal(ME, WEB_REF)
    asked = second.asked
    review.deciding.decide_links(
        ME, WEB_REF, [str(link_id(link(WEB, OLD, 9042)))], Choice.EXCLUDE, reason="", if_match=ANY
    )
    without = review.proposal(ME, WEB_REF)
    assert second.asked > asked
    assert without.certificate.denied
    asked = second.asked
    world.show([*dns_objects(), *shop_objects(), *other_objects()[:-1]])  # one applied policy less
    review.proposal(ME, WEB_REF)
    assert second.asked > asked


def test_parts_of_one_request_are_of_one_cut(world: World, review: Review) -> None:
    once = review.at_once()
    before = once.workload_links(ME, WEB_REF)
    record(world.store, [Seen(link=link(WEB, OLD, 9043))])
    assert [row.id for row in once.workload_links(ME, WEB_REF)] == [row.id for row in before]
    assert len(review.workload_links(ME, WEB_REF)) == len(before) + 1
