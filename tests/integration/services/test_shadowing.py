"""Policies on watch: what they would deny of what is in use, once each; begun, seen and stopped by who may."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from aggregator.cluster.yamltext import load_documents
from aggregator.errors import ForbiddenError, InputError, NotFoundError
from aggregator.model.event import Ended
from aggregator.policy.profiles.known import GENERIC
from aggregator.services.authority.caller import developer
from aggregator.services.keeping.events import WantedEvents
from aggregator.services.keeping.shadowing import Shadowing
from aggregator.services.question import WorkloadRef
from aggregator.store.events import EventLog
from tests.integration.api.tokens import Tokens
from tests.integration.services.world import (
    CLUSTER,
    DB,
    IDLE,
    NOW,
    OLD,
    SHOP,
    WEB,
    Seen,
    World,
    everything,
    link,
    record,
)

ME = developer()
DB_REF = WorkloadRef(namespace=SHOP, kind="StatefulSet", name="db")
ONLY_REPORT = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: report}}}]}]
"""


class Shadow:
    def __init__(self, world: World) -> None:
        self.world = world
        self.log = EventLog(world.store.engine)
        self.restart()
        self.review = world.review()

    def restart(self) -> None:
        self.shadowing = Shadowing(
            self.world.store,
            self.log,
            CLUSTER,
            snapshot=lambda: self.world.source.snapshot,
            profile=lambda: GENERIC,
            read=load_documents,
        )

    def use(self, *links: Seen) -> None:
        record(self.world.store, links)

    def found(self) -> list[str]:
        return [str(stored.event.link) for stored in self.log.holding(CLUSTER)]


@pytest.fixture
def shadow(tmp_path: Path) -> Iterator[Shadow]:
    world = everything(tmp_path)
    yield Shadow(world)
    world.close()


LIVE = NOW + timedelta(minutes=1)
WEB_TO_DB = Seen(link=link(WEB, DB, 5432), last=LIVE, process="python3", src_pod="shop/web-1")


def test_each_live_link_that_it_would_deny_is_one_event_with_its_explanation(shadow: Shadow) -> None:
    begun = shadow.review.watching.begin(ME, yaml=ONLY_REPORT, days=7, reason="a week")
    shadow.shadowing.step(LIVE)
    assert shadow.found() == []  # nothing has been in use since it began
    shadow.use(WEB_TO_DB, Seen(link=link(WEB, OLD, 9042), last=LIVE))
    for minutes in (1, 2, 9, 20):
        shadow.shadowing.step(NOW + timedelta(minutes=minutes))
        shadow.restart()
    (event,) = shadow.review.events.events(ME, WantedEvents(subject=begun.id))
    assert (event.kind, event.src, event.dst) == ("would-be-denied", "shop/Deployment/web", "shop/StatefulSet/db")
    assert event.processes == ["python3"]
    assert "shop/db: peer-not-matched" in event.explanation
    assert begun.name in event.text
    assert len(shadow.log.events(CLUSTER)) == 1


def test_a_proposal_on_watch_denies_what_it_left_out_and_nothing_else(shadow: Shadow) -> None:
    begun = shadow.review.watching.begin(ME, scope=DB_REF, days=7)
    assert begun.policies == ["shop/wattle-db"]
    shadow.use(WEB_TO_DB, Seen(link=link(IDLE, DB, 5432), first=LIVE, last=LIVE))
    shadow.shadowing.step(LIVE)
    assert shadow.found() == ["shop/Deployment/idle -> shop/StatefulSet/db TCP/5432"]


def test_it_ends_by_itself_or_when_it_is_stopped_and_its_events_with_it(shadow: Shadow) -> None:
    shadow.review.watching.begin(ME, yaml=ONLY_REPORT, days=1)
    shadow.use(WEB_TO_DB)
    shadow.shadowing.step(LIVE)
    assert len(shadow.found()) == 1
    shadow.shadowing.step(NOW + timedelta(days=1, minutes=1))
    assert [s.event.ended for s in shadow.log.events(CLUSTER)] == [Ended.WATCH_ENDED]
    second = shadow.review.watching.begin(ME, yaml=ONLY_REPORT, days=1)
    shadow.shadowing.step(LIVE)
    assert len(shadow.found()) == 1
    assert shadow.review.watching.stop(ME, second.id).ended == "stopped"
    shadow.shadowing.step(LIVE)
    assert shadow.found() == []


def test_a_link_is_judged_once_and_again_only_after_minutes(shadow: Shadow, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []
    real = Shadowing._raise

    def counting(self: Shadowing, watch: object, denied: object, now: object) -> None:
        judged.append(1)
        real(self, watch, denied, now)  # type: ignore[arg-type]

    monkeypatch.setattr(Shadowing, "_raise", counting)
    shadow.review.watching.begin(ME, yaml=ONLY_REPORT, days=7)
    shadow.use(WEB_TO_DB)
    for second in range(0, 60, 5):
        shadow.shadowing.step(LIVE + timedelta(seconds=second))
    assert len(judged) == 1
    shadow.shadowing.step(LIVE + timedelta(minutes=6))
    assert len(judged) == 2


def test_who_may_watch_see_and_stop(shadow: Shadow) -> None:
    viewer, editor = Tokens().caller("viewer"), Tokens().caller("editor")
    with pytest.raises(ForbiddenError):
        shadow.review.watching.begin(viewer, yaml=ONLY_REPORT, days=7)
    begun = shadow.review.watching.begin(editor, yaml=ONLY_REPORT, days=7)
    assert [w.id for w in shadow.review.watching.watches(viewer)] == [begun.id]
    with pytest.raises(ForbiddenError):
        shadow.review.watching.stop(viewer, begun.id)
    elsewhere = shadow.review.watching.begin(ME, yaml=ONLY_REPORT.replace("shop", "ledger"), days=7)
    assert elsewhere.id not in {w.id for w in shadow.review.watching.watches(viewer)}
    with pytest.raises(NotFoundError):
        shadow.review.watching.stop(editor, elsewhere.id)
    with pytest.raises(ForbiddenError):
        shadow.review.watching.begin(editor, yaml=ONLY_REPORT.replace("shop", "ledger"), days=7)


@pytest.mark.parametrize("yaml", ["", "---\n", "kind: Pod\napiVersion: v1\n", "[1]", "a: b: c"])
def test_what_is_no_policy_is_refused_with_a_sentence(shadow: Shadow, yaml: str) -> None:
    with pytest.raises(InputError):
        shadow.review.watching.begin(ME, yaml=yaml, days=7)
