"""Readiness of recorded workloads, freezing, drift."""

from datetime import timedelta

from aggregator.services.authority.caller import developer
from aggregator.services.deciding.decisions import ANY
from aggregator.services.question import WorkloadRef
from tests.integration.services.world import DB, NOW, SHOP, WEB, Seen, World, link, record

ME = developer()
WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")
DB_REF = WorkloadRef(namespace=SHOP, kind="StatefulSet", name="db")
IDLE_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="idle")


def test_a_baseline_says_what_it_waits_for(world: World) -> None:
    found = world.review().baseline(ME, DB_REF)
    assert found.state == "learning"
    assert "1 of 1 monthly run of report seen" in {criterion.text for criterion in found.criteria}
    assert "of what it does may be unseen" in found.text


def test_a_silent_workload_is_learning(world: World) -> None:
    found = world.review().baseline(ME, IDLE_REF)
    assert (found.state, found.score) == ("learning", 0.0)
    assert "no communication recorded" in found.text


def test_days_are_counted_once_whatever_the_traffic(world: World) -> None:
    before = world.review().baseline(ME, WEB_REF)
    record(world.store, [Seen(link=link(WEB, DB, 5432), count=100_000)])
    assert world.review().baseline(ME, WEB_REF) == before
    for days in range(1, 9):
        record(world.store, [Seen(link=link(WEB, DB, 5432), last=NOW - timedelta(days=days))])
    after = world.review().baseline(ME, WEB_REF)
    shares = [next(c.share for c in found.criteria if c.criterion == "unseen") for found in (before, after)]
    assert shares[1] > shares[0]


def test_a_frozen_baseline_shows_what_is_new_and_can_be_undone(world: World) -> None:
    deciding = world.review().deciding
    deciding.freeze(ME, WEB_REF, frozen=True, reason="release 7", if_match=ANY)
    frozen = world.review().baseline(ME, WEB_REF)
    assert (frozen.state, frozen.drift) == ("frozen", [])
    record(world.store, [Seen(link=link(WEB, DB, 6543))])
    (new,) = world.review().baseline(ME, WEB_REF).drift
    assert (new.kind, new.link) == ("new", "shop/Deployment/web -> shop/StatefulSet/db TCP/6543")
    said = deciding.of_workload(ME, WEB_REF).decisions[0]
    assert said.reason == "release 7"
    deciding.undo(ME, said.record, reason="")
    assert world.review().baseline(ME, WEB_REF).state == "learning"


def test_a_frozen_link_that_is_gone_is_drift(world: World) -> None:
    world.review().deciding.freeze(ME, WEB_REF, frozen=True, reason="", if_match=ANY)
    world.now = NOW + timedelta(days=45)
    kinds = {change.kind for change in world.review().baseline(ME, WEB_REF).drift}
    assert kinds == {"gone"}


def test_readiness_never_withholds_a_proposal(world: World) -> None:
    assert world.review().baseline(ME, DB_REF).state == "learning"
    assert world.review().proposal(ME, DB_REF).policies == ["shop/wattle-db"]
