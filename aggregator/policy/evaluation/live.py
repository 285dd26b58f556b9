"""Who is alive to try a policy on: the pods behind a link end, and which pods a peer could mean.

Enters: a ClusterSnapshot and the policies in question. Leaves: Endpoints for link ends, and candidates for peers.
Invariant: `candidates` is never too small; two pods stand for one another only when no policy can tell them apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot, Labels, Pod
from aggregator.model.endpoint import AddressEndpoint, Connection, Endpoint, NodeEndpoint, PodEndpoint
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, Operator, PolicyPeer, SelectorPeer
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.evaluation.endpoints import endpoint_of_address, pod_endpoint
from aggregator.policy.evaluation.matching import labels_of_namespace
from aggregator.policy.generation.addresses import edges_of
from aggregator.policy.generation.peers import API_SERVER_SERVICE

PODS_OF_A_CLASS = 2  # two of a kind, so that a workload's traffic to itself has a pair to try


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEnd:
    """One class of pods of a workload, or a node, by what stands for it."""

    end: LinkEnd
    endpoint: PodEndpoint | NodeEndpoint


class Live:
    def __init__(self, cluster: ClusterSnapshot, policies: Iterable[NetworkPolicy]) -> None:
        self._cluster = cluster
        self._wide = _wide_networks(policies)
        self._named = _named_blocks(policies)
        self._pods: dict[Workload, tuple[Pod, ...]] = {}
        self._records = {record.workload: record for record in cluster.workloads}
        self._api_server = tuple(
            backend
            for service in cluster.services
            if (service.namespace, service.name) == API_SERVER_SERVICE
            for backend in service.backends
        )
        self._nodes = tuple(NodeEndpoint(node=node, ip=ip) for node in cluster.nodes for ip in node.addresses)
        self._workloads: dict[str, list[Workload]] = {}
        for workload in cluster.pods_by_workload.keys() | self._records.keys():
            self._workloads.setdefault(workload.namespace, []).append(workload)
        labels = cluster.namespace_labels.items()
        self._misnamed = frozenset(name for name, worn in labels if worn.get(NAMESPACE_NAME_LABEL) != name)
        self._in_namespace: dict[str, _Indexed] = {}
        self._namespaces: dict[LabelSelector, tuple[str, ...]] = {}
        self._node_ends = [LiveEnd(end=Nodes(cluster=cluster.name), endpoint=node) for node in self._nodes]

    def _indexed(self, namespace: str) -> "_Indexed":
        """Each namespace when it is first asked for: most questions are about one or two of hundreds."""
        found = self._in_namespace.get(namespace)
        if found is None:
            found = self._in_namespace[namespace] = _Indexed()
            for workload in sorted(self._workloads.get(namespace, ())):
                for pod in self.pods(workload):
                    if not pod.host_network:
                        found.add(workload, pod)
        return found

    def _everywhere(self) -> Iterable[tuple[str, "_Indexed"]]:
        for namespace in sorted(self._workloads):
            yield namespace, self._indexed(namespace)

    # ---- link ends ---------------------------------------------------------------------------------------------------

    def pods(self, workload: Workload) -> tuple[Pod, ...]:
        """The pods that stand for a workload; for one that runs none now, the pod that its template would make."""
        found = self._pods.get(workload)
        if found is None:
            found = self._pods[workload] = self._representatives(workload)
        return found

    def _representatives(self, workload: Workload) -> tuple[Pod, ...]:
        classes: dict[tuple[object, ...], list[Pod]] = {}
        for pod in self._cluster.pods_by_workload.get(workload, ()):
            if pod.ended:
                continue
            members = classes.setdefault((pod.labels, pod.ports, pod.host_network, self._signature(pod)), [])
            if len(members) < PODS_OF_A_CLASS:
                members.append(pod)
        if classes:
            return tuple(pod for members in classes.values() for pod in members)
        record = self._records.get(workload)
        if record is None:
            return ()
        labels: Labels = record.template_labels or record.selector
        return (
            Pod(
                namespace=workload.namespace,
                name=f"{workload.name} (none runs now)",
                workload=workload,
                labels=labels,
                host_network=record.host_network,
            ),
        )

    def _signature(self, pod: Pod) -> tuple[object, ...]:
        """Which ipBlocks could tell this pod from others."""
        wide = tuple(any(ip.version == network.version and ip in network for ip in pod.ips) for network in self._wide)
        return (wide, tuple(ip for ip in pod.ips if ip in self._named))

    def endpoints(self, end: LinkEnd) -> tuple[Endpoint, ...]:
        """All that stands for one end of a link; pods by their first address."""
        match end:
            case Workload():
                return tuple(pod_endpoint(pod) for pod in self.pods(end))
            case Nodes():
                return self._nodes
            case ApiServer():
                return tuple(dict.fromkeys(endpoint_of_address(self._cluster, b.ip) for b in self._api_server))
            case Address():
                return tuple(AddressEndpoint(ip=ip) for ip in edges_of(end))
            case _:
                assert_never(end)

    def ports_of(self, end: LinkEnd, protocol: Protocol, port: int) -> tuple[tuple[Protocol, int], ...]:
        """The ports on that end: the API server's are those of its endpoints."""
        if isinstance(end, ApiServer):
            found = tuple(dict.fromkeys((b.protocol, b.port) for b in self._api_server))
            return found or ((protocol, port),)
        return ((protocol, port),)

    # ---- peers -------------------------------------------------------------------------------------------------------

    def candidates(self, policy: NetworkPolicy, peers: Sequence[PolicyPeer]) -> list[LiveEnd]:
        """Every live end that these peers of a policy could mean; some that they do not."""
        if not peers:
            return [*(end for _, indexed in self._everywhere() for end in indexed.ends), *self._node_ends]
        numbers: set[tuple[str, int]] = set()
        nodes: set[int] = set()
        for peer in peers:
            match peer:
                case SelectorPeer():
                    numbers |= self._selected(policy.namespace, peer)
                case IPBlock(cidr=cidr):
                    numbers |= {
                        (name, n)
                        for name, indexed in self._everywhere()
                        for n, ips in enumerate(indexed.ips)
                        if _touches(ips, cidr)
                    }
                    nodes |= {n for n, node in enumerate(self._nodes) if _touches((node.ip,), cidr)}
                case _:
                    assert_never(peer)
        found = (self._indexed(name).ends[number] for name, number in sorted(numbers))
        return [*found, *(self._node_ends[n] for n in sorted(nodes))]

    def _selected(self, namespace: str, peer: SelectorPeer) -> set[tuple[str, int]]:
        names: Iterable[str] = (namespace,)
        if peer.namespace_selector is not None:
            names = self._matching_namespaces(peer.namespace_selector)
        alternatives = [] if peer.pod_selector is None else _alternatives(peer.pod_selector)
        found: set[tuple[str, int]] = set()
        for name in names:
            indexed = self._indexed(name)
            if alternatives:
                postings = [[n for label in any_of for n in indexed.by_label.get(label, ())] for any_of in alternatives]
                found.update((name, n) for n in min(postings, key=len))
            else:
                found.update((name, n) for n in range(len(indexed.ends)))
        return found

    def _matching_namespaces(self, selector: LabelSelector) -> tuple[str, ...]:
        found = self._namespaces.get(selector)
        if found is None:
            named = [value for key, value in selector.match_labels if key == NAMESPACE_NAME_LABEL]
            asked = {*named, *self._misnamed} & self._workloads.keys() if named else self._workloads.keys()
            found = self._namespaces[selector] = tuple(
                name for name in sorted(asked) if selector.matches(labels_of_namespace(self._cluster, name))
            )
        return found


