"""Laws of Services: one that only ever led to one workload is that workload, however late anybody says so.

The world that is played: a workload of one pod, replaced again and again. The address of a pod that is gone goes to
another workload's at once. The controller writes the EndpointSlice some time after the fact, and each watch brings its
kind some time later. The truth: every connection that is asked for was opened while a pod of the workload was ready.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.cluster.reduce import FOREVER
from aggregator.cluster.resolve import ViewResolver
from aggregator.cluster.view import ClusterView
from aggregator.cluster.watch import SETTLE_SECONDS
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Resolved
from aggregator.model.workload import Workload
from tests.property.cluster.events import arrived, delivered
from tests.unit.cluster import objects

ORIGIN = 1_767_225_600.0  # 2026-01-01
SERVED = Workload(cluster="c", namespace="shop", kind="StatefulSet", name="served")
SERVICE_IP = "10.96.0.10"
BEHIND = {"name": "http", "port": 8080, "protocol": "TCP"}
SLOWEST_CONTROLLER_SECONDS = 8.0

Change = tuple[str, objects.Raw]  # "apply" or "remove"


@dataclass(slots=True)
class Played:
    changes: list[tuple[float, Change]] = field(default_factory=list)  # by when the view is told
    opened: list[float] = field(default_factory=list)


def pod(name: str, owner: str, ip: str, started: float) -> objects.Raw:
    told = datetime.fromtimestamp(int(started), UTC).isoformat()
    return objects.pod(name, ip=ip, owner=objects.owned_by("StatefulSet", owner), started=told)


def history(rng: random.Random) -> Played:
    pods: list[tuple[float, Change]] = []
    slices: list[tuple[float, Change]] = []
    free = [f"10.244.0.{number}" for number in range(1, 5)]
    played, now, written = Played(), ORIGIN, ORIGIN

    def behind(at: float, *found: tuple[str, str]) -> None:
        nonlocal written
        written = max(written, at + rng.uniform(0, rng.choice((0.2, SLOWEST_CONTROLLER_SECONDS))))
        raw = objects.endpoint_slice("served", BEHIND, [ip for ip, _ in found], pods=[name for _, name in found])
        slices.append((written, ("apply", raw)))

    for number in range(rng.randint(2, 4)):
        ip = free.pop(rng.randrange(len(free)))
        name, started = f"served-{number}", now
        ready = started + rng.uniform(0.5, 4)
        gone = ready + rng.uniform(0.5, 20)
        served = pod(name, "served", ip, started)
        pods += [(ready - rng.uniform(0, 0.4), ("apply", served)), (gone, ("remove", served))]
        behind(ready, (ip, name))
        behind(gone)
        played.opened += [rng.uniform(ready, gone) for _ in range(2)]
        now = gone + rng.choice((0.0, rng.uniform(0, 4)))
        taker = pod(f"taker-{number}", "taker", ip, now)
        leaves = now + rng.uniform(2, 30)
        pods += [(now + rng.uniform(0.5, 3), ("apply", taker)), (max(leaves, now + 3), ("remove", taker))]
    # No watch waits for another.
    played.changes = sorted([*delivered(rng, pods), *delivered(rng, slices)], key=lambda change: change[0])
    return played


def tell(view: ClusterView, changes: deque[tuple[float, Change]], now: float) -> None:
    """What has arrived by `now`, each at its time."""
    for at, (what, raw) in arrived(changes, now):
        view.confirmed = at - SETTLE_SECONDS
        if what == "apply":
            view.apply(raw["kind"], raw, at=at)
        else:
            meta = raw["metadata"]
            view.remove(raw["kind"], meta["namespace"], meta["name"], at=at, uid=meta["uid"])


def begun() -> ClusterView:
    view = ClusterView("c")
    port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
    for raw in (
        objects.service("served", ip=SERVICE_IP, ports=[port], created="2025-12-31T00:00:00Z"),
        objects.pod("asker", ip="10.244.1.1", started="2025-12-31T00:00:00Z"),
    ):
        view.apply(raw["kind"], raw, at=ORIGIN - 60)
    return view


CALL = FlowIdentity(
    cluster="c",
    node="node-1",
    pod_uid="uid-asker",
    remote_ip=ip_address(SERVICE_IP),
    port=80,
    protocol=Protocol.TCP,
    direction=Direction.EGRESS,
)


@settings(max_examples=2000, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_service_of_one_workload_is_that_workload(seed: int) -> None:
    rng = random.Random(seed)
    played, view = history(rng), begun()
    resolver = ViewResolver(view)
    changes = deque(played.changes)
    reported = sorted((opened + rng.uniform(0.5, 20), opened) for opened in played.opened)
    for now, opened in reported:
        tell(view, changes, now)
        view.confirmed = now - SETTLE_SECONDS
        answer = resolver.resolve(CALL, datetime.fromtimestamp(opened, UTC))
        assert isinstance(answer, NotYet) or (isinstance(answer, Resolved) and answer.link.dst == SERVED)
    tell(view, changes, FOREVER)
    view.confirmed = FOREVER
    for opened in played.opened:
        answer = resolver.resolve(CALL, datetime.fromtimestamp(opened, UTC))
        assert isinstance(answer, Resolved), answer
        assert answer.link.dst == SERVED
