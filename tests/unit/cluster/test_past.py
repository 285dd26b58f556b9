"""What a restarted aggregator still knows."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aggregator.cluster.persist import CONFIRMED, Persistence
from aggregator.cluster.resolve import ViewResolver
from aggregator.cluster.view import ClusterView
from aggregator.errors import StoreError
from aggregator.model.history import Episode
from aggregator.model.resolution import NotYet, Resolved
from tests.unit.cluster import objects
from tests.unit.cluster.test_resolve import HTTP, HTTP_BEHIND, flow, link, workload

NOW = time.time()
STARTED = datetime.fromtimestamp(NOW - 3600, UTC).isoformat()


class Memory:
    """An EpisodeStore that is a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Episode] = {}
        self.writes = 0
        self.broken = False

    def save_episodes(self, episodes: Sequence[Episode]) -> None:
        if self.broken:
            raise StoreError("the database is away")
        self.writes += len(episodes)
        self.kept |= {(e.cluster, e.key): e for e in episodes}

    def load_episodes(self, cluster: str, *, since: datetime) -> Sequence[Episode]:
        return [e for e in self.kept.values() if e.cluster == cluster and (e.ended is None or e.ended >= since)]

    def forget_episodes(self, *, ended_before: datetime) -> int:
        gone = [k for k, e in self.kept.items() if e.ended is not None and e.ended < ended_before]
        for key in gone:
            del self.kept[key]
        return len(gone)


def cluster(*more: dict[str, Any]) -> ClusterView:
    view = ClusterView("c")
    for raw in (
        objects.node("node-1", "192.168.0.1", "10.244.1.0/24"),
        objects.replica_set("web-1", "web"),
        objects.replica_set("api-1", "api"),
        objects.pod("web-1-a", ip="10.244.1.5", owner=objects.owned_by("ReplicaSet", "web-1"), started=STARTED),
        objects.pod("api-1-a", ip="10.244.1.6", owner=objects.owned_by("ReplicaSet", "api-1"), started=STARTED),
        objects.service("api", ip="10.96.0.10", ports=[HTTP], created=STARTED),
        objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.1.6"], pods=["api-1-a"]),
        *more,
    ):
        view.apply(raw["kind"], raw, at=NOW - 1800)
    view.confirmed = NOW - 60
    return view


def restarted(memory: Memory, *raws: dict[str, Any]) -> ClusterView:
    """A new process: the past from the store, then the first lists."""
    view = ClusterView("c")
    assert Persistence(view, memory).load() > 0
    for raw in raws:
        view.apply(raw["kind"], raw, at=NOW)
    view.end_what_is_gone(NOW)
    view.confirmed = NOW + 100
    return view


def at(seconds_ago: float) -> datetime:
    return datetime.fromtimestamp(NOW - seconds_ago, UTC)


def test_yesterdays_addresses_are_still_resolved() -> None:
    memory = Memory()
    assert Persistence(cluster(), memory).save() > 0
    view = restarted(memory)  # everything is gone by now
    resolver = ViewResolver(view)
    for remote, port in (("10.244.1.6", 8080), ("10.96.0.10", 80)):
        answer = resolver.resolve(flow(remote, port), at(600))
        assert link(answer) == (workload("web"), workload("api"), 8080)
    assert isinstance(resolver.resolve(flow("10.244.1.6"), at(-90)), NotYet), "it is gone, and so is the grace period"


def test_until_the_first_lists_have_come_every_flow_waits_for_them() -> None:
    """However old it is: what the past does not keep, as the API server's addresses, would be named otherwise."""
    memory = Memory()
    assert Persistence(cluster(), memory).save() > 0
    view = ClusterView("c")
    assert Persistence(view, memory).load() > 0
    resolver = ViewResolver(view)
    before = resolver.generation
    for address in ("10.244.1.6", "10.96.0.10", "192.168.0.1", "8.8.8.8", "10.244.1.99"):
        answer = resolver.resolve(flow(address), at(600))
        assert isinstance(answer, NotYet), address
        assert answer.behind
        assert answer.fallback is not None
        assert str(answer.fallback.dst) == address
    assert resolver.generation == before
    until = resolver.known_until("c")
    assert until is not None
    assert until < at(600)
    view.end_what_is_gone(NOW)
    assert resolver.generation > before
    assert isinstance(resolver.resolve(flow("8.8.8.8"), at(600)), Resolved)


def test_an_address_that_changed_hands_while_it_was_down_is_not_guessed() -> None:
    memory = Memory()
    Persistence(cluster(), memory).save()
    new = objects.pod("new", ip="10.244.1.6", started=datetime.fromtimestamp(NOW - 30, UTC).isoformat())
    view = restarted(memory, new)
    resolver = ViewResolver(view)
    assert link(resolver.resolve(flow("10.244.1.6"), at(600)))[1] == workload("api")
    assert resolver.resolve(flow("10.244.1.6"), at(10)).reason == "address-changed-hands"
    assert link(resolver.resolve(flow("10.244.1.6"), at(-30)))[1] == workload("new", "Pod")


