"""Laws of the history: any order of events gives one history, and no flow is ever given to the wrong owner.

The world that is played: one address after the other changes hands among pods. The kubelet writes statuses some time
after the fact, in whole seconds, by a clock of its own; the watch brings them in order, some time later; flows are
reported some time later, too. What is asked is asked of the view as it was at that moment.
"""

import os
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.cluster.reduce import FOREVER, NEVER, OwnerFacts, OwnerRef, PodFacts
from aggregator.cluster.resolve import ViewResolver
from aggregator.cluster.view import ClusterView
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Resolved
from aggregator.model.workload import Workload
from tests.property.cluster.events import arrived, delivered

HISTORIES = int(os.environ.get("WATTLE_HISTORIES", "100000"))
PARTS = 4  # so that they spread over the cores
ORIGIN = 1_767_225_600.0  # 2026-01-01
SETTLE_SECONDS = 2.0
SKEW_SECONDS = 0.3  # of a node's clock against the API server's
ADDRESSES = [ip_address(f"10.244.0.{n}") for n in range(1, 9)]
ASKER = "asker"


@dataclass(frozen=True, slots=True)
class Tenancy:
    """The truth: who had the address, from when to when."""

    key: str
    workload: Workload
    since: float
    until: float


@dataclass(slots=True)
class World:
    """One address with its tenants, and the events that tell of them: (arrival, what)."""

    tenancies: list[Tenancy]
    events: list[tuple[float, "Event"]]


Event = tuple[str, PodFacts | OwnerFacts]


def pod(key: str, ip: object, owner: OwnerRef | None, since: float, **more: object) -> PodFacts:
    values = {
        "uid": key,
        "static_uid": "",
        "namespace": "n",
        "name": key,
        "node_name": "node",
        "host_network": False,
        "labels": (),
        "ips": (ip,) if ip else (),
        "ports": (),
        "owner": owner,
        "since": since,
        "until": FOREVER,
        "ended": False,
        "steady": True,
    }
    return PodFacts(**(values | more))  # type: ignore[arg-type]


def world(rng: random.Random, ip: object, name: str) -> World:
    """A few pods in turn on one address. Some complete, most are deleted; gaps may be no time at all."""
    tenancies, events = [], []
    now = ORIGIN + rng.uniform(0, 5)
    for number in range(rng.randint(1, 3)):
        key = f"{name}-{number}"
        completes = rng.random() < 0.3
        owner = OwnerRef("ReplicaSet", f"rs-{key}", f"rs-{key}") if rng.random() < 0.5 else None
        kind, top = ("Deployment", f"d-{key}") if owner else ("Pod", key)
        started = now + rng.uniform(0, 1.5)
        got = started + rng.uniform(0, 1.5)
        lost = got + rng.choice((rng.uniform(0.05, 1), rng.uniform(1, 30)))
        skew = rng.uniform(-SKEW_SECONDS, SKEW_SECONDS)
        facts = pod(key, ip, owner, float(floor(started + skew)), steady=not completes)
        events.append((started, ("pod", facts._replace(ips=()))))
        if owner:
            made = OwnerFacts(owner.uid, "n", "ReplicaSet", owner.name, OwnerRef("Deployment", top, top))
            events.append((started + rng.uniform(-1, 3), ("owner", made)))
        running = got + rng.uniform(0, 4)  # when the status with the address is written
        asked_to_go = FOREVER if completes else lost - rng.uniform(0, 3)
        for committed in sorted((running, asked_to_go)):
            if committed < FOREVER:
                version = facts._replace(steady=facts.steady and committed < asked_to_go)
                events.append((committed, ("pod", version if committed >= running else version._replace(ips=()))))
        last = facts._replace(steady=False)
        if completes:
            last = last._replace(ended=True, until=floor(lost + skew) + 1.0)
            events.append((max(running, lost) + rng.uniform(0, 3), ("pod", last)))
        if rng.random() < 0.9:
            events.append((max(running, lost) + rng.uniform(3, 6), ("gone", last)))
        workload = Workload(cluster="c", namespace="n", kind=kind, name=top)
        tenancies.append(Tenancy(key, workload, got, lost))
        now = lost - rng.uniform(0, 1.5)  # the next pod may have been started before this one let go
        now = max(now, lost - (started - now))
    return World(tenancies, delivered(rng, events))


def play(view: ClusterView, event: Event, at: float) -> None:
    what, facts = event
    if isinstance(facts, OwnerFacts):
        view.see_owner(facts)
        return
    if what == "gone":
        view._apply_pod(facts, at)
        view.remove("Pod", facts.namespace, facts.name, at=at, uid=facts.uid)
    else:
        view._apply_pod(facts, at)


def flow(ip: object) -> FlowIdentity:
    return FlowIdentity(
        cluster="c",
        node="",
        pod_uid=ASKER,
        remote_ip=ip,  # type: ignore[arg-type]
        port=80,
        protocol=Protocol.TCP,
        direction=Direction.EGRESS,
    )


def with_asker() -> ClusterView:
    view = ClusterView("c")
    view._apply_pod(pod(ASKER, None, None, NEVER), ORIGIN)
    return view


