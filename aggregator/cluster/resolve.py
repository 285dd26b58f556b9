"""ViewResolver: from what an agent saw to a Link, by the history of addresses.

Enters: a FlowIdentity and its time. Leaves: Resolved, NotYet with the reason, or Refused. Invariant: an end is named
only when it is the single candidate at that time; several candidates, a view that lags behind or an owner not seen
yet are NotYet, whose fallback carries the raw address and never somebody's name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from aggregator.cluster.backends import key_of
from aggregator.cluster.history import K, PodPast, ServiceKey, ServiceState, Timeline
from aggregator.cluster.reduce import FOREVER, NEVER
from aggregator.cluster.view import API_SERVER, ClusterView
from aggregator.model.address import IPAddress, canonical_address
from aggregator.model.cluster import ServiceBackend, ServicePort
from aggregator.model.link import Link
from aggregator.model.protocol import Direction
from aggregator.model.resolution import (
    ADDRESS_CHANGED_HANDS,
    ADDRESS_LET_GO,
    SERVICE_BACKENDS_DIFFER,
    SERVICE_WITHOUT_BACKENDS,
    FlowIdentity,
    NotYet,
    Refused,
    Resolution,
    Resolved,
)
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload

# A flow may be this much younger than the view where its peer shows no sign of letting go of its address.
FRESH_SECONDS = 5.0
# Where the peer is about to let go, or had not been seen with its address yet, the status of the pod that had it after,
# or before, may reach the API this much later than the flow.
LETTING_GO_SECONDS = 5.0
# A node may follow a Service's endpoints this much later, or earlier, than the view.
BACKENDS_LAG_SECONDS = 30.0
_MAX_SECONDS = 253_402_300_799.0  # the last second that datetime can say


class _End(NamedTuple):
    """One side, named. `port` and `service` are set where a Service stood in between."""

    end: LinkEnd
    pod: str = ""
    node: str = ""
    service: str = ""
    port: int | None = None


class _Unknown(NamedTuple):
    reason: str
    nearest: Workload | None = None  # the only owner there is to see, where the source is known to be complete


class ViewResolver:
    """Implements aggregator.model.resolution.Resolver over one ClusterView."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._asked_ahead = NEVER  # the latest time that was asked for before the view had got there
        self._turns = 0  # of answers that changed though the view did not

    @property
    def generation(self) -> int:
        if self._asked_ahead <= self._view.seen_until and self._asked_ahead > NEVER:
            self._asked_ahead = NEVER
            self._turns += 1
        return self._view.generation + self._turns

    def resolve(self, flow: FlowIdentity, at: datetime) -> Resolution:
        moment = at.timestamp()
        with self._view.lock:
            question = _Question(self._view, flow, moment, self)
            answer = question.answer()
            behind = moment + LETTING_GO_SECONDS > self._view.seen_until
        return replace(answer, behind=behind, holds_since=question.since) if isinstance(answer, NotYet) else answer

    def known_until(self, _cluster: str) -> datetime | None:
        until = self._view.seen_until + FRESH_SECONDS
        return datetime.fromtimestamp(max(0.0, until), UTC) if until < _MAX_SECONDS else None

    def asked_ahead(self, moment: float) -> None:
        self._asked_ahead = max(self._asked_ahead, moment)

    def grew_doubtful(self) -> None:
        """An agent saw an address in other hands than the view's."""
        self._turns += 1


