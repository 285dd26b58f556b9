"""What a page costs: each page's question, asked of a large store, p50 and p99 in milliseconds.

Enters: nothing; makes WORKLOADS workloads and LINKS links with BUCKETS hourly rows each, in a PostgreSQL of its own (or
in the empty database of WATTLE_BENCH_DATABASE_URL). Leaves: figures in build/bench/review.jsonl. The bar is 300 ms at
p99, of CPU time: the aggregator's and the database's. A question is asked again and again of the same cluster, and
then each time of one that has just changed, for that is what a busy cluster does: nothing kept by snapshot helps then.
"""

import os
import random
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import numpy as np

from aggregator.model.cidrs import ClusterCidrs
from aggregator.model.cluster import ClusterSnapshot, Namespace, Pod, WorkloadRecord
from aggregator.model.finding import Finding
from aggregator.model.link import Link, link_id, link_key
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Workload
from aggregator.services.authority.caller import developer
from aggregator.services.paging import Wanted, page_of_links
from aggregator.services.question import WorkloadRef
from aggregator.services.review import Review, Sources
from aggregator.store.decisions import DecisionLog
from aggregator.store.deltas import ACTIVITY, EvidenceKind, EvidenceSighting, LinkSighting, Merge, Sides
from aggregator.store.events import EventLog
from aggregator.store.keys import bucket_of, cluster_id_of, milliseconds
from aggregator.store.migrate import migrate
from aggregator.store.overview import Overview
from aggregator.store.sightings import days_seen
from aggregator.store.sign_offs import SignOffs
from aggregator.store.store import Store, open_store
from aggregator.store.watches import PolicyWatches
from bench.delivery.load import cpu_of_directory
from bench.report import Bar, Figure, emit
from tests.database import running_postgres

WORKLOADS = int(os.environ.get("WATTLE_BENCH_WORKLOADS", "10000"))
LINKS = int(os.environ.get("WATTLE_BENCH_LINKS", "200000"))
BUCKETS = int(os.environ.get("WATTLE_BENCH_BUCKETS", "30"))
HUB_LINKS = 200  # of the one workload that many others call
PER_NAMESPACE = 40
REPETITIONS = int(os.environ.get("WATTLE_BENCH_REPETITIONS", "20"))
CHUNK = 5_000
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BAR_MILLISECONDS = 300.0
HUB_BAR_MILLISECONDS = 200.0


def workload(number: int) -> Workload:
    namespace = f"ns-{number // PER_NAMESPACE}"
    return Workload(cluster="bench", namespace=namespace, kind="Deployment", name=f"app-{number}")


def snapshot(workloads: list[Workload]) -> ClusterSnapshot:
    return ClusterSnapshot(
        name="bench",
        namespaces=tuple(Namespace(name=name) for name in sorted({w.namespace for w in workloads})),
        pods=tuple(
            Pod(
                namespace=w.namespace,
                name=f"{w.name}-1",
                workload=w,
                labels=(("app", w.name),),
                ips=(IPv4Address(0x0A000000 + number),),
            )
            for number, w in enumerate(workloads)
        ),
        workloads=tuple(
            WorkloadRecord(workload=w, selector=(("app", w.name),), template_labels=(("app", w.name),))
            for w in workloads
        ),
        pod_cidrs=(ip_network("10.0.0.0/8"),),
        service_cidrs=(ip_network("172.16.0.0/16"),),
        cidrs_complete=True,
    )


def fill(store: Store, workloads: list[Workload]) -> None:
    """Mostly inside a namespace, some across, as in clusters."""
    dice = random.Random(7)
    links: dict[Link, None] = {}
    while len(links) < LINKS:
        src = dice.randrange(len(workloads))
        near = src // PER_NAMESPACE * PER_NAMESPACE + dice.randrange(PER_NAMESPACE)
        dst = min(near, len(workloads) - 1) if dice.random() < 0.7 else dice.randrange(len(workloads))
        port = dice.choice((80, 443, 5432, 6379, 8080, 9090))
        links[Link(src=workloads[src], dst=workloads[dst], protocol=Protocol.TCP, port=port)] = None
    hub = workloads[2 * PER_NAMESPACE]
    own = sum(hub in {link.src, link.dst} for link in links)
    for number in range(HUB_LINKS - own):
        links[Link(src=workloads[number * 7 + 200], dst=hub, protocol=Protocol.TCP, port=8443)] = None
    everything = list(links)
    for start in range(0, len(everything), CHUNK):
        store.sink.merge(merge(everything[start : start + CHUNK]))


def merge(links: list[Link]) -> Merge:
    first, last = milliseconds(NOW - timedelta(days=9)), milliseconds(NOW - timedelta(hours=1))
    rows = sorted((link_id(link), bucket_of(last, 60) - 60 * b) for link in links for b in range(BUCKETS))
    activity = np.zeros(len(rows), ACTIVITY)
    activity["link_id"] = [row[0] for row in rows]
    activity["bucket_minute"] = [row[1] for row in rows]
    activity["cluster_id"] = cluster_id_of("bench")
    activity["client_count"] = 10
    return Merge(
        activity=activity,
        links=[
            LinkSighting(
                link=link,
                link_id=link_id(link),
                key=link_key(link),
                sides=Sides.CLIENT | Sides.SERVER,
                established=True,
                high_confidence=True,
                probe_only=False,
                first_seen_ms=first,
                last_seen_ms=last,
            )
            for link in links
        ],
        evidence=[
            EvidenceSighting(
                cluster="bench",
                link_id=link_id(link),
                kind=EvidenceKind.CLIENT_PROCESS,
                value="java",
                first_seen_ms=first,
                last_seen_ms=last,
            )
            for link in links
        ],
    )


