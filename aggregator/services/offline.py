"""What a scenario's flows are as links, and what its options are as Settings.

Enters: a Scenario. Leaves: ObservedLinks, resolved by address and time as the aggregator resolves what agents send, and
Settings. Invariant: an address is named only by who had it at that time; nothing reads a flow's notes about the truth.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from aggregator.cluster.scenario import Flow, Scenario
from aggregator.model.address import IPAddress, canonical_address
from aggregator.model.cluster import Pod, Service, ServiceBackend
from aggregator.model.link import Confidence, Evidence, Link, ObservedLink, Side
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload

API_SERVER = ("default", "kubernetes")
EPHEMERAL_PORTS = range(32768, 61000)  # Linux: net.ipv4.ip_local_port_range
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIRECTIONS = {
    "ingress+egress": frozenset(Direction),
    "ingress": frozenset({Direction.INGRESS}),
    "egress": frozenset({Direction.EGRESS}),
}


def settings_of(scenario: Scenario, *, include_external: bool = False) -> Settings:
    """What the page's options ask for.

    A page that names a mode closes its directions also where nothing was seen. One that names none shows all the
    traffic there is, so a workload that nobody calls on it is closed to callers; egress stays open where none was seen.
    """
    directions = _DIRECTIONS[scenario.mode]
    named = "mode" in scenario.page.options.model_fields_set
    return Settings(
        namespaces=None if scenario.scope is None else frozenset(scenario.scope),
        directions=directions,
        close_unseen=directions if named else directions & {Direction.INGRESS},
        include_external=include_external,
    )


def links_of(scenario: Scenario) -> tuple[ObservedLink, ...]:
    """The page's flows as links, each once, in the order of their first flow."""
    found: dict[Link, ObservedLink] = {}
    for row in _Reader(scenario).rows():
        known = found.get(row.link)
        found[row.link] = row if known is None else _joined(known, row)
    return tuple(found.values())


