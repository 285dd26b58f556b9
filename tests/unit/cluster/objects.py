"""Kubernetes objects as the API server gives them, for tests of the cluster view."""

from typing import Any

Raw = dict[str, Any]


def metadata(name: str, namespace: str = "", **more: Any) -> Raw:
    found: Raw = {"name": name, **more}
    if namespace:
        found["namespace"] = namespace
    return found


def owned_by(kind: str, name: str, uid: str = "") -> list[Raw]:
    return [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}]


def pod(
    name: str,
    *,
    namespace: str = "shop",
    ip: str | tuple[str, ...] = (),
    uid: str = "",
    node: str = "node-1",
    labels: Raw | None = None,
    owner: list[Raw] | None = None,
    ports: list[Raw] | None = None,
    started: str | None = "2026-01-01T00:00:00Z",
    finished: str | None = None,
    phase: str = "Running",
    host_network: bool = False,
    annotations: Raw | None = None,
) -> Raw:
    ips = (ip,) if isinstance(ip, str) else ip
    meta = metadata(name, namespace, uid=uid or f"uid-{name}", labels=labels or {}, annotations=annotations or {})
    if owner:
        meta["ownerReferences"] = owner
    state = {"terminated": {"finishedAt": finished}} if finished else {"running": {"startedAt": started}}
    status: Raw = {"phase": phase, "podIPs": [{"ip": i} for i in ips], "containerStatuses": [{"state": state}]}
    if started:
        status["startTime"] = started
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"nodeName": node, "hostNetwork": host_network, "containers": [{"name": "c", "ports": ports or []}]},
        "status": status,
    }


def service(
    name: str,
    *,
    namespace: str = "shop",
    ip: str | None = None,
    selector: Raw | None = None,
    ports: list[Raw] | None = None,
    type: str = "ClusterIP",  # noqa: A002 - the field's own name
    created: str = "2026-01-01T00:00:00Z",
    **spec: Any,
) -> Raw:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, namespace, uid=f"uid-svc-{name}", creationTimestamp=created),
        "spec": {"type": type, "clusterIP": ip or "None", "selector": selector or {}, "ports": ports or [], **spec},
    }


def endpoint_slice(
    service_name: str, port: Raw, ips: list[str], *, namespace: str = "shop", pods: list[str] | None = None
) -> Raw:
    names = pods or [""] * len(ips)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(f"{service_name}-abc", namespace, labels={"kubernetes.io/service-name": service_name}),
        "ports": [port],
        "endpoints": [
            {"addresses": [ip], "targetRef": {"kind": "Pod", "name": name} if name else None}
            for ip, name in zip(ips, names, strict=True)
        ],
    }


def node(name: str, ip: str, pod_cidr: str = "", **more: Any) -> Raw:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata(name, creationTimestamp="2026-01-01T00:00:00Z", **more),
        "spec": {"podCIDRs": [pod_cidr]} if pod_cidr else {},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    }


def replica_set(name: str, deployment: str = "", *, namespace: str = "shop", uid: str = "") -> Raw:
    meta = metadata(name, namespace, uid=uid or f"uid-{name}")
    if deployment:
        meta["ownerReferences"] = owned_by("Deployment", deployment)
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": {}}


def service_cidr(cidr: str = "10.96.0.0/16") -> Raw:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": metadata("kubernetes"),
        "spec": {"cidrs": [cidr]},
    }
