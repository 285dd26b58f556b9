"""Discovery of the cluster's own ranges from what the cluster itself shows.

Enters: Nodes, ServiceCIDRs, the kubeadm-config ConfigMap, and the arguments of control-plane processes that agents saw
on their nodes. Leaves: CidrSources. Invariant: each carries the place where it was found, so a person can check it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import yaml

from aggregator.cluster.cidrs import CidrRole, CidrSource, ClusterCidrs, complete_with
from aggregator.cluster.reduce import Raw, networks
from aggregator.cluster.view import ClusterView

# Arguments of the control plane's own processes, https://kubernetes.io/docs/reference/command-line-tools-reference/
FLAGS = {
    "service-cluster-ip-range": CidrRole.SERVICE,  # kube-apiserver, kube-controller-manager
    "cluster-cidr": CidrRole.POD,  # kube-controller-manager, kube-proxy
}


class SeenArgument(NamedTuple):
    """A CIDR in a process' arguments, as a node's agent reported it."""

    node: str
    process: str
    flag: str  # without the leading dashes
    value: str  # one CIDR, or several with commas (dual stack)


def from_arguments(seen: Iterable[SeenArgument]) -> Iterator[CidrSource]:
    for argument in seen:
        role = FLAGS.get(argument.flag.lstrip("-"))
        if role is not None:
            found_in = f"--{argument.flag.lstrip('-')} of {argument.process} on {argument.node}"
            for cidr in networks(argument.value.split(",")):
                yield CidrSource(role=role, cidr=cidr, found_in=found_in)


def from_nodes(view: ClusterView) -> Iterator[CidrSource]:
    for name, facts in sorted(view.nodes.items()):
        for cidr in facts.node.pod_cidrs:
            yield CidrSource(role=CidrRole.POD, cidr=cidr, found_in=f"Node {name} spec.podCIDRs", whole=False)


def from_service_cidrs(objects: Iterable[Raw]) -> Iterator[CidrSource]:
    for raw in objects:
        found_in = f"ServiceCIDR {raw['metadata']['name']}"
        for cidr in networks((raw.get("spec") or {}).get("cidrs") or ()):
            yield CidrSource(role=CidrRole.SERVICE, cidr=cidr, found_in=found_in)


def from_kubeadm(config_map: Raw | None) -> Iterator[CidrSource]:
    """kube-system/kubeadm-config: ClusterConfiguration.networking, as text in a ConfigMap."""
    text = ((config_map or {}).get("data") or {}).get("ClusterConfiguration", "")
    try:
        configuration = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return
    networking = configuration.get("networking") if isinstance(configuration, dict) else None
    if not isinstance(networking, dict):
        return
    for key, role in (("podSubnet", CidrRole.POD), ("serviceSubnet", CidrRole.SERVICE)):
        for cidr in networks(str(networking.get(key) or "").split(",")):
            yield CidrSource(role=role, cidr=cidr, found_in=f"ConfigMap kube-system/kubeadm-config networking.{key}")


def discovered_cidrs(
    view: ClusterView, *, by_hand: Sequence[CidrSource] = (), arguments: Iterable[SeenArgument] = ()
) -> ClusterCidrs:
    """All that is known of the cluster's ranges now."""
    service_cidrs = [raw for (kind, _, _), raw in sorted(view.others.items()) if kind == "ServiceCIDR"]
    sources = [
        *from_service_cidrs(service_cidrs),
        *from_kubeadm(view.others.get(("ConfigMap", "kube-system", "kubeadm-config"))),
        *from_arguments(arguments),
        *from_nodes(view),
    ]
    nodes = [facts.node for facts in view.nodes.values()]
    return ClusterCidrs(
        sources=complete_with(sources, by_hand),
        node_addresses=frozenset(ip for node in nodes for ip in node.addresses),
        every_node_has_pod_cidr=bool(nodes) and all(node.pod_cidrs for node in nodes),
    )
