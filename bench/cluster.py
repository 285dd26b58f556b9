"""What the cluster view costs: a cached pod against the client's own model, a large cluster listed, a flow resolved.

Enters: pods as an API server sends them, made here (about 9 kB of JSON each, as large ones in real clusters are).
Leaves: figures in build/bench/cluster.jsonl. CPU time, in one process each, so that memory is that part's alone.
"""

import gc
import json
import multiprocessing
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from kubernetes.client import V1Pod

from aggregator.cluster.reduce import FOREVER
from aggregator.cluster.resolve import ViewResolver
from aggregator.cluster.transport import items_of
from aggregator.cluster.view import ClusterView
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, Resolved
from bench.report import Bar, Figure, emit, median_and_spread

PODS = 5_000
LARGE = 50_000
RESOLVED = 50_000
REPETITIONS = 5
PAGE = 500
STARTED = "2026-01-01T00:00:00Z"


def pod_json(number: int) -> str:
    """A pod with two containers, volumes, conditions and the bookkeeping of who wrote which field."""
    app, ip = f"app-{number // 10}", str(IPv4Address(0x0AF40000 + number))
    containers = [
        {
            "name": name,
            "image": f"registry.example/{app}/{name}:1.2.3",
            "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
            "env": [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(20)],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "volumeMounts": [{"name": f"v{n}", "mountPath": f"/mnt/{n}", "readOnly": True} for n in range(4)],
            "livenessProbe": {"httpGet": {"path": "/live", "port": "http"}, "periodSeconds": 10},
        }
        for name, port in (("main", 8080), ("proxy", 15001))
    ]
    states = [
        {
            "name": c["name"],
            "ready": True,
            "restartCount": 0,
            "image": c["image"],
            "imageID": f"registry.example/x@sha256:{number:064x}",
            "containerID": f"containerd://{number:064x}",
            "state": {"running": {"startedAt": STARTED}},
        }
        for c in containers
    ]
    fields: dict[str, Any] = {f"f:{key}": {f"f:{n}": {} for n in range(12)} for key in ("metadata", "spec", "status")}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{app}-7f9c6d5b8-{number:05x}",
            "namespace": f"team-{number // 10 % 50}",  # all ten pods of a ReplicaSet in its own namespace
            "uid": f"{number:08x}-0000-4000-8000-000000000000",
            "resourceVersion": str(number),
            "creationTimestamp": STARTED,
            "labels": {"app": app, "app.kubernetes.io/name": app, "pod-template-hash": "7f9c6d5b8", "team": "x"},
            "annotations": {f"example.io/note-{n}": "some text that nobody needs here" for n in range(6)},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"{app}-7f9c6d5b8",
                    "uid": f"rs-{app}",
                    "controller": True,
                }
            ],
            "managedFields": [
                {"manager": m, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}
                for m in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "nodeName": f"node-{number % 200}",
            "serviceAccountName": "default",
            "restartPolicy": "Always",
            "containers": containers,
            "volumes": [{"name": f"v{n}", "configMap": {"name": f"c{n}"}} for n in range(4)],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "hostIP": "192.168.0.1",
            "startTime": STARTED,
            "conditions": [
                {"type": t, "status": "True", "lastTransitionTime": STARTED} for t in ("Ready", "Initialized")
            ],
            "containerStatuses": states,
        },
    }
    return json.dumps(pod)


def replica_set(app: str, namespace: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{app}-7f9c6d5b8",
            "namespace": namespace,
            "uid": f"rs-{app}",
            "ownerReferences": [{"kind": "Deployment", "name": app, "uid": f"d-{app}", "controller": True}],
        },
        "spec": {},
    }


def empty_view(count: int) -> ClusterView:
    view = ClusterView("bench")
    for number in range(0, count, 10):
        view.apply("ReplicaSet", replica_set(f"app-{number // 10}", f"team-{number // 10 % 50}"), at=0)
    return view


def into_view(texts: list[str]) -> ClusterView:
    view = empty_view(len(texts))
    for text in texts:
        view.apply("Pod", json.loads(text), at=1_767_225_700)
    return view


def into_models(texts: list[str]) -> list[Any]:
    return [V1Pod.from_dict(json.loads(text)) for text in texts]


def into_dicts(texts: list[str]) -> list[Any]:
    return [json.loads(text) for text in texts]


def cpu_us(make: Callable[[list[str]], object], texts: list[str]) -> float:
    """CPU microseconds a pod."""
    gc.collect()
    started = time.process_time()
    kept = make(texts)
    spent = time.process_time() - started
    del kept
    return spent / len(texts) * 1e6