@dataclass(slots=True, kw_only=True)
class Clocks:
    """CPU of this process and of the database's; without a directory to look into, of this process alone."""

    database: Path | None

    def cost(self, question: Callable[[], object]) -> float:
        """Milliseconds. The database's clock is read outside of this process's own: reading it costs, too."""
        inside = self._inside()
        own = time.process_time()
        question()
        own = time.process_time() - own
        return (own + self._inside() - inside) * 1000

    def _inside(self) -> float:
        return cpu_of_directory(self.database) if self.database else 0.0


@dataclass(slots=True, kw_only=True)
class Watched:
    """A View whose cluster can change: one pod is another one."""

    snapshot: ClusterSnapshot
    cluster: str = "bench"
    cidrs: ClusterCidrs = ClusterCidrs()  # noqa: RUF009  # frozen
    findings: tuple[Finding, ...] = ()
    age_seconds: float = 0.0
    stale: bool = False

    def change(self) -> None:
        first, *others = self.snapshot.pods
        renamed = replace(first, name=f"{first.workload.name}-{secrets.token_hex(3)}")
        self.snapshot = replace(self.snapshot, pods=(*others, renamed))


def measure(
    name: str, question: Callable[[], object], clocks: Clocks, before: Callable[[], object], bar: float
) -> Figure:
    samples, waited = [], []
    for _ in range(REPETITIONS):
        before()
        started = time.perf_counter()
        samples.append(clocks.cost(question))
        waited.append((time.perf_counter() - started) * 1000)
    samples.sort()
    middle, worst = statistics.median(samples), samples[-1]
    return Figure(
        figure=f"page: {name}, p99",
        value=worst,
        unit="ms CPU",
        against=f"{WORKLOADS} workloads, {LINKS} links, {LINKS * BUCKETS} activity rows; p50 {middle:.0f} ms; "
        f"by the wall p50 {statistics.median(waited):.0f} ms, p99 {max(waited):.0f} ms",
        bar=Bar(comparison="<=", limit=bar),
        spread=(worst - samples[0]) / middle if middle else 0.0,
    )


def pages(review: Review) -> dict[str, Callable[[], object]]:
    """One question a page, as the doors ask it."""
    me = developer()
    ref = WorkloadRef(namespace="ns-1", kind="Deployment", name=f"app-{PER_NAMESPACE}")
    return {
        "namespaces": lambda: review.namespaces(me),
        "workloads of the cluster": lambda: review.workloads_page(me, Wanted()),
        "workloads of a namespace": lambda: review.workloads(me, "ns-1"),
        "workloads of a namespace, last 24 h": lambda: review.workloads(me, "ns-1", "24h"),
        "table of a workload": lambda: page_of_links(review.workload_links(me, ref), Wanted()),
        "table of a workload, last 7 d": lambda: page_of_links(review.workload_links(me, ref, span="7d"), Wanted()),
        "table of a namespace": lambda: page_of_links(review.namespace_links(me, "ns-1"), Wanted()),
        "map of a namespace": lambda: review.topology(me, "ns-1"),
        "addresses of a namespace": lambda: review.addresses(me, "ns-1"),
        "baseline of a workload": lambda: review.baseline(me, ref),
        "applied policies of a namespace": lambda: review.applied(me, "ns-1"),
        "decisions": lambda: review.deciding.history(me, "ns-1"),
        "proposal of a workload": lambda: review.proposal(me, ref),
    }


def main() -> bool:
    given = os.environ.get("WATTLE_BENCH_DATABASE_URL")
    if given:
        return run(given, Clocks(database=None))
    with running_postgres() as postgres:
        return run(postgres.create_database("review"), Clocks(database=postgres.directory / "data"))


def run(url: str, clocks: Clocks) -> bool:
    workloads = [workload(number) for number in range(WORKLOADS)]
    migrate(url)
    store = open_store(url, clock=lambda: NOW)
    try:
        fill(store, workloads)
        with store.engine.connect() as connection:
            if store.engine.dialect.name == "postgresql":  # as autovacuum does within the minute
                connection.exec_driver_sql("ANALYZE")
                connection.commit()
        return emit("review", figures(store, Watched(snapshot=snapshot(workloads)), clocks))
    finally:
        store.close()


def figures(store: Store, view: Watched, clocks: Clocks) -> Iterator[Figure]:
    review = Review(
        Sources(
            store=store,
            view=view,
            decisions=DecisionLog(store.engine),
            sign_offs=SignOffs(store.engine),
            overview=Overview(store.engine),
            events=EventLog(store.engine),
            watches=PolicyWatches(store.engine),
            clock=lambda: NOW,
            days_seen=lambda asked: days_seen(store.engine, asked),
        )
    )
    for name, question in pages(review).items():
        question()
        yield measure(name, question, clocks, lambda: None, BAR_MILLISECONDS)
        yield measure(f"{name}, of a cluster that has just changed", question, clocks, view.change, BAR_MILLISECONDS)
    hub = WorkloadRef(namespace="ns-2", kind="Deployment", name=f"app-{2 * PER_NAMESPACE}")
    yield measure(
        f"proposal of a workload with {HUB_LINKS} links, new each time",
        lambda: review.proposal(developer(), hub),
        clocks,
        view.change,
        HUB_BAR_MILLISECONDS,
    )


if __name__ == "__main__":
    main()
