"""Peers of a rule from the ends of links, and the one order in which peers are written.

Enters: link ends and the cluster. Leaves: Units: what one end is in a rule, one peer or, for nodes and the API server,
several. Invariant: a peer in the policy's own namespace is a podSelector alone, in another one metadata.name and
podSelector in one peer (C05); nothing here ever yields an empty selector.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, assert_never

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot
from aggregator.model.networkpolicy import IPBlock, LabelSelector, PolicyPeer, SelectorPeer
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.generation.addresses import edges_of
from aggregator.policy.generation.selectors import NotSeparable, Selectors

API_SERVER_SERVICE = ("default", "kubernetes")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """What one end of a link is in a rule. `key` orders units; Peers makes each once, so identity tells them apart."""

    key: tuple[Any, ...]
    peers: tuple[PolicyPeer, ...]
    collapsible: bool = False  # a single outside address: neighbours may be written as one prefix
    place: str | None = None  # where its pods are, "" = the policy's own namespace; only peers of one place can merge


def peer_key(namespace: str, peer: PolicyPeer) -> tuple[Any, ...]:
    """Own namespace first, then other namespaces by name, then ipBlocks by family, address, length and excepts."""
    match peer:
        case IPBlock(cidr=cidr, excepts=excepts):
            return (3, cidr.version, int(cidr.network_address), cidr.prefixlen, tuple(map(_network_key, excepts)))
        case SelectorPeer(pod_selector=pods, namespace_selector=None):
            return (0, namespace, _selector_key(pods), 0, ())
        case SelectorPeer(pod_selector=pods, namespace_selector=namespaces):
            return (1, _selector_key(namespaces), _selector_key(pods), 0, ())
        case _:
            assert_never(peer)


def _selector_key(selector: LabelSelector | None) -> tuple[Any, ...]:
    if selector is None:
        return ()
    expressions = tuple((r.key, r.operator.value, r.values) for r in selector.match_expressions)
    return (selector.match_labels, expressions)


def _network_key(network: IPNetwork) -> tuple[int, int, int]:
    return (network.version, int(network.network_address), network.prefixlen)


def block(address: IPAddress | IPNetwork) -> IPBlock:
    """The ipBlock of one address (/32 or /128) or of a network."""
    return IPBlock(cidr=ip_network(address))


def namespace_selector(name: str) -> LabelSelector:
    """NP-51: by the label that the API server itself keeps."""
    return LabelSelector(match_labels=((NAMESPACE_NAME_LABEL, name),))


def pods_peer(own_namespace: str, namespace: str, selector: LabelSelector) -> SelectorPeer:
    if namespace == own_namespace:
        return SelectorPeer(pod_selector=selector)
    return SelectorPeer(pod_selector=selector, namespace_selector=namespace_selector(namespace))


def whole_namespace() -> SelectorPeer:
    """Every pod of the policy's own namespace: on purpose, and only for that general rule."""
    return SelectorPeer(pod_selector=LabelSelector())


def every_pod() -> SelectorPeer:
    """Every pod of every namespace: on purpose, and only for callers of the cluster's DNS."""
    return SelectorPeer(namespace_selector=LabelSelector())


def blocks_unit(kind: str, addresses: Iterable[IPAddress]) -> Unit | None:
    """One unit of one-address ipBlocks, None when there is no address."""
    blocks = sorted({block(address) for address in addresses}, key=lambda b: peer_key("", b))
    if not blocks:
        return None
    return Unit(key=(*peer_key("", blocks[0]), kind), peers=tuple(blocks))


class Peers:
    """Makes units, each once."""

    def __init__(self, cluster: ClusterSnapshot, selectors: Selectors) -> None:
        self._cluster = cluster
        self._selectors = selectors
        self._outside: dict[IPNetwork, Unit] = {}
        self._pods: dict[tuple[bool, Workload], Unit | None] = {}
        self._host_network = _host_network_workloads(cluster)
        self._node_addresses = tuple(ip for node in cluster.nodes for ip in node.addresses)
        self.nodes = blocks_unit("nodes", self._node_addresses)
        endpoints = [s for s in cluster.services if (s.namespace, s.name) == API_SERVER_SERVICE]
        self.api_backends = tuple(b for service in endpoints for b in service.backends)
        self.api_server = blocks_unit("apiserver", (backend.ip for backend in self.api_backends))

    def on_host_network(self, workload: Workload) -> bool:
        """Do its pods share their node's network? Then it is nodes, as a peer (NP-29), and no subject (NP-28)."""
        return workload in self._host_network

    def host_addresses(self, end: LinkEnd) -> tuple[IPAddress, ...]:
        """The addresses by which an ipBlock could mean this end; none for pods."""
        match end:
            case Address():
                return edges_of(end)
            case Nodes():
                return self._node_addresses
            case ApiServer():
                return tuple(backend.ip for backend in self.api_backends)
            case Workload():
                return self._node_addresses if self.on_host_network(end) else ()
            case _:
                assert_never(end)

    def known(self, workload: Workload) -> bool:
        """Does the cluster show a pod or a template of it?"""
        return self._selectors.namespace(workload.namespace).knows(workload)

    def selectable(self, workload: Workload) -> bool:
        """Can it be a policy's subject, and a peer by labels?"""
        return not self.on_host_network(workload) and self.pods(workload.namespace, workload) is not None

    def address(self, network: IPNetwork) -> Unit:
        """An outside address, or a network of them."""
        found = self._outside.get(network)
        if found is None:
            peer = block(network)
            found = self._outside[network] = Unit(key=(*peer_key("", peer), "address"), peers=(peer,), collapsible=True)
        return found

    def pods(self, own_namespace: str, workload: Workload) -> Unit | None:
        """The workload's pods as a peer, None when no selector is exactly theirs."""
        key = (own_namespace == workload.namespace, workload)
        if key not in self._pods:
            selection = self._selectors.select(workload)
            if isinstance(selection, NotSeparable):
                self._pods[key] = None
            else:
                peer = pods_peer(own_namespace, workload.namespace, selection.selector)
                place = "" if peer.namespace_selector is None else workload.namespace
                self._pods[key] = Unit(key=(*peer_key(own_namespace, peer), "pods"), peers=(peer,), place=place)
        return self._pods[key]


def _host_network_workloads(cluster: ClusterSnapshot) -> frozenset[Workload]:
    on_host = {record.workload for record in cluster.workloads if record.host_network}
    for workload, pods in cluster.pods_by_workload.items():
        if all(pod.host_network for pod in pods):
            on_host.add(workload)
    return frozenset(on_host)
