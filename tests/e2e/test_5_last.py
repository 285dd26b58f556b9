"""Last: killed again and again under load, upgraded and rolled back under load, and gone without a trace."""

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

from tests.cluster.controlplane import wait_until
from tests.e2e.application import Edge, graph
from tests.e2e.kube.layout import FAMILIES, NODES
from tests.e2e.proof import Proof
from tests.e2e.wattle import CHART, NAMESPACE, RELEASE, VALUES, released
from tests.e2e.world import World

MINUTES = float(os.environ.get("MINUTES") or 3)
BETWEEN_KILLS_SECONDS = (6.0, 14.0)
GROWTH = 1.2  # caches fill; what leaks does not stop there
AGENTS = "app.kubernetes.io/component=agent"
RESTART_SECONDS = 2.0  # until a node's service manager has a dead daemon up again


def test_soak(world: World, proof: Proof) -> None:
    """0 lost, 0 double against what the callers wrote down, whatever dies."""
    known = world.learned().keys() | graph().keys()
    counted, written = world.at_rest()
    without_agent = 0
    kills: dict[str, int] = {}
    memory: dict[str, list[float]] = {}
    end = time.monotonic() + MINUTES * 60
    while time.monotonic() < end:
        what = random.choice(sorted(DEATHS))
        before, restarts = sum(world.written().values()), world.restarts(NAMESPACE, AGENTS)
        DEATHS[what](world)
        kills[what] = kills.get(what, 0) + 1
        if what == "agent":
            # Until the kubelet has noticed, the dead one still counts as ready.
            wait_until(
                lambda restarts=restarts: world.restarts(NAMESPACE, AGENTS) > restarts, "the agent's next start", 120
            )
            world.wattle.wait_ready()
            without_agent += sum(world.written().values()) - before
        time.sleep(random.uniform(*BETWEEN_KILLS_SECONDS))  # the next one meets what is whole, or just coming back
        for name, mebibytes in world.wattle_memory().items():
            memory.setdefault(name, []).append(mebibytes)
    world.wattle.wait_ready()
    counted_then, written_then = world.at_rest()
    made = written_then - written
    seen = counted_then - counted
    proof.figure(f"soak of {MINUTES:.0f} min: kills", ", ".join(f"{n} {what}" for what, n in sorted(kills.items())))
    proof.figure("soak: connections made, counted", f"{sum(made.values())}, {sum(seen.values())}")
    proof.figure("soak: of them made while an agent was down", without_agent)
    for name, found in sorted(memory.items()):
        first, last = _first_and_last(found)
        proof.figure(f"soak: memory of {name}, first and last third", f"{first:.0f}, {last:.0f} MiB")
        assert last <= first * GROWTH + 16, f"{name} grows: {found}"
    differing = {key: (made[key], seen[key]) for key in made if seen[key] != made[key]}
    others = world.learned().keys() - known
    nameless = {edge for edge in others if _called_by_a_pod_that_nobody_remembers(edge)}
    proof.figure("soak: pods of the CronJob that came and went unseen, so that their calls have no name", len(nameless))
    others -= nameless
    strangers = sorted(map(str, others))
    assert (differing, strangers) == ({}, []), f"(made, counted) {differing}; not in the graph: {world.told_of(others)}"


def _called_by_a_pod_that_nobody_remembers(edge: Edge) -> bool:
    """A CronJob's pod may come and go while the aggregator is down, or its kubelet die before it has told of the pod's
    address: no object says any more whose that was, and Wattle does not guess. Such a row is in no policy.
    """
    kind, _, ip = edge.src.partition("/")
    called = {(known.dst, known.protocol, known.port) for known in graph() if "/CronJob/" in known.src}
    in_pod_range = kind == "address" and any(ip_address(ip) in ip_network(family.pods) for family in FAMILIES)
    return in_pod_range and (edge.dst, edge.protocol, edge.port) in called


def _first_and_last(samples: list[float]) -> tuple[float, float]:
    """What a component held in the first third of the time and in the last, kills or not."""
    third = max(1, len(samples) // 3)
    return statistics.median(samples[:third]), statistics.median(samples[-third:])


def _kill_agent(world: World) -> None:
    world.kill(NAMESPACE, AGENTS, one=True)


def _kill_aggregator(world: World) -> None:
    world.kill(NAMESPACE, "app.kubernetes.io/component=aggregator")


def _kill_postgres(world: World) -> None:
    world.kill(NAMESPACE, "app=wattle-db")


def _kill_kubelet(world: World) -> None:
    node = world.cluster.nodes[random.choice(NODES).name]
    node.kill("kubelet")
    time.sleep(RESTART_SECONDS)
    node.start("kubelet")


def _kill_apiserver(world: World) -> None:
    world.cluster.control.kill_apiserver()
    time.sleep(RESTART_SECONDS)
    world.cluster.control.start_apiserver()
    world.cluster.control.wait_ready()


DEATHS: dict[str, Callable[[World], None]] = {
    "agent": _kill_agent,
    "aggregator": _kill_aggregator,
    "Postgres": _kill_postgres,
    "kubelet": _kill_kubelet,
    "API server": _kill_apiserver,
}


@contextmanager
def under_load(world: World) -> Iterator[None]:
    with world.no_request_fails(10):
        yield


def test_an_upgrade_and_the_way_back_under_load(world: World) -> None:
    changed = {**VALUES, "agent": {"settings": {**VALUES["agent"]["settings"], "flow_entries": 32768}}}
    with world.wattle.helm() as helm:
        with under_load(world):
            helm.upgrade(str(CHART), RELEASE, changed, namespace=NAMESPACE)
            world.wattle.wait_ready()
        with under_load(world):
            helm.rollback(RELEASE, version=1)
            world.wattle.wait_ready()
    counted, written = world.at_rest()
    time.sleep(10)
    counted_then, written_then = world.at_rest()
    assert counted_then - counted == written_then - written, "the release that came back counts otherwise"


def test_uninstalled_it_leaves_nothing_but_the_policies(world: World) -> None:
    policies = world.admin.get("/apis/networking.k8s.io/v1/networkpolicies")["items"]
    with under_load(world), world.wattle.helm() as helm:
        helm.uninstall(RELEASE)
        wait_until(lambda: released(world.admin) == [], "the release's end", 60)
    for node in world.cluster.nodes.values():
        pins = ("find", "/sys/fs/bpf", "-mindepth", "2")
        wait_until(lambda node=node, pins=pins: node.inside(*pins).split() == [], "the pins' end", 30)
    still = world.admin.get("/apis/networking.k8s.io/v1/networkpolicies")["items"]
    assert len(still) == len(policies), "what was applied belongs to those who applied it"
