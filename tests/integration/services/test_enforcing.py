"""The passive check, from batches through the real recorder to events: what it says, and above all what it does not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from aggregator.model.event import Ended, EventKind
from aggregator.model.link import Confidence, Outcome
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, Resolved
from aggregator.policy.enforcement import MARGIN
from aggregator.policy.profiles.known import GENERIC
from aggregator.services.keeping.enforcing import Enforcing, EnforcingSources, PluginState
from aggregator.services.recording.identities import Answer
from aggregator.services.recording.openings import Openings
from aggregator.store.events import EventLog
from aggregator.store.keys import milliseconds
from tests.integration.services.world import (
    CLUSTER,
    DB,
    OLD,
    PARTNER,
    SHOP,
    WEB,
    World,
    build,
    dns_objects,
    link,
    other_objects,
    shop_objects,
)


def policy(name: str, selected: str, allowed: str | None, *, namespace: str = SHOP) -> dict[str, Any]:
    rule = [{"from": [{"podSelector": {"matchLabels": {"app": allowed}}}]}] if allowed else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"app": selected}}, "policyTypes": ["Ingress"], "ingress": rule},
    }


OBJECTS = [*dns_objects(), *shop_objects(), *other_objects()]
GUARDED = [*OBJECTS, policy("db", "db", "report")]
WEB_TO_DB = link(WEB, DB, 5432)


class Watching:
    """A world with the check; its clock is the test's, and what the view saw is told at that clock's time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = datetime.now(tz=UTC)
        self.plugin = PluginState(name="Calico", enforces=True)
        self.age = 0.0
        self.skews: dict[str, int] = {}
        self.restart()

    def restart(self) -> None:
        self.openings = Openings()
        self.log = EventLog(self.world.store.engine)
        self.enforcing = Enforcing(
            EnforcingSources(
                snapshot=lambda: self.world.source.snapshot,
                standing=self.world.source.view.standing,
                age_seconds=lambda: self.age,
                skews_ms=lambda: self.skews,
                profile=lambda: GENERIC,
                plugin=lambda: self.plugin,
            ),
            self.openings,
            self.log,
            CLUSTER,
        )
        self.step()

    def apply(self, objects: list[dict[str, Any]]) -> None:
        self.world.show(objects)
        self.step()

    def step(self) -> None:
        self.enforcing.step(self.now)
        self.enforcing.upkeep(self.now)

    def later(self, **by: float) -> None:
        self.now += timedelta(**by)

    def seen(self, opened: datetime | None = None, **changes: Any) -> None:
        """A record of one connection from web-1 to db-0, `opened` then; None: found open now."""
        found = changes.pop("link", WEB_TO_DB)
        identity = FlowIdentity(
            cluster=CLUSTER,
            node="node-1",
            pod_uid="uid-shop-web-1",
            remote_ip=ip_address(changes.pop("remote", "10.244.0.11")),
            port=found.port,
            protocol=changes.pop("protocol", Protocol.TCP),
            direction=Direction.EGRESS,
            outcome=Outcome.ESTABLISHED if opened else Outcome.OPEN,
            confidence=changes.pop("confidence", Confidence.HIGH),
        )
        names = {"src_pod": "shop/web-1", "dst_pod": "shop/db-0"} | changes
        answer = Answer(identity=identity, process="python3", resolution=Resolved(link=found, **names))
        if found not in self.openings.links():
            self.openings.know([found])
        self.openings._keep(  # as `note` does, without arrays
            answer,
            found,
            opened_ms=milliseconds(opened) if opened else None,
            seen_ms=milliseconds(opened or self.now),
        )

    def says(self) -> list[tuple[str, str]]:
        return [(s.event.kind.value, str(s.event.link)) for s in self.log.holding(CLUSTER)]


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    world = build(tmp_path, OBJECTS, [])
    yield Watching(world)
    world.close()


def test_a_connection_long_after_the_policy_is_told_with_node_and_cause(watching: Watching) -> None:
    watching.apply(GUARDED)
    watching.later(minutes=5)
    watching.seen(watching.now)
    watching.step()
    assert watching.says() == []  # what happened meanwhile may not be known yet
    watching.later(seconds=MARGIN.total_seconds() + 1)
    watching.step()
    (stored,) = watching.log.holding(CLUSTER)
    event = stored.event
    assert (event.kind, event.subject) == (EventKind.NOT_ENFORCED, "shop/StatefulSet/db")
    assert event.evidence.nodes == ("node-1",)
    assert (event.evidence.src_pods, event.evidence.dst_pods) == (("shop/web-1",), ("shop/db-0",))
    assert "shop/db" in event.explanation
    assert event.cause == "Calico has stopped, or its policy feature is switched off"
    for _ in range(3):  # seen again, also by another process: the same event
        watching.later(minutes=2)
        watching.restart()
        watching.later(minutes=2)
        watching.seen(watching.now - timedelta(seconds=40))
        watching.step()
    assert len(watching.log.events(CLUSTER)) == 1