class _Reader:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._cluster = scenario.cluster
        self._services = {
            ip: service for service in self._cluster.services for ip in (*service.cluster_ips, *service.external_ips)
        }
        self._served = {  # pairs with a connection to a port that the server declares: their direction is beyond doubt
            (flow.traffic.src, flow.traffic.dst)
            for flow in scenario.flows
            if self._declares(flow.traffic.dst, flow.traffic.protocol, flow.traffic.port)
        }

    def rows(self) -> Iterator[ObservedLink]:
        for flow in self._scenario.flows:
            yield from self._rows_of(self._right_way_round(flow))

    def _rows_of(self, flow: Flow) -> Iterator[ObservedLink]:
        ends = [reference.removeprefix("ip:") for reference in (flow.traffic.src, flow.traffic.dst)]
        if any(_never_on_the_wire(end) for end in ends):
            return
        src, src_pod = self._end(flow.traffic.src, flow)
        for dst, port, service, dst_pod in self._destinations(flow):
            established = flow.result == "established" and flow.verdict == "forwarded"
            at = None if flow.at_seconds is None else _EPOCH + timedelta(seconds=flow.at_seconds)
            yield ObservedLink(
                link=Link(src=src, dst=dst, protocol=flow.traffic.protocol, port=port),
                established=established,
                evidence=Evidence(
                    sides=frozenset({Side.SERVER if flow.origin.startswith("accept") else Side.CLIENT}),
                    services=(service,) if service else (),
                    processes=(flow.process,) if flow.process else (),
                    connections=flow.count if established else 0,
                    failed_attempts=0 if established else flow.count,
                    first_seen=at,
                    last_seen=at,
                    src_pods=(src_pod,) if src_pod else (),
                    dst_pods=(dst_pod,) if dst_pod else (),
                    confidence=Confidence.LOW if self._is_doubtful(flow) else Confidence.HIGH,
                    same_node_probe=self._is_probe(flow, src, dst),
                ),
            )

    def _end(self, reference: str, flow: Flow) -> tuple[LinkEnd, str]:
        """Who this is, and the pod's name where it is one pod."""
        cluster = self._cluster.name
        if not reference.startswith("ip:"):
            pod = self._scenario.pods.get(reference)
            if pod is not None:
                return (Nodes(cluster=cluster) if pod.host_network else pod.workload), reference
            namespace, _, name = reference.partition("/")
            return Workload(cluster=cluster, namespace=namespace, kind="Pod", name=name), reference
        ip = canonical_address(reference.removeprefix("ip:"))
        pod = self._owner(ip, flow.at_seconds)
        if pod is not None:
            return pod.workload, str(pod)
        if ip in self._cluster.nodes_by_ip:
            return Nodes(cluster=cluster), ""
        if any(backend.ip == ip for backend in self._api_backends()):
            return ApiServer(cluster=cluster), ""
        return Address(cluster=cluster, ip=ip), ""

    def _owner(self, ip: IPAddress, at_seconds: float | None) -> Pod | None:
        """The one pod that had this address then. What the page says of an address is all there is to know of it."""
        spans = [span for span in self._scenario.ip_history if span.ip == ip]
        if spans:
            for span in spans:
                if span.pod is not None and _within(at_seconds, span.start_seconds, span.end_seconds):
                    return self._scenario.pods.get(span.pod)
            return None
        pods = [
            pod
            for pod in self._cluster.pods_by_ip.get(ip, ())
            if not pod.host_network and _within(at_seconds, *self._scenario.lifetimes.get(str(pod), (None, None)))
        ]
        return pods[0] if len(pods) == 1 else None

    def _destinations(self, flow: Flow) -> Iterator[tuple[LinkEnd, int, str, str]]:
        """(end, port on the pod, Service on the way, pod) for each place that this flow can have gone to."""
        reference, port = flow.traffic.dst, flow.traffic.port
        service = self._service(reference)
        if service is None:
            end, pod = self._end(reference, flow)
            yield end, port, "", pod
            return
        names = {p.name for p in service.ports if (p.port, p.protocol) == (port, flow.traffic.protocol)}
        way = f"{service}:{port}"
        backends = [b for b in service.backends if b.port_name in names and b.protocol is flow.traffic.protocol]
        if (service.namespace, service.name) == API_SERVER and backends:
            yield ApiServer(cluster=self._cluster.name), backends[0].port, way, ""
            return
        targets = dict.fromkeys((*self._backend(service, backend, flow), backend.port) for backend in backends)
        named = {(end, number) for end, _, number in targets}
        for end, pod, number in targets:
            if (end, number) in named:
                named.discard((end, number))
                single = sum(e == end and n == number for e, _, n in targets) == 1
                yield end, number, way, pod if single else ""
        if not targets:
            yield Address(cluster=self._cluster.name, ip=_address(reference)), port, way, ""

    def _backend(self, service: Service, backend: ServiceBackend, flow: Flow) -> tuple[LinkEnd, str]:
        if backend.pod:
            pod = self._scenario.pods.get(f"{service.namespace}/{backend.pod}")
            if pod is not None and not pod.host_network:
                return pod.workload, str(pod)
        return self._end(f"ip:{backend.ip}", flow)

    def _service(self, reference: str) -> Service | None:
        return self._services.get(_address(reference)) if reference.startswith("ip:") else None

    def _api_backends(self) -> Iterable[ServiceBackend]:
        return (b for s in self._cluster.services if (s.namespace, s.name) == API_SERVER for b in s.backends)

    # ---- direction ---------------------------------------------------------------------------------------------------

    def _declares(self, reference: str, protocol: Protocol, port: int) -> bool:
        pod = self._scenario.pods.get(reference)
        return pod is not None and any((p.protocol, p.port) == (protocol, port) for p in pod.ports)

    def _is_backwards(self, flow: Flow) -> bool:
        """A page without hooks (`origin`) may hold packets: an answer then looks like a connection to the client's own
        port, which nobody declares and which lies in the range of client ports (C13, C14).
        """
        traffic = flow.traffic
        return (
            not flow.origin
            and traffic.port in EPHEMERAL_PORTS
            and traffic.src in self._scenario.pods
            and traffic.dst in self._scenario.pods
            and bool(self._scenario.pods[traffic.src].ports)
            and not self._declares(traffic.dst, traffic.protocol, traffic.port)
            and (traffic.src, traffic.dst) not in self._served
        )

    def _right_way_round(self, flow: Flow) -> Flow:
        """An answer as the connection that it answers, where the server declares the one port that it can be."""
        if not self._is_backwards(flow):
            return flow
        traffic = flow.traffic
        numbers = {p.port for p in self._scenario.pods[traffic.src].ports if p.protocol is traffic.protocol}
        if len(numbers) != 1:
            return flow
        return replace(flow, traffic=replace(traffic, src=traffic.dst, dst=traffic.src, port=numbers.pop()))

    def _is_doubtful(self, flow: Flow) -> bool:
        return self._is_backwards(flow)

    def _is_probe(self, flow: Flow, src: LinkEnd, dst: LinkEnd) -> bool:
        """Does a node speak to a pod of its own (NP-30)?"""
        if not isinstance(src, Nodes) or not isinstance(dst, Workload):
            return False
        target = self._scenario.pods.get(flow.traffic.dst)
        if flow.traffic.src.startswith("ip:"):
            node = self._cluster.nodes_by_ip.get(_address(flow.traffic.src))
            name = node.name if node is not None else ""
        else:
            name = self._scenario.pods[flow.traffic.src].node_name
        return target is not None and bool(name) and target.node_name == name


def _joined(one: ObservedLink, other: ObservedLink) -> ObservedLink:
    """Two sightings of one link."""
    a, b = one.evidence, other.evidence
    times = [t for t in (a.first_seen, a.last_seen, b.first_seen, b.last_seen) if t is not None]
    established = one.established or other.established
    return ObservedLink(
        link=one.link,
        established=established,
        evidence=Evidence(
            sides=a.sides | b.sides,
            services=_union(a.services, b.services),
            processes=_union(a.processes, b.processes),
            connections=a.connections + b.connections,
            failed_attempts=a.failed_attempts + b.failed_attempts,
            first_seen=min(times, default=None),
            last_seen=max(times, default=None),
            src_pods=_union(a.src_pods, b.src_pods),
            dst_pods=_union(a.dst_pods, b.dst_pods),
            confidence=Confidence.HIGH if Confidence.HIGH in {a.confidence, b.confidence} else Confidence.LOW,
            same_node_probe=a.same_node_probe and b.same_node_probe,
        ),
    )


def _union(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))


def _within(at: float | None, start: float | None, end: float | None) -> bool:
    """Without a time, only what holds for the whole span of the page is certain enough."""
    if at is None:
        return end is None
    return (start is None or start <= at) and (end is None or at < end)


def _address(reference: str) -> IPAddress:
    return canonical_address(reference.removeprefix("ip:"))


def _never_on_the_wire(text: str) -> bool:
    try:
        ip = canonical_address(text)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified
