"""A small shop in two namespaces, recorded in a real SQLite file and shown by plain manifests in a real directory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from aggregator.cluster.manifests import ManifestSource
from aggregator.model.event import Event, EventKind
from aggregator.model.link import Link, link_id, link_key
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Address, LinkEnd, Nodes, Workload
from aggregator.services.review import Review, Sources
from aggregator.store.decisions import DecisionLog
from aggregator.store.deltas import (
    ACTIVITY,
    AgentDelta,
    AttemptDelta,
    CursorKey,
    EvidenceKind,
    EvidenceSighting,
    LinkSighting,
    Merge,
    Sides,
)
from aggregator.store.events import EventLog
from aggregator.store.keys import bucket_of, cluster_id_of, milliseconds
from aggregator.store.migrate import migrate
from aggregator.store.overview import Overview
from aggregator.store.sightings import days_seen
from aggregator.store.sign_offs import SignOffs
from aggregator.store.store import Store, open_store
from aggregator.store.watches import PolicyWatches

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CLUSTER = "default"
SHOP, OTHER = "shop", "ledger"


def workload(namespace: str, kind: str, name: str) -> Workload:
    return Workload(cluster=CLUSTER, namespace=namespace, kind=kind, name=name)


WEB = workload(SHOP, "Deployment", "web")
DB = workload(SHOP, "StatefulSet", "db")
OLD = workload(SHOP, "StatefulSet", "old")
JOB = workload(SHOP, "CronJob", "report")
IDLE = workload(SHOP, "Deployment", "idle")
BOOKS = workload(OTHER, "Deployment", "books")
VAULT = workload(OTHER, "StatefulSet", "vault")
DNS = workload("kube-system", "Deployment", "coredns")
NODES = Nodes(cluster=CLUSTER)
PARTNER = Address(cluster=CLUSTER, ip=ip_address("203.0.113.10"))


def link(src: LinkEnd, dst: LinkEnd, port: int, protocol: Protocol = Protocol.TCP) -> Link:
    return Link(src=src, dst=dst, protocol=protocol, port=port)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One link as it was recorded."""

    link: Link
    count: int = 10
    failed: int = 0
    established: bool = True
    last: datetime = NOW - timedelta(minutes=10)
    first: datetime = NOW - timedelta(days=9)
    service: str = ""
    process: str = ""
    src_pod: str = ""
    dst_pod: str = ""
    sides: Sides = Sides.CLIENT | Sides.SERVER


SHOP_LINKS = (
    Seen(
        link=link(WEB, DB, 5432),
        count=500,
        service="shop/db:5432",
        process="python3",
        src_pod="shop/web-1",
        dst_pod="shop/db-0",
    ),
    Seen(link=link(WEB, OLD, 9042), count=20, service="shop/old:9042", process="python3", src_pod="shop/web-1"),
    Seen(link=link(JOB, DB, 5432), count=2, process="psql", src_pod="shop/report-1"),
    Seen(link=link(WEB, PARTNER, 443), count=30, process="python3", src_pod="shop/web-1", sides=Sides.CLIENT),
    Seen(link=link(WEB, DNS, 53, Protocol.UDP), count=90, process="python3", src_pod="shop/web-1"),
    Seen(link=link(NODES, WEB, 8080), count=5, dst_pod="shop/web-1", sides=Sides.SERVER),
    Seen(link=link(WEB, DB, 5433), count=0, failed=7, established=False, process="python3", src_pod="shop/web-1"),
)
CROSSING_LINKS = (
    Seen(
        link=link(BOOKS, WEB, 8080),
        count=40,
        service="shop/web:80",
        process="books",
        src_pod="ledger/books-1",
        dst_pod="shop/web-1",
    ),
    Seen(
        link=link(WEB, BOOKS, 7000),
        count=4,
        service="ledger/books:7000",
        process="python3",
        src_pod="shop/web-1",
        dst_pod="ledger/books-1",
    ),
)
OTHER_LINKS = (Seen(link=link(BOOKS, VAULT, 8200), count=70, process="books", src_pod="ledger/books-1"),)


def pod(namespace: str, name: str, ip: str, owner: Workload, labels: dict[str, str], *ports: int) -> dict[str, Any]:
    """A running pod, owned directly or by way of a ReplicaSet."""
    kind, owner_name = ("ReplicaSet", f"{owner.name}-rs") if owner.kind == "Deployment" else (owner.kind, owner.name)
    if owner.kind == "CronJob":
        kind, owner_name = "Job", f"{owner.name}-1"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "labels": labels,
            "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": owner_name, "controller": True}],
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "main", "ports": [{"containerPort": port} for port in ports]}],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    }


