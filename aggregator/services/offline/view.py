"""A scenario's page as the cluster view that the aggregator would have had: its history, asked by address and time.

Enters: a Scenario. Leaves: a Resolver. Invariant: an address that `ip_history` speaks of belongs to whom it says, when
it says so, and to nobody else; pods marked `future` did not exist.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from aggregator.cluster.history import Timeline
from aggregator.cluster.owners import LOOKED_UP
from aggregator.cluster.reduce import FOREVER, NEVER
from aggregator.cluster.resolve import ViewResolver
from aggregator.cluster.scenario import Scenario
from aggregator.cluster.view import ClusterView
from aggregator.model.cidrs import CidrRole, CidrSource, ClusterCidrs
from aggregator.model.cluster import Node, Pod, Service
from aggregator.model.resolution import Resolver

Raw = dict[str, Any]


def resolver_of(scenario: Scenario) -> Resolver:
    """Who had which address when, on this page."""
    cluster = scenario.cluster
    view = ClusterView(cluster.name)
    for namespace in cluster.namespaces:
        view.apply("Namespace", {"metadata": {"name": namespace.name, "labels": dict(namespace.labels)}}, at=0.0)
    for node in cluster.nodes:
        view.apply("Node", _node(node), at=0.0)
    told = {span.ip for span in scenario.ip_history}
    for pod in cluster.pods:
        if not pod.future:
            _apply_pod(view, scenario, pod, told)
    for service in cluster.services:
        view.apply("Service", _service(service), at=0.0)
        for piece in _slices(service):
            view.apply("EndpointSlice", piece, at=0.0)
    for span in scenario.ip_history:
        if span.pod is not None:
            since = NEVER if span.start_seconds is None else span.start_seconds
            until = FOREVER if span.end_seconds is None else span.end_seconds
            view.history.pod_ips.setdefault(span.ip, Timeline()).add(span.pod, since, until)
    view.set_cidrs(_cidrs(scenario))
    view.confirmed = FOREVER  # a page stands still: nothing can happen that is not on it
    return ViewResolver(view)


def _apply_pod(view: ClusterView, scenario: Scenario, pod: Pod, told: set[Any]) -> None:
    start, end = scenario.lifetimes.get(str(pod), (None, None))
    owner = pod.workload
    references: list[Raw] = []
    if owner.kind != "Pod":
        references = [{"kind": owner.kind, "name": owner.name, "controller": True}]
    if owner.kind in LOOKED_UP:
        view.apply(owner.kind, {"metadata": {"namespace": owner.namespace, "name": owner.name}}, at=0.0)
    raw = {
        "metadata": {
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "labels": dict(pod.labels),
            "ownerReferences": references,
            "creationTimestamp": None if start is None else datetime.fromtimestamp(start, UTC),
        },
        "spec": {
            "nodeName": pod.node_name,
            "hostNetwork": pod.host_network,
            "containers": [
                {"ports": [{"name": p.name, "containerPort": p.port, "protocol": p.protocol.value} for p in pod.ports]}
            ],
        },
        "status": {"podIPs": [{"ip": str(ip)} for ip in pod.ips if ip not in told]},
    }
    view.apply("Pod", raw, at=0.0 if start is None else start)
    if end is not None:
        view.remove("Pod", pod.namespace, pod.name, at=end, uid=pod.uid)


def _node(node: Node) -> Raw:
    return {
        "metadata": {"name": node.name, "labels": dict(node.labels)},
        "spec": {"podCIDRs": [str(cidr) for cidr in node.pod_cidrs]},
        "status": {"addresses": [{"type": "InternalIP", "address": str(ip)} for ip in node.addresses]},
    }


def _service(service: Service) -> Raw:
    return {
        "metadata": {
            "namespace": service.namespace,
            "name": service.name,
            "uid": str(service),
            "annotations": dict(service.annotations),
        },
        "spec": {
            "type": service.type,
            "clusterIPs": [str(ip) for ip in service.cluster_ips],
            "externalIPs": [str(ip) for ip in service.external_ips],
            "externalName": service.external_name,
            "selector": dict(service.selector),
            "externalTrafficPolicy": service.external_traffic_policy,
            "ports": [
                {
                    "name": p.name,
                    "port": p.port,
                    "protocol": p.protocol.value,
                    "targetPort": p.target_port,
                    "nodePort": p.node_port,
                }
                for p in service.ports
            ],
        },
    }


def _slices(service: Service) -> Iterator[Raw]:
    ports = dict.fromkeys((b.port_name, b.port, b.protocol) for b in service.backends)
    for number, (name, port, protocol) in enumerate(ports):
        yield {
            "metadata": {
                "namespace": service.namespace,
                "name": f"{service.name}-{number}",
                "labels": {"kubernetes.io/service-name": service.name},
            },
            "ports": [{"name": name, "port": port, "protocol": protocol.value}],
            "endpoints": [
                {"addresses": [str(b.ip)], "targetRef": {"kind": "Pod", "name": b.pod} if b.pod else {}}
                for b in service.backends
                if (b.port_name, b.port, b.protocol) == (name, port, protocol)
            ],
        }


def _cidrs(scenario: Scenario) -> ClusterCidrs:
    cluster = scenario.cluster
    ranges = [(CidrRole.POD, cidr) for cidr in cluster.pod_cidrs]
    ranges += [(CidrRole.SERVICE, cidr) for cidr in cluster.service_cidrs]
    return ClusterCidrs(
        sources=tuple(CidrSource(role=role, cidr=cidr, found_in="the scenario", by_hand=True) for role, cidr in ranges),
        node_addresses=frozenset(ip for node in cluster.nodes for ip in node.addresses),
    )