@dataclass(slots=True)
class _Indexed:
    """The live ends of one namespace, in the order of their workloads."""

    ends: list[LiveEnd] = field(default_factory=list)
    ips: list[tuple[IPAddress, ...]] = field(default_factory=list)
    by_label: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def add(self, workload: Workload, pod: Pod) -> None:
        number = len(self.ends)
        self.ends.append(LiveEnd(end=workload, endpoint=pod_endpoint(pod)))
        self.ips.append(pod.ips)
        for label in pod.labels:
            self.by_label.setdefault(label, []).append(number)


def _alternatives(selector: LabelSelector) -> list[list[tuple[str, str]]]:
    """Of each of these lists, a pod that is selected wears one label."""
    listed = [
        [(requirement.key, value) for value in requirement.values]
        for requirement in selector.match_expressions
        if requirement.operator is Operator.IN
    ]
    return [*([label] for label in selector.match_labels), *listed]


def connect(src: Endpoint, dst: Endpoint, protocol: Protocol, port: int) -> Connection:
    """A connection in one address family, where both ends have one in common."""
    if isinstance(src, PodEndpoint):
        src = pod_endpoint(src.pod, family_of=dst.pod.ips if isinstance(dst, PodEndpoint) else (dst.ip,))
    if isinstance(dst, PodEndpoint):
        dst = pod_endpoint(dst.pod, family_of=(src.ip,))
    return Connection(src=src, dst=dst, protocol=protocol, port=port)


def _touches(ips: Iterable[IPAddress], cidr: IPNetwork) -> bool:
    return any(ip.version == cidr.version and ip in cidr for ip in ips)


def _blocks(policies: Iterable[NetworkPolicy]) -> set[IPNetwork]:
    return {
        network
        for policy in policies
        for rule in (*policy.ingress, *policy.egress)
        for peer in rule.peers
        if isinstance(peer, IPBlock)
        for network in (peer.cidr, *peer.excepts)
    }


def _wide_networks(policies: Iterable[NetworkPolicy]) -> tuple[IPNetwork, ...]:
    wide = (network for network in _blocks(policies) if network.num_addresses > 1)
    return tuple(sorted(wide, key=lambda n: (n.version, int(n.network_address), n.prefixlen)))


def _named_blocks(policies: Iterable[NetworkPolicy]) -> frozenset[IPAddress]:
    return frozenset(network.network_address for network in _blocks(policies) if network.num_addresses == 1)