def test_backends_that_changed_while_it_was_down_are_not_guessed() -> None:
    memory = Memory()
    Persistence(cluster(), memory).save()
    view = restarted(
        memory,
        objects.pod("canary", ip="10.244.1.9", started=STARTED),
        objects.pod("web-1-a", ip="10.244.1.5", owner=objects.owned_by("ReplicaSet", "web-1"), started=STARTED),
        objects.pod("api-1-a", ip="10.244.1.6", owner=objects.owned_by("ReplicaSet", "api-1"), started=STARTED),
        objects.service("api", ip="10.96.0.10", ports=[HTTP], created=STARTED),
        objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.1.9"]),
    )
    resolver = ViewResolver(view)
    assert link(resolver.resolve(flow("10.96.0.10", 80), at(600)))[1] == workload("api")
    assert resolver.resolve(flow("10.96.0.10", 80), at(30)).reason == "service-backends-differ"
    assert link(resolver.resolve(flow("10.96.0.10", 80), at(-20)))[1] == workload("canary", "Pod")


def test_a_restored_past_is_written_back_as_it_was() -> None:
    memory, again = Memory(), Memory()
    Persistence(cluster(), memory).save()
    view = ClusterView("c")
    Persistence(view, memory).load()
    view.history.changed_pods |= view.history.pods.keys()  # as if everything had been seen again
    Persistence(view, again).save()
    kept = {k: e for k, e in memory.kept.items() if e.kind in {"pod", "node", "service", "labels"}}
    assert {k: e for k, e in again.kept.items() if k in kept} == kept


def test_only_what_changed_is_written() -> None:
    memory, view = Memory(), cluster()
    keeping = Persistence(view, memory)
    keeping.save()
    first = memory.writes
    keeping.save()
    assert memory.writes == first
    view.apply("Pod", objects.pod("more", ip="10.244.1.20", started=STARTED), at=NOW)
    keeping.save()
    changed = memory.writes - first
    assert changed == 2, "the pod, and the labels of its workload"


def test_a_store_that_is_away_is_tried_again() -> None:
    memory, view = Memory(), cluster()
    keeping = Persistence(view, memory)
    memory.broken = True
    assert keeping.save() == 0
    memory.broken = False
    assert keeping.save() > 0
    assert ("c", CONFIRMED) in memory.kept


def test_clusters_do_not_mix() -> None:
    memory = Memory()
    Persistence(cluster(), memory).save()
    assert Persistence(ClusterView("other"), memory).load() == 0


def test_what_a_later_release_wrote_is_left_alone() -> None:
    memory = Memory()
    Persistence(cluster(), memory).save()
    strange = Episode(cluster="c", kind="gateway", key="gateway/x", began=at(100), body=json.dumps({"new": True}))
    memory.save_episodes([strange])
    assert restarted(memory).history.pods


def test_labels_that_were_worn_are_remembered() -> None:
    memory = Memory()
    view = ClusterView("c")
    for number, release in enumerate(("one", "two")):
        labels = {"app": "web", "release": release, "pod-template-hash": f"abc{number}"}
        raw = objects.pod(f"w{number}", labels=labels, owner=objects.owned_by("StatefulSet", "web"))
        view.apply("Pod", raw, at=NOW)
    owner = workload("web", "StatefulSet")
    Persistence(view, memory).save()
    found = restarted(memory).labels
    assert found.shared(owner) == {"app": "web"}
    assert found.stable(owner) == {"app": "web"}
    assert found.changing(owner) == ("release",)


def test_the_snapshot_says_which_labels_have_changed() -> None:
    view = ClusterView("c")
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}}
    view.apply(
        "StatefulSet", {"kind": "StatefulSet", "metadata": objects.metadata("web", "shop"), "spec": spec}, at=NOW
    )
    for number, release in enumerate(("one", "two")):
        owner = objects.owned_by("StatefulSet", "web")
        raw = objects.pod(f"w{number}", labels={"app": "web", "release": release}, owner=owner)
        view.apply("Pod", raw, at=NOW)
        view.remove("Pod", "shop", f"w{number}", uid=f"uid-w{number}", at=NOW)
    (record,) = view.snapshot().workloads
    assert record.changing_labels == ("release",)


def test_the_past_is_forgotten_in_time() -> None:
    view = cluster()
    view.remove("Pod", "shop", "api-1-a", uid="uid-api-1-a", at=NOW - 1000)
    assert view.history.forget(NOW - 2000) == 0
    assert view.history.forget(NOW - 500) == 1
    assert "uid-api-1-a" not in view.history.pods
    assert all(span.key != "uid-api-1-a" for t in view.history.pod_ips.values() for span in t.spans)
