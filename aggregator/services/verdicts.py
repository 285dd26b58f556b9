"""Verdicts of links under policies: a link is a pair of workloads, policies judge pairs of pods.

Enters: a Link, a snapshot, policies. Leaves: a LinkVerdict. Invariant: pods that wear the same labels are judged once;
denied for one pair is denied, unknown is never folded into allowed (NP-64), and what has no pod now is judged by its
template.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from aggregator.model.address import IPAddress
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy, Policy
from aggregator.model.cluster import ClusterSnapshot, Pod, WorkloadRecord
from aggregator.model.endpoint import Connection, Endpoint, NodeEndpoint, PodEndpoint
from aggregator.model.link import Link
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.verdict import Explanation, Verdict
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.endpoints import UNSTATED_ADDRESS, endpoint_of_address, pod_endpoint
from aggregator.policy.evaluate import evaluate
from aggregator.policy.peers import API_SERVER_SERVICE
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Profile

MAX_VARIANTS = 8  # of one end: label sets of a workload, nodes, endpoints of the API server


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkVerdict:
    """`explanation` is that of the first pair that shows the verdict; `cause` says why nothing could be judged."""

    verdict: Verdict
    explanation: Explanation | None = None
    example: str = ""
    cause: str = ""
    partly: bool = False  # other pairs of the same link have another verdict


class Verdicts:
    """Judges many links against one set of policies."""

    def __init__(self, cluster: ClusterSnapshot, policies: Iterable[Policy], profile: Profile = GENERIC) -> None:
        self._cluster = cluster
        self._profile = profile
        self._everywhere: list[Policy] = []
        self._by_namespace: dict[str, list[Policy]] = {}
        for policy in policies:
            match policy:
                case NetworkPolicy():
                    self._by_namespace.setdefault(policy.namespace, []).append(policy)
                case AdminPolicy() | ForeignPolicy():
                    self._everywhere.append(policy)
        self._answers: dict[Link, LinkVerdict] = {}
        self._endpoints: dict[LinkEnd, tuple[Endpoint, ...]] = {}

    def of(self, link: Link) -> LinkVerdict:
        answer = self._answers.get(link)
        if answer is None:
            answer = self._answers[link] = self._judge(link)
        return answer

    def _judge(self, link: Link) -> LinkVerdict:
        sources, targets = self._ends(link.src), self._ends(link.dst)
        for end, found in ((link.src, sources), (link.dst, targets)):
            if not found:
                return LinkVerdict(verdict=Verdict.UNKNOWN, cause=f"the cluster does not show {end} now")
        relevant = self._relevant(link)
        judged = [
            (evaluate(relevant, self._cluster, connection, self._profile), connection)
            for connection in self._connections(link, sources, targets)
        ]
        verdicts = {explanation.verdict for explanation, _ in judged}
        worst = next(v for v in (Verdict.DENIED, Verdict.UNKNOWN, Verdict.ALLOWED) if v in verdicts)
        explanation, connection = next(found for found in judged if found[0].verdict is worst)
        return LinkVerdict(
            verdict=worst,
            explanation=explanation,
            example=f"{_name(connection.src)} -> {_name(connection.dst)}",
            partly=len(verdicts) > 1,
        )

    def _connections(
        self, link: Link, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
    ) -> Iterator[Connection]:
        for src in sources:
            for dst in targets:
                if not isinstance(link.dst, ApiServer):
                    yield Connection(src=src, dst=dst, protocol=link.protocol, port=link.port)
                    continue
                for port in sorted(self._api_ports) or [link.port]:
                    yield Connection(src=src, dst=dst, protocol=link.protocol, port=port)

    def _relevant(self, link: Link) -> list[Policy]:
        namespaces = {end.namespace for end in (link.src, link.dst) if isinstance(end, Workload)}
        return [*self._everywhere, *(p for name in sorted(namespaces) for p in self._by_namespace.get(name, ()))]

    def _ends(self, end: LinkEnd) -> tuple[Endpoint, ...]:
        found = self._endpoints.get(end)
        if found is None:
            found = self._endpoints[end] = tuple(self._find(end))[:MAX_VARIANTS]
        return found

    def _find(self, end: LinkEnd) -> Iterator[Endpoint]:
        match end:
            case Workload():
                yield from self._pods_of(end)
            case Nodes():
                for node in self._cluster.nodes:
                    yield from (NodeEndpoint(node=node, ip=ip) for ip in node.addresses[:1])
            case ApiServer():
                for ip in dict.fromkeys(ip for ip, _ in self._api_backends):
                    yield endpoint_of_address(self._cluster, ip)
            case Address(ip=ip):
                yield endpoint_of_address(self._cluster, ip)

    def _pods_of(self, workload: Workload) -> Iterator[Endpoint]:
        variants = {
            (pod.labels, pod.ports, pod.host_network): pod
            for pod in self._cluster.pods_by_workload.get(workload, ())
            if not pod.ended
        }
        if variants:
            yield from (pod_endpoint(pod) for pod in variants.values())
            return
        record = self._records.get(workload)
        if record is not None:
            yield PodEndpoint(pod=_future_pod(record), ip=UNSTATED_ADDRESS)
            return
        ended = self._cluster.pods_by_workload.get(workload, ())
        if ended:
            yield PodEndpoint(pod=_again(ended[-1]), ip=UNSTATED_ADDRESS)

    @cached_property
    def _records(self) -> Mapping[Workload, WorkloadRecord]:
        return {record.workload: record for record in self._cluster.workloads}

    @cached_property
    def _api_backends(self) -> tuple[tuple[IPAddress, int], ...]:
        found = (s for s in self._cluster.services if (s.namespace, s.name) == API_SERVER_SERVICE)
        return tuple((backend.ip, backend.port) for service in found for backend in service.backends)

    @cached_property
    def _api_ports(self) -> frozenset[int]:
        return frozenset(port for _, port in self._api_backends)


def _future_pod(record: WorkloadRecord) -> Pod:
    return Pod(
        namespace=record.workload.namespace,
        name=f"{record.workload.name} (template)",
        workload=record.workload,
        labels=record.template_labels or record.selector,
        host_network=record.host_network,
        future=True,
    )


def _again(pod: Pod) -> Pod:
    """The next pod like one that has ended."""
    return Pod(
        namespace=pod.namespace,
        name=f"{pod.name} (ended)",
        workload=pod.workload,
        labels=pod.labels,
        ports=pod.ports,
        host_network=pod.host_network,
        future=True,
    )


def _name(endpoint: Endpoint) -> str:
    match endpoint:
        case PodEndpoint(pod=pod):
            return str(pod)
        case NodeEndpoint(node=node):
            return f"node {node.name}"
        case _:
            return str(endpoint.ip)
