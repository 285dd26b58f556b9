"""A scenario's flows as Links with their Evidence, resolved by address and time as the aggregator would.

Enters: a Scenario. Leaves: ObservedLinks and Findings. Invariant: an end is named only when it is known: a pod by its
name, an address by who had it then; a flow whose direction no hook saw and whose port speaks against it is turned
round, or left out, and said so.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import assert_never

from aggregator.cluster.scenario import Flow, Scenario
from aggregator.errors import InputError
from aggregator.model.address import IPAddress
from aggregator.model.cluster import Pod
from aggregator.model.finding import Finding, Severity
from aggregator.model.link import Evidence, Link, ObservedLink, Side
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Refused, Resolved, Resolver
from aggregator.model.workload import LinkEnd, Nodes
from aggregator.services.offline.view import resolver_of

FLOW_WITHOUT_POD = "flow-without-pod"
FLOW_OF_UNKNOWN_POD = "flow-of-unknown-pod"
FLOW_REFUSED = "flow-refused"
DIRECTION_INFERRED = "direction-inferred"
REPLY_LEFT_OUT = "reply-left-out"
SERVICE_FAN_OUT = "service-fan-out"

_LAST_SECOND = 253_402_300_799  # the last one that a datetime can say
_EPHEMERAL = range(32768, 61000)  # net.ipv4.ip_local_port_range as Linux has it by default
_BACKENDS_DIFFER = "service-backends-differ"  # the resolver's word
_SERVER_ORIGINS = ("accept", "recvmsg", "inet_csk_accept")


@dataclass(slots=True)
class _Seen:
    """What adds up for one Link."""

    established: int = 0
    failed: int = 0
    sides: set[Side] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    processes: set[str] = field(default_factory=set)
    src_pods: set[str] = field(default_factory=set)
    dst_pods: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    probes: list[bool] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedFlows:
    links: tuple[ObservedLink, ...]
    findings: tuple[Finding, ...]


def resolve_flows(scenario: Scenario) -> ResolvedFlows:
    """Every flow of the page as part of a Link."""
    return _Resolving(scenario).run()


class _Resolving:
    def __init__(self, scenario: Scenario) -> None:
        _check_times(scenario)
        self._scenario = scenario
        self._resolver: Resolver = resolver_of(scenario)
        self._seen: dict[Link, _Seen] = {}
        self._findings: list[Finding] = []
        times = [f.at_seconds for f in scenario.flows if f.at_seconds is not None]
        times += [t for span in scenario.ip_history for t in (span.start_seconds, span.end_seconds) if t is not None]
        self._last = max(times, default=0.0)

    def run(self) -> ResolvedFlows:
        for flow in self._scenario.flows:
            try:
                ends = self._scenario.end(flow.traffic.src), self._scenario.end(flow.traffic.dst)
            except InputError as exc:
                self._note(FLOW_OF_UNKNOWN_POD, flow, exc.reason, "add the pod to the page, with its lifetime")
                continue
            self._take(flow, *ends)
        links = tuple(self._observed(link, seen) for link, seen in self._seen.items())
        return ResolvedFlows(
            links=tuple(sorted(links, key=lambda observed: observed.link.sort_key())), findings=tuple(self._findings)
        )

    def _take(self, flow: Flow, src: Pod | IPAddress, dst: Pod | IPAddress) -> None:
        match src, dst:
            case Pod(), Pod():
                self._between_pods(flow, src, dst)
            case Pod(), IPv4Address() | IPv6Address() as remote:
                self._ask(flow, src, Direction.EGRESS, remote)
            case IPv4Address() | IPv6Address() as remote, Pod():
                self._ask(flow, dst, Direction.INGRESS, remote)
            case _:
                self._note(FLOW_WITHOUT_POD, flow, "neither end is a pod", "no policy is about it")

    # ---- both ends are named

    def _between_pods(self, flow: Flow, src: Pod, dst: Pod) -> None:
        port = flow.traffic.port
        if not flow.origin and self._looks_like_a_reply(flow, src, dst):
            reverse = {
                f.traffic.port
                for f in self._scenario.flows
                if (f.traffic.src, f.traffic.dst, f.traffic.protocol) == (str(dst), str(src), flow.traffic.protocol)
            }
            if reverse:
                self._note(REPLY_LEFT_OUT, flow, f"port {port} is a client's: a reply", "nothing: its request is here")
                return
            (port,) = _declared(src, flow.traffic.protocol)
            src, dst = dst, src
            text = f"port {flow.traffic.port} is a client's: read as {src} -> {dst} {flow.traffic.protocol}/{port}"
            self._note(DIRECTION_INFERRED, flow, text, "state origin (connect() or accept()) if that is wrong")
        link = Link(src=self._end_of(src), dst=self._end_of(dst), protocol=flow.traffic.protocol, port=port)
        probe = src.host_network and src.node_name == dst.node_name != "" and not dst.host_network
        self._add(flow, link, Side.CLIENT, src_pod=str(src), dst_pod=str(dst), probe=probe)

    def _looks_like_a_reply(self, flow: Flow, src: Pod, dst: Pod) -> bool:
        """No hook saw who connected, the port is one that clients get, and the other side is the one that serves."""
        protocol, port = flow.traffic.protocol, flow.traffic.port
        if port not in _EPHEMERAL or port in _declared(dst, protocol) or not _declared(src, protocol):
            return False
        forward, backward = self._ports(src, dst, protocol), self._ports(dst, src, protocol)
        if any(p not in _EPHEMERAL for p in forward):
            return False  # the same client also asks for a port that no client gets: it is the client
        return bool(backward & _declared(src, protocol)) or len(_declared(src, protocol)) == 1

    def _ports(self, src: Pod, dst: Pod, protocol: Protocol) -> set[int]:
        wanted = (str(src), str(dst), protocol)
        return {
            f.traffic.port for f in self._scenario.flows if (f.traffic.src, f.traffic.dst, f.traffic.protocol) == wanted
        }

    def _end_of(self, pod: Pod) -> LinkEnd:
        return Nodes(cluster=self._scenario.cluster.name) if pod.host_network else pod.workload

    # ---- one end is an address

    def _ask(self, flow: Flow, local: Pod, direction: Direction, remote: IPAddress, service: str = "") -> None:
        moment = self._last if flow.at_seconds is None else flow.at_seconds
        identity = FlowIdentity(
            cluster=self._scenario.cluster.name,
            node=local.node_name,
            pod_uid=local.uid,
            pod_namespace=local.namespace,
            pod_name=local.name,
            host_network=local.host_network,
            local_ip=local.ips[0] if local.ips else None,
            remote_ip=remote,
            port=flow.traffic.port,
            protocol=flow.traffic.protocol,
            direction=direction,
        )
        side = Side.CLIENT if direction is Direction.EGRESS else Side.SERVER
        answer = self._resolver.resolve(identity, datetime.fromtimestamp(moment, UTC))
        if isinstance(answer, NotYet) and answer.reason == _BACKENDS_DIFFER:
            self._fan_out(flow, local, remote)
            return
        match answer:
            case Resolved():
                self._add(
                    flow,
                    answer.link,
                    side,
                    src_pod=answer.src_pod,
                    dst_pod=answer.dst_pod,
                    service=answer.service or service,
                    probe=answer.same_node_probe,
                )
            case NotYet(fallback=Link() as link):
                self._add(flow, link, side)
            case NotYet() | Refused():
                self._note(FLOW_REFUSED, flow, f"left out: {answer.reason}", "no policy is about it")
            case _:
                assert_never(answer)

    def _fan_out(self, flow: Flow, local: Pod, remote: IPAddress) -> None:
        """A Service sends a client to any of its backends; no server's own report tells here which ones it were."""
        traffic = flow.traffic
        for service in self._scenario.cluster.services:
            if remote not in (*service.cluster_ips, *service.external_ips):
                continue
            names = {p.name for p in service.ports if (p.port, p.protocol) == (traffic.port, traffic.protocol)}
            chosen = [b for b in service.backends if b.port_name in names and b.protocol is traffic.protocol]
            for ip, port in dict.fromkeys((b.ip, b.port) for b in chosen):
                behind = replace(flow, traffic=replace(traffic, port=port))
                self._ask(behind, local, Direction.EGRESS, ip, service=f"{service}:{traffic.port}")
            text = f"the Service {service} has backends of several workloads or ports: each may have answered"
            self._note(SERVICE_FAN_OUT, flow, text, "exclude the rows that are not wanted")

    # ---- what adds up

    def _add(
        self,
        flow: Flow,
        link: Link,
        side: Side,
        *,
        src_pod: str = "",
        dst_pod: str = "",
        service: str = "",
        probe: bool = False,
    ) -> None:
        seen = self._seen.setdefault(link, _Seen())
        if flow.result == "established" and flow.verdict == "forwarded":
            seen.established += flow.count
            seen.probes.append(probe)
        else:
            seen.failed += flow.count
        seen.sides.add(Side.SERVER if flow.origin.startswith(_SERVER_ORIGINS) else side)
        for value, values in (
            (service, seen.services),
            (flow.process, seen.processes),
            (src_pod, seen.src_pods),
            (dst_pod, seen.dst_pods),
        ):
            if value:
                values.add(value)
        if flow.at_seconds is not None:
            seen.times.append(flow.at_seconds)

    def _observed(self, link: Link, seen: _Seen) -> ObservedLink:
        moments = [datetime.fromtimestamp(t, UTC) for t in seen.times]
        return ObservedLink(
            link=link,
            established=seen.established > 0,
            evidence=Evidence(
                sides=frozenset(seen.sides),
                services=tuple(sorted(seen.services)),
                processes=tuple(sorted(seen.processes)),
                connections=seen.established,
                failed_attempts=seen.failed,
                first_seen=min(moments, default=None),
                last_seen=max(moments, default=None),
                src_pods=tuple(sorted(seen.src_pods)),
                dst_pods=tuple(sorted(seen.dst_pods)),
                same_node_probe=bool(seen.probes) and all(seen.probes),
            ),
        )

    def _note(self, code: str, flow: Flow, message: str, way_out: str) -> None:
        self._findings.append(
            Finding(code=code, severity=Severity.INFO, subject=str(flow.traffic), message=message, way_out=way_out)
        )


def _check_times(scenario: Scenario) -> None:
    """Seconds since an epoch of the page's own, as far as a calendar goes. Raises InputError."""
    times: dict[str, tuple[float | None, ...]] = {
        f"flows[{i}].ts": (flow.at_seconds,) for i, flow in enumerate(scenario.flows)
    }
    times |= {f"pods: {pod}": span for pod, span in scenario.lifetimes.items()}
    times |= {f"ip_history[{i}]": (s.start_seconds, s.end_seconds) for i, s in enumerate(scenario.ip_history)}
    for field_, values in times.items():
        for value in values:
            if value is not None and not 0 <= value <= _LAST_SECOND:
                raise scenario.refuse(f"{value} is no time in seconds from 0 on", field_)


def _declared(pod: Pod, protocol: Protocol) -> set[int]:
    return {p.port for p in pod.ports if p.protocol is protocol}
