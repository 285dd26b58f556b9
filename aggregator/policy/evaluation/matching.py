"""Matching: does a peer, a port or a subject of a policy match one side of one connection?

Enters: a View, which is a connection seen from the pod that a policy selects. Leaves: True, False, or Unknown with its
cause where the answer rests on something that NetworkPolicy leaves undefined or nobody knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from aggregator.model.address import IPNetwork
from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot, Pod
from aggregator.model.endpoint import (
    AddressEndpoint,
    Connection,
    Endpoint,
    NodeEndpoint,
    PodEndpoint,
    ServiceEndpoint,
)
from aggregator.model.networkpolicy import IPBlock, PolicyPeer, PolicyPort, SelectorPeer
from aggregator.model.protocol import Direction
from aggregator.policy.evaluation.endpoints import UNSTATED_ADDRESS
from aggregator.policy.profiles.profile import Answer, Profile


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither matched nor unmatched; `cause` says what would have to be known."""

    cause: str


Match = bool | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A connection from the side of `subject`, the pod whose policies are asked; `other` is the far end."""

    direction: Direction
    subject: Pod
    other: Endpoint
    connection: Connection
    cluster: ClusterSnapshot
    profile: Profile


def any_of(matches: Iterable[Match]) -> Match:
    """True when one is; else unknown when one is."""
    unknown: Match = False
    for match in matches:
        if match is True:
            return True
        unknown = unknown or match
    return unknown


def both(first: Match, second: Match) -> Match:
    """False when one is; else unknown when one is."""
    if first is False or second is False:
        return False
    return second if first is True else first


def labels_of_namespace(cluster: ClusterSnapshot, name: str) -> Mapping[str, str]:
    """NP-17: a namespace has its name label, also one that the snapshot does not list."""
    return cluster.namespace_labels.get(name) or {NAMESPACE_NAME_LABEL: name}


def acts_as_node(pod: Pod) -> bool:
    """NP-28, NP-29: a pod on the host's network is its node to every policy."""
    return pod.host_network


def peer_matches(peer: PolicyPeer, namespace: str, view: View) -> Match:
    """Does the far end match one peer of a policy in `namespace`?"""
    match peer:
        case SelectorPeer():
            return _selector_matches(peer, namespace, view)
        case IPBlock():
            return block_matches(peer.cidr, peer.excepts, view)
        case _:
            assert_never(peer)


def _selector_matches(peer: SelectorPeer, namespace: str, view: View) -> Match:
    """Selectors see pods. They see neither nodes (NP-29) nor addresses, and an empty peer sees nothing (NP-15)."""
    pods, namespaces = peer.pod_selector, peer.namespace_selector
    if pods is None and namespaces is None:
        return False  # the API refuses it; never open what nobody wrote
    found: Match
    match view.other:
        case PodEndpoint(pod=pod) if not acts_as_node(pod):
            found = not pod.ended and _pod_matches(peer, pod, namespace, view.cluster)
        case PodEndpoint() | NodeEndpoint():
            found = (namespaces is not None and namespaces.is_empty) and _answered(
                view.profile.all_namespaces_match_host_network, "whether selectors match nodes"
            )
        case ServiceEndpoint():
            found = False
        case AddressEndpoint():
            found = unresolved(view) or False
        case _:
            assert_never(view.other)
    return found


def _pod_matches(peer: SelectorPeer, pod: Pod, namespace: str, cluster: ClusterSnapshot) -> bool:
    """NP-12 to NP-14: both = AND, pods alone = the policy's own namespace, namespaces alone = all their pods."""
    pods, namespaces = peer.pod_selector, peer.namespace_selector
    if namespaces is None:
        within = pod.namespace == namespace
    else:
        within = namespaces.matches(labels_of_namespace(cluster, pod.namespace))
    # The namespace first: it is the cheaper question.
    return within and (pods is None or pods.matches(dict(pod.labels)))