@pytest.mark.parametrize("seconds", [-3600, -1, 0, 29])
def test_one_that_predates_the_policy_or_came_within_its_lag_is_not(watching: Watching, seconds: int) -> None:
    watching.apply(GUARDED)
    watching.seen(datetime.now(tz=UTC) + timedelta(seconds=seconds))
    watching.later(minutes=10)
    watching.step()
    assert watching.says() == []


def test_one_that_is_older_than_what_another_policy_allowed_is_not(watching: Watching) -> None:
    """Policies add up: the one that allowed it is gone now."""
    watching.apply([*GUARDED, policy("open", "db", "web")])
    watching.later(seconds=1)
    opened = datetime.now(tz=UTC)
    watching.apply(GUARDED)
    watching.seen(opened)
    watching.later(minutes=10)
    watching.step()
    assert watching.says() == []


def test_what_is_allowed_unknown_or_not_between_two_clear_ends_is_not(watching: Watching) -> None:
    foreign = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "own", "namespace": SHOP},
        "spec": {"endpointSelector": {"matchLabels": {"app": "old"}}},
    }
    watching.apply([*GUARDED, policy("old", "old", None), foreign])
    watching.later(minutes=5)
    watching.seen(watching.now, link=link(WEB, OLD, 9042), dst_pod="shop/old-0", remote="10.244.0.12")
    watching.seen(watching.now, dst_pod="")  # a Service with several backends
    watching.seen(watching.now, protocol=Protocol.UDP)
    watching.seen(watching.now, confidence=Confidence.LOW)
    watching.later(minutes=1)
    watching.step()
    assert watching.says() == []


def test_nothing_is_said_while_the_view_is_old_or_a_clock_is_off(watching: Watching) -> None:
    watching.apply(GUARDED)
    watching.later(minutes=5)
    watching.seen(watching.now)
    watching.later(minutes=1)
    watching.age = 300.0
    watching.step()
    assert watching.says() == []
    watching.age, watching.skews = 0.0, {"node-1": 20_000}
    watching.step()
    assert watching.says() == []


def test_an_outside_address_that_egress_denies_is_told(watching: Watching) -> None:
    shut = policy("shut", "web", None)
    shut["spec"] = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}
    watching.apply([*OBJECTS, shut])
    watching.later(minutes=5)
    watching.seen(watching.now, link=link(WEB, PARTNER, 443), dst_pod="", remote="203.0.113.10")
    watching.later(minutes=1)
    watching.step()
    assert watching.says() == [("not-enforced", "shop/Deployment/web -> 203.0.113.10 TCP/443")]


def test_it_ends_when_the_policy_allows_it_or_when_it_is_not_seen_any_more(watching: Watching) -> None:
    for ending, ended in ((OBJECTS, Ended.POLICIES_CHANGED), (None, Ended.NOT_SEEN_ANY_MORE)):
        watching.apply(GUARDED)
        watching.later(minutes=20)
        watching.seen(watching.now)
        watching.later(minutes=1)
        watching.step()
        assert len(watching.says()) == 1
        if ending is not None:
            watching.apply(ending)
        else:
            watching.later(minutes=16)
            watching.step()
        assert watching.says() == []
        assert watching.log.events(CLUSTER)[0].event.ended is ended


@pytest.mark.parametrize(
    ("plugin", "cause"),
    [
        (PluginState(), "no network plug-in that enforces policies was recognised in this cluster"),
        (
            PluginState(name="flannel", enforces=False, why_not="flannel has no NetworkPolicies"),
            "policies are not enforced here: flannel has no NetworkPolicies",
        ),
    ],
)
def test_the_likely_cause_names_the_plug_in(watching: Watching, plugin: PluginState, cause: str) -> None:
    watching.plugin = plugin
    watching.apply(GUARDED)
    watching.later(minutes=5)
    watching.seen(watching.now)
    watching.later(minutes=1)
    watching.step()
    assert watching.log.holding(CLUSTER)[0].event.cause == cause


def test_a_connection_that_is_held_open_is_advice_and_gone_when_it_is(watching: Watching) -> None:
    watching.seen()
    watching.step()
    assert watching.says() == []  # no policy yet
    watching.apply(GUARDED)
    watching.later(minutes=5)
    watching.seen()
    watching.step()
    (stored,) = watching.log.holding(CLUSTER)
    assert (stored.event.kind, stored.event.subject) == (EventKind.HELD_OPEN, "shop/Deployment/web")
    assert stored.event.command == "kubectl -n shop rollout restart deployment/web"
    watching.later(minutes=5)
    watching.seen()
    watching.step()
    watching.later(minutes=6)
    watching.step()
    assert len(watching.says()) == 1
    watching.later(minutes=6)
    watching.step()
    assert watching.says() == []


def test_links_that_nothing_denies_are_kept_out_of_the_way(watching: Watching) -> None:
    watching.apply(GUARDED)
    quiet = [link(WEB, OLD, port) for port in range(1000, 1600)]
    watching.openings.know(quiet)
    watching.step()
    watching.step()
    assert int(watching.openings._quiet.sum()) == 600
    watching.apply([*GUARDED, policy("old", "old", None)])
    watching.step()
    watching.step()
    assert int(watching.openings._quiet.sum()) == 0
