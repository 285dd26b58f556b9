"""Services and what stands behind them, now and in the history.

Enters: Services, EndpointSlices and Endpoints, and where a source has none of those (manifests) the pods. Leaves:
Service values with their backends. Invariant: a named port is each pod's own (NP-26), a pod that lacks it is no
backend; EndpointSlices win over the older Endpoints, which mirror them.
"""

from collections.abc import Iterable, Iterator

from aggregator.cluster.history import SKEW_SECONDS, History, ServiceKey
from aggregator.cluster.reduce import FOREVER, NEVER, ServiceFacts, SliceFacts
from aggregator.model.cluster import Pod, Service, ServiceBackend, ServicePort

ObjectKey = tuple[str, str]  # (namespace, name)


class Services:
    """The Services of one cluster. Every method says whether something changed."""

    def __init__(self, history: History) -> None:
        self.facts: dict[ObjectKey, ServiceFacts] = {}
        self.now: dict[ObjectKey, Service] = {}
        self._slices: dict[ObjectKey, dict[str, SliceFacts]] = {}  # by Service, then by "Kind/name"
        self._service_of: dict[tuple[str, str], ObjectKey] = {}  # (namespace, "Kind/name") -> Service
        self._history = history

    def apply(self, facts: ServiceFacts, *, confirmed: float, at: float) -> bool:
        key = (facts.namespace, facts.name)
        before = self.facts.get(key)
        if before is not None and before.uid != facts.uid:
            self.remove(key, at=at)
        self.facts[key] = facts
        ips = (*facts.cluster_ips, *facts.external_ips)
        since = facts.since if facts.since > NEVER else min(confirmed, at)
        changed = self._history.see_service(key_of(facts), ips, since=since, until=FOREVER)
        if before is not None:
            for ip in {*before.cluster_ips, *before.external_ips} - {*ips}:
                changed |= self._history.service_ips[ip].end(key_of(before), at + SKEW_SECONDS)
        return self.refresh(key, confirmed=confirmed, at=at) or changed

    def remove(self, key: ObjectKey, *, at: float) -> bool:
        facts = self.facts.pop(key, None)
        self.now.pop(key, None)
        if facts is None:
            return False
        self._history.end_service(key_of(facts), until=at + SKEW_SECONDS)
        return True

    def apply_slice(self, name: str, facts: SliceFacts, *, confirmed: float, at: float) -> bool:
        key = (facts.namespace, facts.service)
        before = self._service_of.get((facts.namespace, name))
        if before is not None and before != key:
            self.remove_slice(facts.namespace, name, confirmed=confirmed, at=at)
        self._service_of[(facts.namespace, name)] = key
        slices = self._slices.setdefault(key, {})
        if slices.get(name) == facts:
            return False
        slices[name] = facts
        return self.refresh(key, confirmed=confirmed, at=at)

    def remove_slice(self, namespace: str, name: str, *, confirmed: float, at: float) -> bool:
        key = self._service_of.pop((namespace, name), None)
        if key is None:
            return False
        slices = self._slices[key]
        slices.pop(name, None)
        if not slices:
            del self._slices[key]
        return self.refresh(key, confirmed=confirmed, at=at)

    def slice_names(self, kind: str) -> Iterator[tuple[str, str]]:
        """(namespace, name) of every slice of this kind."""
        for namespace, name in self._service_of:
            if name.startswith(f"{kind}/"):
                yield namespace, name.removeprefix(f"{kind}/")

    def refresh(self, key: ObjectKey, *, confirmed: float, at: float, pods: Iterable[Pod] = ()) -> bool:
        """What stands behind the Service now. `pods`: derive it from its selector where it has no slices."""
        facts = self.facts.get(key)
        if facts is None:
            return False
        slices = self._chosen(key)
        backends = _once(b for s in slices for b in s.backends) or _once(backends_by_selector(facts, pods))
        sent_to = _once(b for s in slices for b in s.ready) or _once(b for s in slices for b in s.serving)
        first = key_of(facts) not in self._history.services
        changed = self._history.see_backends(
            key_of(facts),
            facts.ports,
            sent_to if slices else backends,
            confirmed=facts.since if first else min(confirmed, at),
            at=at,
        )
        service = _service(facts, backends)
        changed |= self.now.get(key) != service
        self.now[key] = service
        return changed

    def refresh_derived(self, pods: Iterable[Pod], *, confirmed: float, at: float) -> bool:
        """Services that have a selector and no slices: their backends follow the pods."""
        by_namespace: dict[str, list[Pod]] = {}
        for pod in pods:
            by_namespace.setdefault(pod.namespace, []).append(pod)
        changed = False
        for key, facts in self.facts.items():
            if facts.selector and key not in self._slices:
                changed |= self.refresh(key, confirmed=confirmed, at=at, pods=by_namespace.get(key[0], ()))
        return changed

    def _chosen(self, key: ObjectKey) -> list[SliceFacts]:
        slices = self._slices.get(key, {})
        new = [name for name in sorted(slices) if name.startswith("EndpointSlice/")]
        return [slices[name] for name in new or sorted(slices)]


def _once(backends: Iterable[ServiceBackend]) -> tuple[ServiceBackend, ...]:
    return tuple(dict.fromkeys(backends))


def key_of(facts: ServiceFacts) -> ServiceKey:
    return ServiceKey(facts.namespace, facts.name, facts.uid)


def backends_by_selector(service: ServiceFacts, pods: Iterable[Pod]) -> Iterator[ServiceBackend]:
    """What the endpoint controller would write, pods in the order of their names."""
    wanted = set(service.selector)
    if not wanted:
        return
    chosen = [p for p in pods if p.namespace == service.namespace and not p.ended and wanted <= set(p.labels)]
    for port in service.ports:
        for pod in sorted(chosen, key=lambda p: p.name):
            number = target_port(port, pod)
            if number is not None:
                for ip in pod.ips:
                    yield ServiceBackend(ip=ip, port=number, protocol=port.protocol, port_name=port.name, pod=pod.name)


def target_port(port: ServicePort, pod: Pod) -> int | None:
    """The number behind a Service's port on this pod; None when the pod has no port of that name."""
    match port.target_port:
        case None:
            return port.port
        case int():
            return port.target_port
        case str():
            named = (p.port for p in pod.ports if p.name == port.target_port and p.protocol is port.protocol)
            return next(named, None)


def _service(facts: ServiceFacts, backends: tuple[ServiceBackend, ...]) -> Service:
    return Service(
        namespace=facts.namespace,
        name=facts.name,
        type=facts.type,
        cluster_ips=facts.cluster_ips,
        external_ips=facts.external_ips,
        external_name=facts.external_name,
        selector=facts.selector,
        ports=facts.ports,
        backends=backends,
        annotations=facts.annotations,
        external_traffic_policy=facts.external_traffic_policy,
    )
