"""Drift of frozen baselines: each link one event, whatever happens in between; and what people say of it."""

from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from aggregator.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from aggregator.model.event import Ended, EventKind
from aggregator.model.workload import Address
from aggregator.services.authority.caller import Caller, developer
from aggregator.services.deciding.decisions import ANY
from aggregator.services.keeping.drifting import Drifting
from aggregator.services.keeping.events import WantedEvents
from aggregator.services.question import WorkloadRef
from aggregator.store.events import EventLog
from tests.integration.api.tokens import Tokens
from tests.integration.services.world import (
    BOOKS,
    CLUSTER,
    DB,
    IDLE,
    JOB,
    NOW,
    OLD,
    PARTNER,
    SHOP,
    WEB,
    Seen,
    World,
    everything,
    link,
    record,
)

ME = developer()
WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")
DB_REF = WorkloadRef(namespace=SHOP, kind="StatefulSet", name="db")
STRANGER = link(IDLE, DB, 5432)


class Keeping:
    """A world whose keeper steps when the test says so, and can be started anew."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.restart()

    def restart(self) -> None:
        self.log = EventLog(self.world.store.engine)
        self.drifting = Drifting(self.world.store, self.world.decisions, self.log, CLUSTER)
        self.review = self.world.review(drifting=self.drifting)

    def step(self, *, after: timedelta = timedelta()) -> None:
        self.drifting.step(NOW + after)

    def freeze(self, ref: WorkloadRef, *, frozen: bool = True) -> None:
        self.review.deciding.freeze(ME, ref, frozen=frozen, reason="known", if_match=ANY)

    def holding(self) -> list[str]:
        return sorted(event.text for event in self.review.events.events(ME))


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    world = everything(tmp_path)
    yield Keeping(world)
    world.close()


def stranger(**changes: object) -> Seen:
    base = {"process": "nc", "src_pod": "shop/idle-1", "dst_pod": "shop/db-0", "first": NOW, "last": NOW}
    return Seen(link=STRANGER, **{**base, **changes})  # type: ignore[arg-type]


def test_a_new_caller_is_one_event_with_process_and_pod(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    keeping.step()
    assert keeping.holding() == []
    record(keeping.world.store, [stranger()])
    for _ in range(3):
        keeping.step()
        keeping.restart()
    (event,) = keeping.review.events.events(ME)
    assert (event.kind, event.subject, event.src) == ("new-link", "shop/StatefulSet/db", "shop/Deployment/idle")
    assert (event.processes, event.src_pods, event.dst_pods) == (["nc"], ["shop/idle-1"], ["shop/db-0"])
    assert event.answers == ["accept", "leave-out"]
    assert len(keeping.log.events(CLUSTER)) == 1


def test_what_the_other_end_reports_later_is_added(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    record(keeping.world.store, [stranger(process="", src_pod="")])
    keeping.step()
    assert keeping.review.events.events(ME)[0].processes == []
    record(keeping.world.store, [stranger()])
    keeping.step(after=timedelta(seconds=30))
    (event,) = keeping.review.events.events(ME)
    assert (event.processes, event.src_pods) == (["nc"], ["shop/idle-1"])


def test_accepted_it_ends_and_is_in_the_next_proposal(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    record(keeping.world.store, [stranger()])
    keeping.step()
    (event,) = keeping.review.events.events(ME)
    (answered,) = keeping.review.events.answer(ME, [event.id], "accept", reason="a new report")
    assert (answered.ended, answered.answers) == (Ended.ACCEPTED.value, [])
    keeping.step()
    assert keeping.holding() == []
    assert "idle" in keeping.review.proposal(ME, DB_REF).yaml
    assert keeping.review.baseline(ME, DB_REF).drift == []
    said = keeping.review.deciding.history(ME, SHOP)
    assert {(d.kind, d.author, d.reason) for d in said[:2]} == {
        ("baseline", "developer", "a new report"),
        ("link", "developer", "a new report"),
    }


def test_an_acceptance_that_is_taken_back_opens_the_same_event_again(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    record(keeping.world.store, [stranger()])
    keeping.step()
    (event,) = keeping.review.events.events(ME)
    keeping.review.events.answer(ME, [event.id], "accept")
    moved = next(d for d in keeping.review.deciding.history(ME, SHOP) if d.kind == "baseline")
    keeping.review.deciding.undo(ME, moved.record, reason="no")
    keeping.step()
    assert [e.id for e in keeping.review.events.events(ME)] == [event.id]


def test_left_out_it_ends_is_not_in_the_proposal_and_stays_quiet(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    record(keeping.world.store, [stranger()])
    keeping.step()
    (event,) = keeping.review.events.events(ME)
    (answered,) = keeping.review.events.answer(ME, [event.id], "leave-out", reason="nobody knows it")
    assert answered.ended == Ended.LEFT_OUT.value
    record(keeping.world.store, [stranger(last=NOW + timedelta(minutes=10))])
    keeping.step()
    keeping.restart()
    keeping.step()
    assert keeping.holding() == []
    assert '"idle"' not in keeping.review.proposal(ME, DB_REF).yaml


def test_noise_raises_nothing(keeping: Keeping) -> None:
    """Attempts at the frozen workload, and a thousand links that others have."""
    keeping.freeze(DB_REF)
    attempts = [stranger(count=0, failed=3, established=False)]
    others = [Seen(link=link(WEB, OLD, port), first=NOW, last=NOW) for port in range(20_000, 21_000)]
    record(keeping.world.store, [*attempts, *others])
    keeping.step()
    assert keeping.log.events(CLUSTER) == []


def test_outside_addresses_drift_one_by_one(keeping: Keeping) -> None:
    keeping.freeze(WEB_REF)
    fresh = [Address(cluster=CLUSTER, ip=ip_address(f"198.51.100.{n}")) for n in (7, 8)]
    record(keeping.world.store, [Seen(link=link(WEB, end, 443), first=NOW, last=NOW) for end in fresh])
    keeping.step()
    events = keeping.review.events.events(ME)
    assert sorted(event.dst for event in events) == ["198.51.100.7", "198.51.100.8"]
    assert {event.address.address_class for event in events if event.address} == {"external"}
    keeping.review.events.answer(ME, [e.id for e in events if e.dst == "198.51.100.7"], "accept")
    assert [event.dst for event in keeping.review.events.events(ME)] == ["198.51.100.8"]
    yaml = keeping.review.proposal(ME, WEB_REF).yaml
    assert "198.51.100.7/32" in yaml
    assert "198.51.100.8" not in yaml


def test_an_address_of_a_network_that_is_in_the_baseline_is_no_drift(keeping: Keeping) -> None:
    wide = Address(cluster=CLUSTER, ip=ip_address("198.51.100.0"), prefix_length=24)
    record(keeping.world.store, [Seen(link=link(WEB, wide, 443))])
    keeping.freeze(WEB_REF)
    near = Address(cluster=CLUSTER, ip=ip_address("198.51.100.9"))
    far = Address(cluster=CLUSTER, ip=ip_address("198.51.101.9"))
    record(keeping.world.store, [Seen(link=link(WEB, end, 443), first=NOW, last=NOW) for end in (near, far)])
    keeping.step()
    assert [event.dst for event in keeping.review.events.events(ME)] == ["198.51.101.9"]


def test_a_link_between_two_frozen_workloads_is_one_event_and_one_answer(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    keeping.freeze(WEB_REF)
    record(keeping.world.store, [Seen(link=link(WEB, DB, 6000), first=NOW, last=NOW)])
    keeping.step()
    (event,) = keeping.review.events.events(ME)
    assert event.subject == "shop/StatefulSet/db"
    keeping.review.events.answer(ME, [event.id], "accept")
    keeping.step()
    assert keeping.holding() == []
    assert len(keeping.log.events(CLUSTER)) == 1


def test_a_link_not_seen_for_long_is_gone_and_ends_when_it_is_seen_again(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    keeping.step(after=timedelta(days=40))
    gone = {e.event.link: e for e in keeping.log.holding(CLUSTER)}
    assert {e.event.kind for e in gone.values()} == {EventKind.GONE_LINK}
    assert set(gone) == {link(WEB, DB, 5432), link(JOB, DB, 5432)}
    record(keeping.world.store, [Seen(link=link(WEB, DB, 5432), last=NOW + timedelta(days=40))])
    keeping.step(after=timedelta(days=41))
    (back,) = [e.event for e in keeping.log.events(CLUSTER) if e.event.ended]
    assert (back.link, back.ended) == (link(WEB, DB, 5432), Ended.SEEN_AGAIN)
    (missing,) = keeping.log.holding(CLUSTER)
    keeping.review.events.answer(ME, [str(missing.event_id)], "accept")
    keeping.step(after=timedelta(days=41))
    assert keeping.log.holding(CLUSTER) == []


def test_released_and_frozen_anew_is_another_episode(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    record(keeping.world.store, [stranger()])
    keeping.step()
    keeping.freeze(DB_REF, frozen=False)
    keeping.step()
    assert [s.event.ended for s in keeping.log.events(CLUSTER)] == [Ended.BASELINE_RELEASED]
    keeping.freeze(DB_REF)
    record(keeping.world.store, [Seen(link=link(OLD, DB, 5432), first=NOW + timedelta(hours=1), last=NOW)])
    keeping.step()
    assert [e.src for e in keeping.review.events.events(ME)] == ["shop/StatefulSet/old"]


def test_who_may_not_see_the_other_end_is_told_nothing(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    record(keeping.world.store, [Seen(link=link(BOOKS, DB, 5432), first=NOW, last=NOW), stranger()])
    keeping.step()
    viewer: Caller = Tokens().caller("viewer")
    assert [e.src for e in keeping.review.events.events(viewer)] == ["shop/Deployment/idle"]
    hidden = next(e for e in keeping.review.events.events(ME) if e.src.endswith("books"))
    with pytest.raises(NotFoundError):
        keeping.review.events.event(viewer, hidden.id)
    with pytest.raises(ForbiddenError):
        keeping.review.events.events(viewer, WantedEvents(namespace="ledger"))
    with pytest.raises(ForbiddenError):
        keeping.review.events.answer(viewer, [keeping.review.events.events(viewer)[0].id], "accept")


def test_an_answer_to_what_has_ended_or_never_was_is_refused(keeping: Keeping) -> None:
    keeping.freeze(DB_REF)
    record(keeping.world.store, [stranger()])
    keeping.step()
    (event,) = keeping.review.events.events(ME)
    keeping.review.events.answer(ME, [event.id], "leave-out")
    with pytest.raises(ConflictError):
        keeping.review.events.answer(ME, [event.id], "accept")
    with pytest.raises(NotFoundError):
        keeping.review.events.answer(ME, ["12"], "accept")
    keeping.step(after=timedelta(days=40))
    gone = next(e for e in keeping.review.events.events(ME) if e.kind == "gone-link")
    with pytest.raises(InputError):
        keeping.review.events.answer(ME, [gone.id], "leave-out")


def test_many_frozen_workloads_are_read_at_once_with_the_same_result(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping.freeze(DB_REF)
    keeping.freeze(WEB_REF)
    record(keeping.world.store, [stranger(), Seen(link=link(WEB, PARTNER, 8443), first=NOW, last=NOW)])
    monkeypatch.setattr("aggregator.store.sightings.FEW_WORKLOADS", 1)
    keeping.step()
    at_once = {e.event_id for e in keeping.log.holding(CLUSTER)}
    monkeypatch.undo()
    keeping.step()
    assert len(at_once) == 2
    assert {e.event_id for e in keeping.log.events(CLUSTER)} == at_once
