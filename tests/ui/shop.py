"""The lab's shop as an aggregator has recorded it: what the page's tests look at."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

from aggregator.api.rest import Development, create_api
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Address, Nodes
from aggregator.web.site import add_web
from tests.integration.services.world import (
    CLUSTER,
    DNS,
    NOW,
    Seen,
    World,
    api_server_objects,
    build,
    controller,
    dns_objects,
    link,
    pod,
    service,
    workload,
)

SHOP = "example-java-app"
CLIENT = workload(SHOP, "Deployment", "client")
JAVAAPP = workload(SHOP, "Deployment", "javaapp")
MONGO = workload(SHOP, "Deployment", "mongo")
REDIS = workload(SHOP, "Deployment", "redis")
CASSANDRA = workload(SHOP, "StatefulSet", "cassandra")
REPORT = workload(SHOP, "CronJob", "report")
PROMETHEUS = workload("monitoring", "Deployment", "prometheus")
PARTNER = Address(cluster=CLUSTER, ip=ip_address("203.0.113.10"))
NAMES = {CLIENT: 11, JAVAAPP: 12, MONGO: 13, REDIS: 14, CASSANDRA: 15}
PORTS = {JAVAAPP: 8080, MONGO: 27017, REDIS: 6379, CASSANDRA: 9042}

LINKS = (
    Seen(link=link(CLIENT, JAVAAPP, 8080), count=4200, service=f"{SHOP}/javaapp:80", process="curl"),
    Seen(link=link(JAVAAPP, MONGO, 27017), count=48210, service=f"{SHOP}/mongo:27017", process="java"),
    Seen(link=link(JAVAAPP, REDIS, 6379), count=31077, service=f"{SHOP}/redis:6379", process="java"),
    Seen(link=link(JAVAAPP, CASSANDRA, 9042), count=1204, service=f"{SHOP}/cassandra:9042", process="java"),
    Seen(link=link(JAVAAPP, PARTNER, 443), count=418, process="java"),
    Seen(link=link(JAVAAPP, DNS, 53, Protocol.UDP), count=900, service="kube-system/kube-dns:53", process="java"),
    Seen(link=link(REPORT, MONGO, 27017), count=9, process="report"),
    Seen(link=link(PROMETHEUS, JAVAAPP, 8080), count=300, process="prometheus"),
    Seen(link=link(Nodes(cluster=CLUSTER), JAVAAPP, 8081), count=50),
    Seen(link=link(JAVAAPP, MONGO, 27018), count=0, failed=7, established=False, process="java"),
)


def objects() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        *dns_objects(),
        {"kind": "Namespace", "metadata": {"name": SHOP, "labels": {"kubernetes.io/metadata.name": SHOP}}},
        {
            "kind": "Namespace",
            "metadata": {"name": "monitoring", "labels": {"kubernetes.io/metadata.name": "monitoring"}},
        },
        {
            "kind": "Node",
            "metadata": {"name": "node-1"},
            "spec": {"podCIDRs": ["10.244.0.0/16"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
        },
        *controller(REPORT, {"app": "report"}),
        *controller(PROMETHEUS, {"app": "prometheus"}),
        pod("monitoring", "prometheus-1", "10.244.0.30", PROMETHEUS, {"app": "prometheus"}, 9090),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "redis-guard", "namespace": SHOP},
            "spec": {
                "podSelector": {"matchLabels": {"app": "redis"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "javaapp"}}}]}],
            },
        },
    ]
    found += [*beside(), *announced()]
    for owner, last in NAMES.items():
        port = PORTS.get(owner)
        labels = {"app": owner.name}
        found += controller(owner, labels)
        found.append(pod(SHOP, f"{owner.name}-1", f"10.244.0.{last}", owner, labels, *([port] if port else [])))
        if port:
            found.append(service(SHOP, owner.name, f"10.96.0.{last}", 80 if port == 8080 else port, port, labels))
    return found


def beside() -> list[dict[str, Any]]:
    """What is applied beside the NetworkPolicies; none of it touches javaapp."""
    monitoring = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    return [
        {
            "apiVersion": "policy.networking.k8s.io/v1alpha1",
            "kind": "AdminNetworkPolicy",
            "metadata": {"name": "monitoring-may-scrape"},
            "spec": {
                "priority": 10,
                "subject": {"namespaces": monitoring},
                "egress": [{"name": "scrape", "action": "Allow", "to": [{"namespaces": {}}]}],
            },
        },
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "grafana-l7", "namespace": "monitoring"},
            "spec": {"endpointSelector": {"matchLabels": {"app": "grafana"}}, "egress": [{}]},
        },
    ]


def announced() -> list[dict[str, Any]]:
    """A caller that the cluster declares and nobody has seen: the API server, for a webhook of javaapp's."""
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "orders.example.org"},
            "webhooks": [
                {"name": "a", "clientConfig": {"service": {"namespace": SHOP, "name": "javaapp", "port": 80}}}
            ],
        },
        *api_server_objects(),
    ]


def shop(directory: Path) -> World:
    world = build(directory, objects(), LINKS)
    world.now = NOW + timedelta(minutes=1)
    return world


@contextmanager
def served(world: World) -> Iterator[str]:
    """A real server on a free port of loopback; its address."""
    api = add_web(create_api(world.review(), Development()))
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="warning", access_log=False))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive(), "the server did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
