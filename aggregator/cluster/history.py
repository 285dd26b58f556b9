"""History: who had an address, and what stood behind a Service, at a time.

Enters: facts with the span in which they *may* have been true (object times are whole seconds, clocks differ, a watch
lags). Leaves: every candidate at a time. Invariant: the true answer is always among the candidates, so exactly one
candidate is an answer and several are none; merging spans is commutative, so any order of events gives one history.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from aggregator.cluster.reduce import FOREVER, NEVER, PodFacts
from aggregator.model.address import IPAddress
from aggregator.model.cluster import Node, ServiceBackend, ServicePort
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Workload

K = TypeVar("K")
V = TypeVar("V")

# Clocks of nodes and of the API server differ by this much at most before a verdict is doubted.
SKEW_SECONDS = 1.0
# An agent's word that another pod uses an address is doubted no longer than this.
SIGHTING_SECONDS = 60.0


@dataclass(slots=True)
class Span(Generic[K]):
    """`key` may have been so from `since` to `until`; from `sure` on it was, until it let go."""

    key: K
    since: float
    until: float
    sure: float = FOREVER

    def narrow(self, since: float, until: float, sure: float) -> bool:
        """Take both bounds into account: what either rules out is ruled out. True when that changed it."""
        before = (self.since, self.until, self.sure)
        self.since, self.until, self.sure = max(self.since, since), min(self.until, until), min(self.sure, sure)
        return before != (self.since, self.until, self.sure)


class Timeline(Generic[K]):
    """The spans of one address (or one Service), few and unordered: an address has few owners within the retention."""

    __slots__ = ("spans",)

    def __init__(self) -> None:
        self.spans: list[Span[K]] = []

    def add(self, key: K, since: float, until: float, sure: float = FOREVER) -> bool:
        """`key` may have had it from `since` to `until`. A time after it was known to end is another time (a node that
        came back under its name).
        """
        found = [s for s in self.spans if s.key == key and s.since <= until and since <= s.until]
        if not found:
            self.spans = [*self.spans, Span(key, since, until, sure)]  # no room to spare: most stay alone for ever
            return True
        changed = False
        for span in found:
            changed |= span.narrow(since, until, sure)
        return changed

    def end(self, key: K, until: float) -> bool:
        """`key` has had it until `until` at the latest."""
        changed = False
        for span in self.spans:
            if span.key == key and span.since <= until:
                changed |= span.narrow(NEVER, until, FOREVER)
        return changed

    def sure_since(self, key: K, moment: float) -> float | None:
        """When it was first seen with it, where that was before `moment`: since then it had it, until it let go."""
        return max((span.sure for span in self.spans if span.key == key and span.sure <= moment), default=None)

    def at(self, moment: float, grace_seconds: float) -> list[K]:
        """Who may have had it at `moment`; when nobody may, who let go of it last within the grace period before."""
        live = [s.key for s in self.spans if s.since <= moment <= s.until]
        if live or not grace_seconds:
            return live
        late = [s for s in self.spans if s.until < moment <= s.until + grace_seconds]
        return [max(late, key=lambda s: s.until).key] if late else []

    def around(self, moment: float, seconds: float) -> list[K]:
        """Who may have had it within `seconds` before or after."""
        return [s.key for s in self.spans if s.since - seconds <= moment <= s.until + seconds]

    def holds_around(self, moment: float, seconds: float) -> tuple[float, float]:
        """The bounds around `moment` between which the answer of `around` cannot change."""
        edges = [edge for s in self.spans for edge in (s.since - seconds, s.until + seconds)]
        return _nearest(edges, moment)

    def holds(self, moment: float, grace_seconds: float) -> tuple[float, float]:
        """The bounds around `moment` between which the answer of `at` cannot change."""
        edges = [edge for s in self.spans for edge in (s.since, s.until, s.until + grace_seconds)]
        return _nearest(edges, moment)

    def forget(self, before: float) -> bool:
        """Drop what ended before; True when nothing is left."""
        self.spans = [s for s in self.spans if s.until >= before]
        return not self.spans


def _nearest(edges: Collection[float], moment: float) -> tuple[float, float]:
    """The last edge before `moment`, and the first after it; at an edge, nothing but the edge."""
    if moment in edges:
        return moment, moment
    return (
        max((e for e in edges if e < moment), default=NEVER),
        min((e for e in edges if e > moment), default=FOREVER),
    )


class ServiceState(NamedTuple):
    """What stood behind a Service for a while. `version` tells states apart that are equal but apart in time."""

    version: int
    ports: tuple[ServicePort, ...]
    backends: tuple[ServiceBackend, ...]


class ServiceKey(NamedTuple):
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PodPast(NamedTuple):
    """A pod as the history keeps it after it is gone. `workload` None = its owner was never seen."""

    uid: str
    static_uid: str
    namespace: str
    name: str
    node_name: str
    host_network: bool
    workload: Workload | None
    ips: tuple[IPAddress, ...] = ()  # every one it had; none of its own on the host's network

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Owner = PodPast | Node


@dataclass(slots=True)
class History:
    """Every address and Service of one cluster over the retention."""

    grace_seconds: float = 30.0
    pods: dict[str, PodPast] = field(default_factory=dict)  # by UID; a pod without one has "namespace/name"
    static_pods: dict[tuple[str, str], str] = field(default_factory=dict)  # (node, config hash) -> UID
    pod_ips: dict[IPAddress, Timeline[str]] = field(default_factory=dict)  # -> keys of `pods`
    node_ips: dict[IPAddress, Timeline[str]] = field(default_factory=dict)  # -> node names
    service_ips: dict[IPAddress, Timeline[ServiceKey]] = field(default_factory=dict)
    services: dict[ServiceKey, Timeline[ServiceState]] = field(default_factory=dict)
    node_ports: dict[tuple[int, Protocol], set[ServiceKey]] = field(default_factory=dict)  # who may have had it
    pod_ends: dict[str, float] = field(default_factory=dict)  # keys of `pods` that are gone, and since when
    changed_pods: set[str] = field(default_factory=set)  # since whoever keeps the history last looked
    sightings: dict[IPAddress, dict[str, float]] = field(default_factory=dict)  # -> who an agent saw use it, and when

    def sight(self, ip: IPAddress, key: str, moment: float) -> bool:
        """An agent saw a pod use an address that the view gives to nobody else, or to another: until the view says
        whose it is, nobody's name is given to it around that time. True when that changes any answer.
        """
        timeline = self.pod_ips.get(ip)
        if timeline is None or any(span.key == key for span in timeline.spans):
            return False
        seen = self.sightings.setdefault(ip, {})
        if moment <= seen.get(key, NEVER) + SIGHTING_SECONDS / 2:
            return False
        seen[key] = moment
        return True

    def holds_unsighted(self, ip: IPAddress, moment: float) -> tuple[float, float]:
        """The bounds around `moment` between which what agents saw of `ip` makes the same difference."""
        seen = self.sightings.get(ip, {}).values()
        return _nearest([t + side * SIGHTING_SECONDS for t in seen for side in (-1, 1)], moment)

    def pod_candidates(self, ip: IPAddress, moment: float) -> list[str]:
        """Keys of the pods that may have had the address."""
        timeline = self.pod_ips.get(ip)
        if timeline is None:
            return []
        found = timeline.at(moment, self.grace_seconds)
        seen = self.sightings.get(ip)
        if seen:
            found += [k for k, t in seen.items() if abs(t - moment) <= SIGHTING_SECONDS and k not in found]
        return found

    def pods_named(self, namespace: str, name: str, ip: IPAddress) -> list[str]:
        """Keys of the pods of this name that have, or had, the address: one after the other in a StatefulSet."""
        timeline = self.pod_ips.get(ip)
        keys = dict.fromkeys(span.key for span in timeline.spans) if timeline is not None else ()
        pasts = ((key, self.pods.get(key)) for key in keys)
        return [key for key, past in pasts if past is not None and (past.namespace, past.name) == (namespace, name)]

    def see_pod(
        self, key: str, facts: PodFacts, workload: Workload | None, *, since: float, until: float, at: float
    ) -> bool:
        """A version of a pod was seen at `at`; its address may have been its own from `since` to `until`."""
        known = self.pods.get(key)
        past = PodPast(
            key,
            facts.static_uid or (known.static_uid if known else ""),
            facts.namespace,
            facts.name,
            facts.node_name or (known.node_name if known else ""),
            facts.host_network,
            workload or (known.workload if known else None),
            () if facts.host_network else _union(known.ips if known else (), facts.ips),
        )
        changed = known != past
        if changed:
            self.pods[key] = past
            self.changed_pods.add(key)
        if past.static_uid:
            self.static_pods[(past.node_name, past.static_uid)] = key
        if until < FOREVER:
            self.pod_ends[key] = min(until, self.pod_ends.get(key, FOREVER))
        if facts.host_network:
            return changed
        sure = FOREVER if facts.ended else at + SKEW_SECONDS
        for ip in facts.ips:
            changed |= self.pod_ips.setdefault(ip, Timeline()).add(key, since - SKEW_SECONDS, until, sure)
            if ip in self.sightings and self.sightings[ip].pop(key, None) is not None and not self.sightings[ip]:
                del self.sightings[ip]
        if changed:
            self.changed_pods.add(key)
        return changed

    def learn_owner(self, key: str, workload: Workload) -> bool:
        """The owner of a pod that may be gone already."""
        past = self.pods.get(key)
        if past is None or past.workload is not None:
            return False
        self.pods[key] = past._replace(workload=workload)
        self.changed_pods.add(key)
        return True

    def lose_address(self, key: str, ip: IPAddress, until: float) -> bool:
        """A pod that goes on has another address since `until` at the latest."""
        timeline = self.pod_ips.get(ip)
        changed = timeline is not None and timeline.end(key, until)
        if changed:
            self.changed_pods.add(key)
        return changed

    def end_pod(self, key: str, ips: Iterable[IPAddress], *, until: float) -> None:
        """The pod is known to be gone at `until`."""
        self.changed_pods.add(key)
        self.pod_ends[key] = min(until, self.pod_ends.get(key, FOREVER))
        for ip in ips:
            if ip in self.pod_ips:
                self.pod_ips[ip].end(key, until)

    def see_node(self, node: Node, *, since: float, until: float = FOREVER) -> bool:
        changed = False
        for ip in node.addresses:
            changed |= self.node_ips.setdefault(ip, Timeline()).add(node.name, since - SKEW_SECONDS, until)
        return changed

    def end_node(self, node: Node, *, until: float) -> None:
        for ip in node.addresses:
            if ip in self.node_ips:
                self.node_ips[ip].end(node.name, until)

    def see_service(self, key: ServiceKey, ips: Iterable[IPAddress], *, since: float, until: float) -> bool:
        changed = False
        for ip in ips:
            changed |= self.service_ips.setdefault(ip, Timeline()).add(key, since - SKEW_SECONDS, until)
        return changed

    def see_backends(
        self,
        key: ServiceKey,
        ports: tuple[ServicePort, ...],
        backends: tuple[ServiceBackend, ...],
        *,
        confirmed: float,
        at: float,
    ) -> bool:
        """What stands behind a Service from `at`, and what it replaces stood there until then at most.

        Between `confirmed` (the view was last known to be right) and `at` either may have been so.
        """
        timeline = self.services.setdefault(key, Timeline())
        self.see_node_ports(key, ports)
        last = max(timeline.spans, key=lambda s: s.key.version, default=None)
        if last is not None and (last.key.ports, last.key.backends) == (ports, backends) and last.until == FOREVER:
            return False
        if last is not None:
            last.until = min(last.until, at + SKEW_SECONDS)
        version = last.key.version + 1 if last else 0
        timeline.add(ServiceState(version, ports, backends), confirmed - SKEW_SECONDS, FOREVER)
        return True

    def see_node_ports(self, key: ServiceKey, ports: tuple[ServicePort, ...]) -> None:
        for port in ports:
            if port.node_port is not None:
                self.node_ports.setdefault((port.node_port, port.protocol), set()).add(key)

    def end_service(self, key: ServiceKey, *, until: float) -> None:
        for timeline in self.service_ips.values():
            for span in timeline.spans:
                if span.key == key:
                    span.until = min(span.until, until)
        for state in self.services[key].spans if key in self.services else ():
            state.until = min(state.until, until)

    def end_all_but(
        self, *, pods: Collection[str], nodes: Collection[str], services: Collection[ServiceKey], until: float
    ) -> None:
        """Whatever is not named here is gone at `until` at the latest."""
        for index, kept in ((self.pod_ips, pods), (self.node_ips, nodes)):
            for timeline in index.values():
                for span in timeline.spans:
                    if span.key not in kept:
                        span.until = min(span.until, until)
        for key in self.pods.keys() - set(pods):
            self.pod_ends[key] = min(until, self.pod_ends.get(key, FOREVER))
            self.changed_pods.add(key)
        for key_of_service in self.services.keys() - set(services):
            self.end_service(key_of_service, until=until)

    def forget(self, before: float) -> int:
        """Drop what ended before; how many pods were dropped."""
        _forget(self.pod_ips, before)
        _forget(self.node_ips, before)
        _forget(self.service_ips, before)
        _forget(self.services, before)
        for keys in self.node_ports.values():
            keys.intersection_update(self.services)
        for ip in [ip for ip, seen in self.sightings.items() if max(seen.values()) < before]:
            del self.sightings[ip]
        gone = [key for key, until in self.pod_ends.items() if until < before]
        for key in gone:
            del self.pod_ends[key]
            past = self.pods.pop(key, None)
            if past is not None:
                self.static_pods.pop((past.node_name, past.static_uid), None)
        return len(gone)


def _union(known: tuple[IPAddress, ...], more: tuple[IPAddress, ...]) -> tuple[IPAddress, ...]:
    return more if known == more or not known else tuple(sorted({*known, *more}, key=str))


def _forget(index: dict[K, Timeline[V]], before: float) -> None:
    for key in [key for key, timeline in index.items() if timeline.forget(before)]:
        del index[key]
