"""Backends of a Service by its selector: what the endpoint controller would have written.

For sources without EndpointSlices (manifests). Enters: a Service's facts and pods. Leaves: its backends, in the order
of the pods' names. Invariant: a named port is each pod's own (NP-26), and a pod that lacks it is no backend.
"""

from collections.abc import Iterable, Iterator

from aggregator.cluster.reduce import ServiceFacts
from aggregator.model.cluster import Pod, ServiceBackend, ServicePort


def backends_by_selector(service: ServiceFacts, pods: Iterable[Pod]) -> Iterator[ServiceBackend]:
    wanted = set(service.selector)
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
            return next((p.port for p in pod.ports if p.name == port.target_port and p.protocol is port.protocol), None)