def answers(rng: random.Random, ip: object, played: World) -> Iterator[tuple[Tenancy, list[object]]]:
    """Flows in the course of the events, each asked when its report comes and again within the grace period."""
    view = with_asker()
    resolver = ViewResolver(view)
    flows, asked = [], []
    for tenancy in played.tenancies:
        for _ in range(2):
            moment = rng.uniform(tenancy.since, tenancy.until)
            seen = datetime.fromtimestamp(moment + rng.uniform(-SKEW_SECONDS, SKEW_SECONDS), UTC)
            reported = moment + rng.choice((rng.uniform(1, 3), rng.uniform(3, 25)))
            flows.append((tenancy, seen, []))
            asked += [(reported + later, len(flows) - 1) for later in (0, 15)]
    events = deque(played.events)
    for now, number in sorted(asked):
        for arrival, event in arrived(events, now):
            play(view, event, arrival)
        view.confirmed = now - SETTLE_SECONDS
        flows[number][2].append(resolver.resolve(flow(ip), flows[number][1]))
    for tenancy, _, found in flows:
        yield tenancy, found


@pytest.mark.parametrize("part", range(PARTS))
def test_no_flow_is_given_to_a_wrong_owner(part: int) -> None:
    rng = random.Random(f"history {part}")  # the same histories every time: a failure can be looked at
    named = total = 0
    for number in range(HISTORIES // PARTS):
        ip = ADDRESSES[number % len(ADDRESSES)]
        played = world(rng, ip, f"p{number}")
        for tenancy, found in answers(rng, ip, played):
            total += 1
            links = [answer.link for answer in found if isinstance(answer, Resolved)]
            named += bool(links)
            assert {link.dst for link in links} <= {tenancy.workload}, f"part {part}, history {number}: {played}"
            assert all(isinstance(answer, Resolved | NotYet) for answer in found)
    assert named > total / 2, f"{named} of {total}: it must not be right by never answering"


@settings(max_examples=1000, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_answer_holds_between_its_bounds(seed: int) -> None:
    """Whoever keeps it, and whoever asks how long ago a connection may have been opened, relies on it."""
    rng = random.Random(seed)
    ip = ADDRESSES[0]
    played = world(rng, ip, "p")
    view = with_asker()
    happened = played.events[: rng.randint(1, len(played.events))]
    for at, event in happened:
        play(view, event, at)
    last = max(at for at, _ in played.events) + 30
    for stranger in range(rng.choice((0, 0, 1, 2))):
        view.history.sight(ip, f"stranger-{stranger}", rng.uniform(ORIGIN, last))
    view.confirmed = rng.choice((FOREVER, last, rng.uniform(ORIGIN, last), happened[-1][0] - SETTLE_SECONDS))
    resolver = ViewResolver(view)
    known = resolver.known_until("c") or datetime.max.replace(tzinfo=UTC)
    spans = view.history.pod_ips[ip].spans if ip in view.history.pod_ips else []
    edges = [edge for span in spans for edge in (span.since, span.until, span.sure) if NEVER < edge < FOREVER]
    moments = [
        datetime.fromtimestamp(moment, UTC) for moment in (*edges, *(rng.uniform(ORIGIN - 30, last) for _ in range(40)))
    ]
    answers = [resolver.resolve(flow(ip), moment) for moment in moments]
    for answer in answers:
        if isinstance(answer, Resolved):
            between = [
                other
                for other, moment in zip(answers, moments, strict=True)
                if (answer.holds_since is None or answer.holds_since < moment)
                and (answer.holds_until is None or moment < answer.holds_until)
                and moment <= known
            ]
            assert {other.link if isinstance(other, Resolved) else None for other in between} <= {answer.link}


def remembered(view: ClusterView) -> object:
    history = view.history
    return (
        {key: past for key, past in history.pods.items() if key != ASKER},
        {ip: sorted((s.key, s.since, s.until) for s in t.spans) for ip, t in history.pod_ips.items()},
        dict(history.pod_ends),
    )


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.randoms(use_true_random=False))
def test_any_order_of_events_gives_one_history(seed: int, order: random.Random) -> None:
    played = world(random.Random(seed), ADDRESSES[0], "p")
    straight, shuffled = with_asker(), with_asker()
    for at, event in played.events:
        play(straight, event, at)
    mixed = list(played.events)
    order.shuffle(mixed)
    for at, event in mixed:
        play(shuffled, event, at)
    assert remembered(shuffled) == remembered(straight)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_event_twice_is_an_event_once(seed: int) -> None:
    played = world(random.Random(seed), ADDRESSES[0], "p")
    once, twice = with_asker(), with_asker()
    for at, event in played.events:
        play(once, event, at)
        play(twice, event, at)
        play(twice, event, at)
    assert remembered(once) == remembered(twice)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_truth_is_always_among_the_candidates(seed: int) -> None:
    """Once every event has come, a tenant is always one of those that may have had the address."""
    rng = random.Random(seed)
    played = world(rng, ADDRESSES[0], "p")
    view = with_asker()
    for at, event in played.events:
        play(view, event, at)
    for tenancy in played.tenancies:
        for moment in (tenancy.since, rng.uniform(tenancy.since, tenancy.until), tenancy.until):
            assert tenancy.key in view.history.pod_candidates(ADDRESSES[0], moment)