def controller(owner: Workload, labels: dict[str, str], *, replicas: int = 1) -> list[dict[str, Any]]:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main"}]}}
    metadata = {"name": owner.name, "namespace": owner.namespace}
    if owner.kind == "CronJob":
        job = {"template": template}
        return [
            {"kind": "CronJob", "metadata": metadata, "spec": {"schedule": "0 3 1 * *", "jobTemplate": {"spec": job}}},
            {
                "kind": "Job",
                "metadata": {
                    "name": f"{owner.name}-1",
                    "namespace": owner.namespace,
                    "ownerReferences": [{"kind": "CronJob", "name": owner.name, "controller": True}],
                },
                "spec": job,
            },
        ]
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    found = [{"kind": owner.kind, "metadata": metadata, "spec": spec}]
    if owner.kind == "Deployment":
        found.append(
            {
                "kind": "ReplicaSet",
                "metadata": {
                    "name": f"{owner.name}-rs",
                    "namespace": owner.namespace,
                    "ownerReferences": [{"kind": "Deployment", "name": owner.name, "controller": True}],
                },
                "spec": spec,
            }
        )
    return found


def service(namespace: str, name: str, ip: str, port: int, target: int, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterIP": ip,
            "clusterIPs": [ip],
            "selector": labels,
            "ports": [{"name": "main", "port": port, "targetPort": target}],
        },
    }


def namespace(name: str) -> dict[str, Any]:
    """With the label that the API server itself keeps."""
    return {"kind": "Namespace", "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}}


def dns_objects() -> list[dict[str, Any]]:
    labels = {"k8s-app": "kube-dns"}
    dns = service("kube-system", "kube-dns", "10.96.0.10", 53, 53, labels)
    dns["spec"]["ports"] = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]
    return [
        namespace("kube-system"),
        {"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}},
        *controller(DNS, labels),
        pod("kube-system", "coredns-1", "10.244.0.2", DNS, labels, 53),
        dns,
    ]


def api_server_objects() -> list[dict[str, Any]]:
    """The API server as a Service with one endpoint, on a node."""
    return [
        {
            "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]},
        },
        {
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}],
            "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
        },
    ]


def shop_objects() -> list[dict[str, Any]]:
    return [
        namespace(SHOP),
        {
            "kind": "Node",
            "metadata": {"name": "node-1"},
            "spec": {"podCIDRs": ["10.244.0.0/16"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
        },
        *controller(WEB, {"app": "web"}),
        *controller(DB, {"app": "db"}),
        *controller(OLD, {"app": "old"}),
        *controller(JOB, {"app": "report"}),
        *controller(IDLE, {"app": "idle"}, replicas=0),
        pod(SHOP, "web-1", "10.244.0.10", WEB, {"app": "web"}, 8080),
        pod(SHOP, "db-0", "10.244.0.11", DB, {"app": "db"}, 5432),
        pod(SHOP, "old-0", "10.244.0.12", OLD, {"app": "old"}, 9042),
        service(SHOP, "web", "10.96.0.20", 80, 8080, {"app": "web"}),
        service(SHOP, "db", "10.96.0.21", 5432, 5432, {"app": "db"}),
    ]


def other_objects() -> list[dict[str, Any]]:
    return [
        namespace(OTHER),
        *controller(BOOKS, {"app": "books"}),
        *controller(VAULT, {"app": "vault"}),
        pod(OTHER, "books-1", "10.244.0.30", BOOKS, {"app": "books"}, 7000),
        pod(OTHER, "vault-0", "10.244.0.31", VAULT, {"app": "vault"}, 8200),
        service(OTHER, "books", "10.96.0.30", 7000, 7000, {"app": "books"}),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "vault-guard", "namespace": OTHER},
            "spec": {
                "podSelector": {"matchLabels": {"app": "vault"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "books"}}}]}],
            },
        },
    ]