def block_matches(cidr: IPNetwork, excepts: Sequence[IPNetwork], view: View) -> Match:
    """NP-18 to NP-21; what an ipBlock sees of pods, nodes and Services is the plug-in's (NP-20)."""
    ip = view.other.ip
    if ip == UNSTATED_ADDRESS:
        within: Match = _is_all_of_ipv4(cidr, excepts) or Unknown("the pod's address is not stated")
    else:
        within = ip in cidr and not any(ip in network for network in excepts)
    match view.other:
        case PodEndpoint(pod=pod) if not acts_as_node(pod):
            seen = _answered(view.profile.ipblock_matches_pods, "whether ipBlock matches pods")
        case PodEndpoint() | NodeEndpoint():
            seen = _answered(view.profile.ipblock_matches_nodes, "whether ipBlock matches nodes")
        case ServiceEndpoint():
            seen = _answered(view.profile.ipblock_matches_services, "whether ipBlock matches Service addresses")
        case AddressEndpoint():
            as_pod = _answered(view.profile.ipblock_matches_pods, "whether ipBlock matches pods")
            seen = as_pod or unresolved(view) or True
        case _:
            assert_never(view.other)
    return both(within, seen)


def _is_all_of_ipv4(cidr: IPNetwork, excepts: Sequence[IPNetwork]) -> bool:
    return cidr.version == 4 and cidr.prefixlen == 0 and not excepts


def unresolved(view: View) -> Unknown | None:
    """The far end is an address of the pod network that no known pod has: it may be any pod (NP-64)."""
    return unowned_pod_address(view.cluster, view.other)


def unowned_pod_address(cluster: ClusterSnapshot, end: Endpoint) -> Unknown | None:
    if isinstance(end, AddressEndpoint) and any(end.ip in cidr for cidr in pod_networks(cluster)):
        return Unknown(f"no known pod has {end.ip}, which is inside the pod network")
    return None


def pod_networks(cluster: ClusterSnapshot) -> tuple[IPNetwork, ...]:
    return (*cluster.pod_cidrs, *(cidr for node in cluster.nodes for cidr in node.pod_cidrs))


def _answered(answer: Answer, what: str) -> Match:
    match answer:
        case Answer.YES:
            return True
        case Answer.NO:
            return False
        case Answer.UNDEFINED:
            return Unknown(f"{what} is not defined for this network plug-in")
        case _:
            assert_never(answer)


def port_matches(port: PolicyPort, view: View) -> Match:
    """Does the destination port match one entry of `ports`? It is the port on the pod, after DNAT (NP-24)."""
    connection = view.connection
    if port.protocol is not connection.protocol:
        return False
    found: Match
    match port.port:
        case None:
            found = port.end_port is None  # endPort without port: the API refuses it
        case str() as name:
            found = port.end_port is None and named_port_matches(name, view)
        case number:
            found = _number_matches(number, port.end_port, view)
    return both(found, _enforced(view))


def _enforced(view: View) -> Match:
    protocol = view.connection.protocol
    if protocol in view.profile.enforced_protocols:
        return True
    return Unknown(f"whether allow rules work for {protocol} depends on the network plug-in's settings")


def _number_matches(number: int, end_port: int | None, view: View) -> Match:
    if isinstance(view.connection.dst, ServiceEndpoint):
        return Unknown("a Service's port is translated before policies see it")  # NP-34
    last = number if end_port is None or view.profile.end_port is Answer.NO else end_port
    return number <= view.connection.port <= last


def named_port_matches(name: str, view: View) -> bool:
    """NP-26: name and protocol are those of a container port of the destination pod, and the number is its number."""
    match view.connection.dst:
        case PodEndpoint(pod=pod) if not acts_as_node(pod):
            return any(
                port.name == name and port.protocol is view.connection.protocol and port.port == view.connection.port
                for port in pod.ports
            )
        case _:
            return False