class _Question:
    """One flow at one time; collects the bounds within which its answer holds."""

    __slots__ = ("_flow", "_history", "_moment", "_resolver", "_since", "_steady", "_until", "_view")

    def __init__(self, view: ClusterView, flow: FlowIdentity, moment: float, resolver: ViewResolver) -> None:
        self._view, self._history = view, view.history
        self._flow, self._moment, self._resolver = flow, moment, resolver
        self._since, self._until = NEVER, FOREVER
        self._steady = True

    @property
    def since(self) -> datetime | None:
        """The answer has been the same since then."""
        return _datetime(self._since)

    def answer(self) -> Resolution:
        remote_ip = canonical_address(self._flow.remote_ip)
        if remote_ip.is_loopback or remote_ip.is_unspecified:
            return Refused(reason="loopback")
        local = self._local()
        match local:
            case Refused():
                return local
            case _Unknown(reason, nearest):
                if nearest is None:
                    return NotYet(reason=reason, fallback=None)
                answer = self._join(_End(nearest), self._remote(remote_ip, ""))
                return NotYet(reason=reason, fallback=_link_of(answer))
            case _End():
                return self._join(local, self._remote(remote_ip, local.node, local.end))

    def _join(self, local: _End, remote: _End | _Unknown) -> Resolution:
        flow = self._flow
        raw = _End(Address(cluster=self._view.cluster, ip=canonical_address(flow.remote_ip)))
        if isinstance(remote, _Unknown):
            return NotYet(reason=remote.reason, fallback=self._link(local, raw).link)
        if _is_trial(local) and _is_trial(remote):  # both: a name alone must not hide what a pod does to others
            return Refused(reason="trial")
        ahead = self._moment - self._view.seen_until
        if ahead > (FRESH_SECONDS if self._steady else -LETTING_GO_SECONDS):
            self._resolver.asked_ahead(self._moment + (0.0 if self._steady else LETTING_GO_SECONDS))
            return NotYet(reason="view-behind", fallback=self._link(local, raw).link)
        return self._link(local, remote)

    def _link(self, local: _End, remote: _End) -> Resolved:
        flow = self._flow
        src, dst = (local, remote) if flow.direction is Direction.EGRESS else (remote, local)
        link = Link(src=src.end, dst=dst.end, protocol=flow.protocol, port=dst.port or flow.port)
        ends_of_one_node = bool(local.node) and local.node == remote.node
        probe = ends_of_one_node and isinstance(src.end, Nodes) and isinstance(dst.end, Workload)
        return Resolved(
            link=link,
            service=dst.service,
            src_pod=src.pod,
            dst_pod=dst.pod,
            same_node_probe=probe,
            holds_since=self.since,
            holds_until=_datetime(
                min(self._until, FOREVER if self._steady else self._view.confirmed - LETTING_GO_SECONDS)
            ),
        )

    # ---- the side that the agent sat on -----------------------------------------------------------------------------

    def _local(self) -> _End | _Unknown | Refused:
        flow, history = self._flow, self._history
        nodes = Nodes(cluster=self._view.cluster)
        if flow.pod_uid:
            past = history.pods.get(flow.pod_uid)
            if past is None:
                past = history.pods.get(history.static_pods.get((flow.node, flow.pod_uid), ""))
            if flow.local_ip is not None and not flow.host_network:
                local_ip = canonical_address(flow.local_ip)
                if history.sight(local_ip, past.uid if past else flow.pod_uid, self._moment):
                    self._resolver.grew_doubtful()
            if past is not None:
                if past.node_name and flow.node and past.node_name != flow.node:
                    return Refused(reason="pod-on-other-node")
                return self._pod_end(past)
            return _End(nodes, node=flow.node) if flow.host_network else _Unknown("pod-not-known")
        if flow.host_network:
            return _End(nodes, node=flow.node)
        return self._local_by_address()

    def _local_by_address(self) -> _End | _Unknown:
        """The node could not name the pod: its address may, among the pods of that node."""
        flow = self._flow
        if flow.local_ip is None:
            return _Unknown("pod-not-named")
        local_ip = canonical_address(flow.local_ip)
        if flow.node and flow.node in self._owners(self._history.node_ips, local_ip):
            return _End(Nodes(cluster=self._view.cluster), node=flow.node)
        pods = (self._history.pods.get(key) for key in self._pods_at(local_ip))
        here = [past for past in pods if past is not None and past.node_name in {"", flow.node}]
        if len(here) != 1 or self._moment > self._view.confirmed + FRESH_SECONDS:
            return _Unknown("pod-not-named")
        return self._pod_end(here[0])

    def _pod_end(self, past: PodPast) -> _End | _Unknown:
        if past.host_network:
            return _End(Nodes(cluster=self._view.cluster), pod=str(past), node=past.node_name)
        if past.workload is None:
            return _Unknown("owner-not-known", self._view.nearest_owner(past.uid))
        return _End(past.workload, pod=str(past), node=past.node_name)

    # ---- the other side ---------------------------------------------------------------------------------------------

    def _remote(self, ip: IPAddress, local_node: str, local_end: LinkEnd | None = None) -> _End | _Unknown:
        flow = self._flow
        if local_end is not None and flow.local_ip is not None and canonical_address(flow.local_ip) == ip:
            return _End(local_end, node=local_node)  # a pod and itself
        egress = flow.direction is Direction.EGRESS
        found = self._egress_remote(ip, local_node) if egress else self._ingress_remote(ip)
        if found is None:
            found = self._nobodys(ip)
            if isinstance(found, _Unknown) and ip in self._history.pod_ips:
                return _Unknown(ADDRESS_LET_GO)
        return found

    def _egress_remote(self, ip: IPAddress, local_node: str) -> _End | _Unknown | None:
        """A Service before all else; its address may be a node's, too, or shared by Services with other ports."""
        keys = self._owners(self._history.service_ips, ip)
        offering = [key for key in keys if self._offers(key)]
        if len(offering) > 1:
            return _Unknown("service-address-changed-hands")
        if offering:
            return self._behind(offering[0], lambda port: port.port == self._flow.port)
        found = self._api_server_endpoint(ip) or self._pod_at(ip) or self._node_at(ip, local_node)
        return _Unknown("service-has-no-such-port") if found is None and keys else found

    def _offers(self, key: ServiceKey) -> bool:
        flow = self._flow
        states = self._states(self._history.services.get(key))
        return any(p.port == flow.port and p.protocol is flow.protocol for s in states for p in s.ports)

    def _ingress_remote(self, ip: IPAddress) -> _End | _Unknown | None:
        found = self._pod_at(ip) or self._node_at(ip, "") or self._gateway_at(ip)
        if found is None and any(b.ip == ip for b in self._api_server_backends()):
            return _End(ApiServer(cluster=self._view.cluster))  # its own host is no node: a managed control plane
        return found

    def _pod_at(self, ip: IPAddress) -> _End | _Unknown | None:
        return self._end_of(self._pods_at(ip))

    def _end_of(self, keys: Iterable[str]) -> _End | _Unknown | None:
        """Several pods are an answer where all are one workload's, who took the address over from each other."""
        ends: list[_End] = []
        for key in keys:
            past = self._history.pods.get(key)
            if past is None:
                return _Unknown(ADDRESS_CHANGED_HANDS)
            end = self._pod_end(past)
            if isinstance(end, _Unknown):
                return end
            ends.append(end)
        match ends:
            case []:
                return None
            case [end]:
                return end
            case [end, *others] if all(other.end == end.end for other in others):
                return end._replace(pod="", node=end.node if all(other.node == end.node for other in others) else "")
            case _:
                return _Unknown(ADDRESS_CHANGED_HANDS)

    def _node_at(self, ip: IPAddress, local_node: str) -> _End | _Unknown | None:
        names = self._owners(self._history.node_ips, ip)
        if not names:
            return None
        node = _End(Nodes(cluster=self._view.cluster), node=names[0] if len(names) == 1 else "")
        if self._flow.direction is Direction.EGRESS and (behind := self._node_port(local_node == names[0])):
            return behind
        return node

    def _node_port(self, own_node: bool) -> _End | _Unknown | None:  # noqa: FBT001 - private, one call
        """A NodePort is translated on the node that it is sent to (NP-37): on the own node the pod behind it is the
        other end, on another node that node is.
        """
        for key in sorted(self._history.node_ports.get((self._flow.port, self._flow.protocol), ())):
            for state in self._states(self._history.services.get(key)):
                port = next((p for p in state.ports if self._is_node_port(p)), None)
                if port is not None:
                    if own_node:
                        return self._behind(key, self._is_node_port)
                    service = f"{key}:{port.port}"
                    return _End(Nodes(cluster=self._view.cluster), service=service, port=self._flow.port)
        return None

    def _is_node_port(self, port: ServicePort) -> bool:
        return port.node_port == self._flow.port and port.protocol is self._flow.protocol

    def _gateway_at(self, ip: IPAddress) -> _End | None:
        """The first address of a node's pod range is the node itself, on the bridge that its pods hang on."""
        for facts in self._view.nodes.values():
            for cidr in facts.node.pod_cidrs:
                if ip in cidr and int(ip) == int(cidr.network_address) + 1:
                    return _End(Nodes(cluster=self._view.cluster), node=facts.node.name)
        return None

    def _nobodys(self, ip: IPAddress) -> _End | _Unknown:
        cidrs = self._view.cidrs
        inside = cidrs.containing(ip)
        if inside is not None:
            return _Unknown(f"nobody-known-in-{inside.role}-range")
        if not cidrs.complete and _is_private(ip):
            return _Unknown("cluster-subnets-incomplete")
        return _End(Address(cluster=self._view.cluster, ip=ip))

    # ---- Services ---------------------------------------------------------------------------------------------------

    def _behind(self, key: ServiceKey, chosen: Callable[[ServicePort], bool]) -> _End | _Unknown:
        """What stood behind a Service's port. Several workloads are no answer: the server's own report will tell.

        Where nothing did, it is what stood there shortly before and after, if that is one: the node that translated
        the address follows the same objects in its own time, while every pod is being replaced at once, for one.
        """
        timeline = self._history.services.get(key)
        found = self._behind_states(key, chosen, self._states(timeline))
        if timeline is None or not isinstance(found, _Unknown) or found.reason != SERVICE_WITHOUT_BACKENDS:
            return found
        self._narrow_to(timeline.holds_around(self._moment, BACKENDS_LAG_SECONDS))
        return self._behind_states(key, chosen, timeline.around(self._moment, BACKENDS_LAG_SECONDS))

    def _behind_states(
        self, key: ServiceKey, chosen: Callable[[ServicePort], bool], states: Sequence[ServiceState]
    ) -> _End | _Unknown:
        flow, service = self._flow, ""
        found: set[tuple[LinkEnd, int]] = set()
        pods: set[str] = set()
        for state in states:
            for port in state.ports:
                if port.protocol is not flow.protocol or not chosen(port):
                    continue
                service = f"{key}:{port.port}"
                for backend in _backends_of(state, port):
                    end = self._backend_end(key, backend)
                    if isinstance(end, _Unknown):
                        return end
                    found.add((end.end, backend.port))
                    pods.add(end.pod)
                if key[:2] == API_SERVER and not found and isinstance(port.target_port, int):
                    found.add((ApiServer(cluster=self._view.cluster), port.target_port))
        if not service:
            return _Unknown("service-has-no-such-port")
        match list(found):
            case []:
                return _Unknown(SERVICE_WITHOUT_BACKENDS)
            case [(other, number)]:
                return _End(other, pod=pods.pop() if len(pods) == 1 else "", service=service, port=number)
            case _:
                return _Unknown(SERVICE_BACKENDS_DIFFER)

    def _backend_end(self, key: ServiceKey, backend: ServiceBackend) -> _End | _Unknown:
        """A slice's word is about the pod that it names, which may be gone before the slice is written anew: whoever
        has taken over the pod's address since is not behind the Service.
        """
        if key[:2] == API_SERVER:
            return _End(ApiServer(cluster=self._view.cluster))
        pods = self._pods_at(backend.ip)
        named = self._history.pods_named(key.namespace, backend.pod, backend.ip)
        if pods and backend.pod and not named:
            return _Unknown(ADDRESS_CHANGED_HANDS)
        found = self._end_of([pod for pod in pods if pod in named] or named or pods)
        if found is None and self._owners(self._history.node_ips, backend.ip):
            found = _End(Nodes(cluster=self._view.cluster))
        return found or self._nobodys(backend.ip)

    def _api_server_endpoint(self, ip: IPAddress) -> _End | None:
        flow = self._flow
        for backend in self._api_server_backends():
            if (backend.ip, backend.port, backend.protocol) == (ip, flow.port, flow.protocol):
                return _End(ApiServer(cluster=self._view.cluster))
        return None

    def _api_server_backends(self) -> list[ServiceBackend]:
        facts = self._view.api_server
        timeline = self._history.services.get(key_of(facts)) if facts else None
        return [b for state in self._states(timeline) for b in state.backends]

    # ---- the past ---------------------------------------------------------------------------------------------------

    def _owners(self, index: Mapping[IPAddress, Timeline[K]], ip: IPAddress) -> list[K]:
        timeline = index.get(ip)
        if timeline is None:
            return []
        self._narrow(timeline)
        return timeline.at(self._moment, self._history.grace_seconds)

    def _pods_at(self, ip: IPAddress) -> list[str]:
        timeline = self._history.pod_ips.get(ip)
        if timeline is None:
            return []
        self._narrow(timeline)
        self._narrow_to(self._history.holds_unsighted(ip, self._moment))
        keys = self._history.pod_candidates(ip, self._moment)
        for key in keys:
            sure = timeline.sure_since(key, self._moment)
            self._steady = self._steady and sure is not None and self._view.steady(key)
            self._narrow_to((NEVER if sure is None else sure, FOREVER))
        return keys

    def _states(self, timeline: Timeline[ServiceState] | None) -> list[ServiceState]:
        if timeline is None:
            return []
        self._narrow(timeline)
        return timeline.at(self._moment, self._history.grace_seconds)

    def _narrow(self, timeline: Timeline[K]) -> None:
        self._narrow_to(timeline.holds(self._moment, self._history.grace_seconds))

    def _narrow_to(self, bounds: tuple[float, float]) -> None:
        self._since, self._until = max(self._since, bounds[0]), min(self._until, bounds[1])


def _backends_of(state: ServiceState, port: ServicePort) -> list[ServiceBackend]:
    return [b for b in state.backends if b.port_name == port.name and b.protocol is port.protocol]


def _is_trial(end: _End) -> bool:
    return isinstance(end.end, Workload) and end.end.is_trial


def _link_of(answer: Resolution) -> Link | None:
    match answer:
        case Resolved():
            return answer.link
        case NotYet():
            return answer.fallback
        case Refused():
            return None


def _is_private(ip: IPAddress) -> bool:
    return ip.is_private or ip.is_link_local


def _datetime(moment: float) -> datetime | None:
    return datetime.fromtimestamp(moment, UTC) if 0 < moment < _MAX_SECONDS else None