def record(store: Store, links: Iterable[Seen], *, now: datetime = NOW) -> None:
    """As ingest would have written it."""
    found = list(links)
    rows = sorted((link_id(seen.link), bucket_of(milliseconds(seen.last), 5), seen) for seen in found if seen.count)
    activity = np.zeros(len(rows), ACTIVITY)
    for number, (identity, bucket, seen) in enumerate(rows):
        activity[number]["link_id"] = identity
        activity[number]["bucket_minute"] = bucket
        activity[number]["cluster_id"] = cluster_id_of(CLUSTER)
        for side, flag in (("client", Sides.CLIENT), ("server", Sides.SERVER)):
            if flag in seen.sides:
                activity[number][f"{side}_count"] = seen.count
                activity[number][f"{side}_tx_bytes"] = seen.count * 100
                activity[number][f"{side}_rx_bytes"] = seen.count * 1000
    store.sink.merge(
        Merge(
            activity=activity,
            attempts=[
                AttemptDelta(
                    cluster=CLUSTER,
                    link_id=link_id(seen.link),
                    bucket_minute=bucket_of(milliseconds(seen.last), 60),
                    outcome="refused",
                    attempts=seen.failed,
                )
                for seen in found
                if seen.failed
            ],
            links=[
                LinkSighting(
                    link=seen.link,
                    link_id=link_id(seen.link),
                    key=link_key(seen.link),
                    sides=seen.sides,
                    established=seen.established,
                    high_confidence=True,
                    probe_only=False,
                    first_seen_ms=milliseconds(seen.first),
                    last_seen_ms=milliseconds(seen.last),
                )
                for seen in found
            ],
            evidence=[
                EvidenceSighting(
                    cluster=CLUSTER,
                    link_id=link_id(seen.link),
                    kind=kind,
                    value=value,
                    first_seen_ms=milliseconds(seen.first),
                    last_seen_ms=milliseconds(seen.last),
                )
                for seen in found
                for kind, value in (
                    (EvidenceKind.SERVICE, seen.service),
                    (EvidenceKind.CLIENT_PROCESS, seen.process),
                    (EvidenceKind.SRC_POD, seen.src_pod),
                    (EvidenceKind.DST_POD, seen.dst_pod),
                )
                if value
            ],
            agents=[
                AgentDelta(
                    cluster=CLUSTER,
                    agent_id="node-1",
                    last_batch_ms=milliseconds(now - timedelta(seconds=5)),
                    flow_records=len(found),
                )
            ],
        )
    )


def cursor_key(agent_id: str = "node-1") -> CursorKey:
    return CursorKey(cluster=CLUSTER, agent_id=agent_id, epoch=1)


@dataclass(kw_only=True)
class World:
    """Everything that a Review needs, real and small."""

    directory: Path
    source: ManifestSource
    store: Store
    decisions: DecisionLog
    now: datetime = NOW

    def sources(self) -> Sources:
        return Sources(
            store=self.store,
            view=self.source,
            decisions=self.decisions,
            sign_offs=SignOffs(self.store.engine),
            overview=Overview(self.store.engine),
            events=EventLog(self.store.engine),
            watches=PolicyWatches(self.store.engine),
            clock=lambda: self.now,
            masking_key=b"a key of the tests",
            days_seen=lambda asked: days_seen(self.store.engine, asked),
        )

    def review(self, **changes: Any) -> Review:
        return Review(replace(self.sources(), **changes))

    def show(self, objects: Iterable[dict[str, Any]]) -> None:
        """What the cluster has from now on."""
        path = self.directory / "objects" / "all.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump_all(list(objects)))
        self.source.load()

    def close(self) -> None:
        self.store.close()


def build(directory: Path, objects: Iterable[dict[str, Any]], links: Iterable[Seen]) -> World:
    url = f"sqlite:///{directory / 'wattle.db'}"
    migrate(url)
    store = open_store(url, clock=lambda: NOW)
    manifests = directory / "objects"
    manifests.mkdir()
    world = World(
        directory=directory,
        source=ManifestSource(manifests, cluster=CLUSTER),
        store=store,
        decisions=DecisionLog(store.engine),
    )
    world.show(objects)
    record(store, links)
    return world


def everything(directory: Path) -> World:
    """Both namespaces and all of their links."""
    return build(
        directory,
        [*dns_objects(), *shop_objects(), *other_objects()],
        [*SHOP_LINKS, *CROSSING_LINKS, *OTHER_LINKS],
    )


@contextmanager
def home_and_west(directory: Path) -> Iterator[tuple[World, World]]:
    """Two clusters: everything in the one, in the other the shop alone with two of its links."""
    for name in ("home", "west"):
        (directory / name).mkdir()
    home = everything(directory / "home")
    west = build(directory / "west", [*dns_objects(), *shop_objects()], SHOP_LINKS[:2])
    yield home, west
    home.close()
    west.close()


def new_link_event(found: Link) -> Event:
    """As drift finds it, whatever is frozen."""
    return Event(
        kind=EventKind.NEW_LINK,
        subject=str(found.dst),
        episode="1",
        link=found,
        found_at=NOW,
        text=f"{found} is not in the baseline of {found.dst}",
    )