def kept_bytes(make: Callable[[list[str]], object], texts: list[str]) -> float:
    """Bytes a pod that stay."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = make(texts)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return (after - before) / len(texts)


def per_pod(name: str) -> tuple[list[float], float]:
    """(CPU of each repetition, bytes): in a process of its own, warmed up."""
    make = {"view": into_view, "models": into_models, "dicts": into_dicts}[name]
    texts = [pod_json(n) for n in range(PODS if name == "view" else PODS // 10)]
    make(texts[:50])
    bare = cpu_us(lambda t: empty_view(len(t)), texts) if name == "view" else 0.0
    bare_bytes = kept_bytes(lambda t: empty_view(len(t)), texts) if name == "view" else 0.0
    return [cpu_us(make, texts) - bare for _ in range(REPETITIONS)], kept_bytes(make, texts) - bare_bytes


def pages(count: int) -> Iterator[str]:
    for first in range(0, count, PAGE):
        yield f'{{"items": [{",".join(pod_json(n) for n in range(first, first + PAGE))}]}}'


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def large_cluster(_: str) -> tuple[float, float, float, float]:
    """(CPU s to list, MiB more, CPU s to resolve, share resolved); making the JSON is not counted."""
    view = empty_view(LARGE)
    before, listed = resident_mib(), 0.0
    for page in pages(LARGE):
        started = time.process_time()
        items_of(page, lambda raw: view.apply("Pod", raw, at=1_767_225_700))
        listed += time.process_time() - started
    gc.collect()
    grown = resident_mib() - before
    view.confirmed = FOREVER
    resolver, rng = ViewResolver(view), random.Random(1)
    flows = [flow(rng) for _ in range(RESOLVED)]
    at = datetime.fromtimestamp(1_767_300_000, UTC)
    started = time.process_time()
    good = sum(isinstance(resolver.resolve(one, at), Resolved) for one in flows)
    return listed, grown, time.process_time() - started, good / RESOLVED


def flow(rng: random.Random) -> FlowIdentity:
    local, remote = rng.randrange(LARGE), rng.randrange(LARGE)
    return FlowIdentity(
        cluster="bench",
        node=f"node-{local % 200}",
        pod_uid=f"{local:08x}-0000-4000-8000-000000000000",
        local_ip=IPv4Address(0x0AF40000 + local),
        remote_ip=IPv4Address(0x0AF40000 + remote),
        port=8080,
        protocol=Protocol.TCP,
        direction=Direction.EGRESS,
    )


def main() -> int:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        (view, view_bytes), (models, model_bytes), (dicts, dict_bytes) = pool.map(
            per_pod, ("view", "models", "dicts"), chunksize=1
        )
        ((listed, grown, resolving, share),) = pool.map(large_cluster, ("large",), chunksize=1)
    cost, spread = median_and_spread(view)
    model, dictionary = median_and_spread(models)[0], median_and_spread(dicts)[0]
    holds = emit(
        "cluster",
        [
            Figure(
                figure="CPU to cache a pod, JSON to view",
                value=cost,
                unit="us/pod",
                against=f"the client's V1Pod: {model:.0f} us; json.loads alone: {dictionary:.0f} us",
                ratio=cost / model,
                bar=Bar(comparison="<=", limit=60),
                spread=spread,
            ),
            Figure(
                figure="memory of a cached pod, its history included",
                value=view_bytes,
                unit="bytes/pod",
                against=f"the client's V1Pod: {model_bytes:.0f} bytes; a dict: {dict_bytes:.0f} bytes",
                ratio=view_bytes / model_bytes,
                bar=Bar(comparison="<=", limit=1500),
            ),
            Figure(
                figure=f"{LARGE} pods listed",
                value=listed,
                unit="CPU s",
                against=f"the client's V1Pod at {model:.0f} us each: {model * LARGE / 1e6:.1f} s",
                ratio=listed / (model * LARGE / 1e6),
            ),
            Figure(
                figure=f"memory that {LARGE} pods add",
                value=grown,
                unit="MiB",
                against=f"the client's V1Pod at {model_bytes:.0f} bytes each: {model_bytes * LARGE / 2**20:.0f} MiB",
                ratio=grown / (model_bytes * LARGE / 2**20),
            ),
            Figure(
                figure=f"identities resolved among {LARGE} pods",
                value=RESOLVED / resolving,
                unit="1/CPU s",
                against="the aggregator asks once for each new identity, not for each flow",
            ),
            Figure(
                figure="share of them that was resolved",
                value=share,
                unit="1",
                against="every address was a pod's: 1",
                bar=Bar(comparison=">=", limit=1),
            ),
        ],
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
