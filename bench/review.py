"""What a page costs: each page's question, asked of a large store, p50 and p99 in milliseconds of CPU.

Enters: nothing; makes WORKLOADS workloads and LINKS links with BUCKETS hourly rows each, in an embedded SQLite (or in
the empty database of WATTLE_BENCH_DATABASE_URL). Leaves: figures in build/bench/review.jsonl. The bar is 300 ms at p99.
"""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from aggregator.model.cluster import ClusterSnapshot, Namespace, Pod, WorkloadRecord
from aggregator.model.link import Link, link_id, link_key
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Workload
from aggregator.services.authority.caller import developer
from aggregator.services.paging import Wanted, page_of_links, page_of_workloads
from aggregator.services.question import View, WorkloadRef
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
from bench.report import Bar, Figure, emit

WORKLOADS = int(os.environ.get("WATTLE_BENCH_WORKLOADS", "10000"))
LINKS = int(os.environ.get("WATTLE_BENCH_LINKS", "200000"))
BUCKETS = int(os.environ.get("WATTLE_BENCH_BUCKETS", "2"))
PER_NAMESPACE = 40
REPETITIONS = 20
CHUNK = 20_000
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BAR_MILLISECONDS = 300.0


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


def measure(name: str, question: Callable[[], object]) -> Figure:
    samples = []
    for _ in range(REPETITIONS):
        started = time.process_time()
        question()
        samples.append((time.process_time() - started) * 1000)
    samples.sort()
    middle, worst = statistics.median(samples), samples[-1]
    return Figure(
        figure=f"page: {name}, p99",
        value=worst,
        unit="ms CPU",
        against=f"{WORKLOADS} workloads, {LINKS} links; p50 {middle:.0f} ms",
        bar=Bar(comparison="<=", limit=BAR_MILLISECONDS),
        spread=(worst - samples[0]) / middle if middle else 0.0,
    )


def pages(review: Review) -> dict[str, Callable[[], object]]:
    """One question a page, as the doors ask it."""
    me = developer()
    ref = WorkloadRef(namespace="ns-1", kind="Deployment", name=f"app-{PER_NAMESPACE}")
    return {
        "namespaces": lambda: review.namespaces(me),
        "workloads of the cluster": lambda: page_of_workloads(review.workloads(me), Wanted()),
        "workloads of a namespace": lambda: review.workloads(me, "ns-1"),
        "table of a workload": lambda: page_of_links(review.workload_links(me, ref), Wanted()),
        "table of a namespace": lambda: page_of_links(review.namespace_links(me, "ns-1"), Wanted()),
        "baseline of a workload": lambda: review.baseline(me, ref),
        "proposal of a workload": lambda: review.proposal(me, ref),
        "applied policies of a namespace": lambda: review.applied(me, "ns-1"),
    }


def main() -> bool:
    workloads = [workload(number) for number in range(WORKLOADS)]
    with tempfile.TemporaryDirectory() as directory:
        url = os.environ.get("WATTLE_BENCH_DATABASE_URL", f"sqlite:///{Path(directory) / 'review.db'}")
        migrate(url)
        store = open_store(url, clock=lambda: NOW)
        fill(store, workloads)
        whole = snapshot(workloads)
        view = SimpleNamespace(cluster="bench", snapshot=whole, findings=(), age_seconds=0.0, stale=False)
        review = Review(
            Sources(
                store=store,
                view=cast("View", view),
                decisions=DecisionLog(store.engine),
                sign_offs=SignOffs(store.engine),
                overview=Overview(store.engine),
                events=EventLog(store.engine),
                clock=lambda: NOW,
                days_seen=lambda asked: days_seen(store.engine, asked),
            )
        )
        holds = emit("review", [measure(name, question) for name, question in pages(review).items()])
        store.close()
    return holds


if __name__ == "__main__":
    main()
