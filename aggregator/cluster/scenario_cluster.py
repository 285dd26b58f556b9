"""The ClusterSnapshot that a scenario's page describes: pods with their owners, nodes, Services with their backends.

Enters: a checked ScenarioPage. Leaves: a snapshot; what the page leaves out is derived where the derivation is exact
(nodes from nodeIP, backends from selector and targetPort), else left empty. Raises InputError with the field.
"""

from ipaddress import ip_network

from aggregator.cluster.declared import DECLARING_KINDS, Selectable, declared_callers
from aggregator.cluster.scenario_schema import PodPage, ScenarioPage, ServicePage
from aggregator.errors import InputError
from aggregator.model.address import IPAddress, IPNetwork, canonical_address
from aggregator.model.adminpolicy import AdminPolicy
from aggregator.model.cluster import (
    ClusterSnapshot,
    ContainerPort,
    Namespace,
    Node,
    Pod,
    Service,
    ServiceBackend,
    ServicePort,
    labels_from,
)
from aggregator.model.declared import DeclaredCaller
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.workload import Workload

CLUSTER = "default"
KUBERNETES_SERVICE = "default/kubernetes"
KUBEADM_SERVICE_CIDR = "10.96.0.0/12"  # kubeadm's default; the API server's Service takes a CIDR's first address


def snapshot_of(
    page: ScenarioPage, policies: tuple[NetworkPolicy, ...], admin: tuple[AdminPolicy, ...]
) -> ClusterSnapshot:
    nodes = _nodes(page)
    pods = _pods(page, nodes)
    service_cidrs = _cidrs(page.service_cidrs, "service_cidrs")
    return ClusterSnapshot(
        name=CLUSTER,
        namespaces=_namespaces(page, policies),
        nodes=nodes,
        pods=pods,
        services=_services(page, pods, service_cidrs),
        policies=policies,
        pod_cidrs=_cidrs(page.pod_cidrs, "pod_cidrs"),
        service_cidrs=service_cidrs,
        cidrs_complete=bool(page.pod_cidrs and page.service_cidrs),
        extra_policies=admin,
        declared_callers=_declared(page),
    )


def _declared(page: ScenarioPage) -> tuple[DeclaredCaller, ...]:
    """What the page's other objects (webhooks, monitors, Ingresses, ...) announce of its Services and pods."""
    for index, item in enumerate(page.objects):
        if item.get("kind") not in DECLARING_KINDS or not (item.get("metadata") or {}).get("name"):
            known = ", ".join(sorted(DECLARING_KINDS))
            raise InputError(f"must be an object with a name, of one of {known}", field=f"objects[{index}]")
    return declared_callers(
        ((str(item["kind"]), item) for item in page.objects),
        (
            Selectable(
                namespace=item.namespace,
                name=item.name,
                labels=labels_from(item.labels),
                selector=labels_from(item.selector),
                annotations=labels_from(item.annotations),
            )
            for item in page.services
        ),
        (
            Selectable(namespace=namespace, name="", labels=labels)
            for namespace, labels in dict.fromkeys((pod.namespace, labels_from(pod.labels)) for pod in page.pods)
        ),
    )


def _namespaces(page: ScenarioPage, policies: tuple[NetworkPolicy, ...]) -> tuple[Namespace, ...]:
    """Those written, then those that pods, Services and policies live in."""
    found = {item.name: Namespace(name=item.name, labels=labels_from(item.labels)) for item in page.namespaces}
    if len(found) != len(page.namespaces):
        raise InputError("a namespace stands twice", field="namespaces")
    lived_in = [item.namespace for item in page.pods] + [item.namespace for item in page.services]
    for name in (*lived_in, *(policy.namespace for policy in policies)):
        found.setdefault(name, Namespace(name=name))
    return tuple(found.values())


def _nodes(page: ScenarioPage) -> tuple[Node, ...]:
    """Those written, then one by the name of its address for every other nodeIP."""
    found: dict[str, Node] = {}
    for index, item in enumerate(page.nodes):
        written = (*([item.ip] if item.ip is not None else []), *item.ips)
        found[item.name] = Node(
            name=item.name,
            labels=labels_from(item.labels),
            addresses=_addresses(written, f"nodes[{index}].ip"),
            pod_cidrs=_cidrs(item.pod_cidrs, f"nodes[{index}].pod_cidrs"),
        )
    known = {ip for node in found.values() for ip in node.addresses}
    for index, pod in enumerate(page.pods):
        for ip in _node_addresses(pod, index):
            if ip not in known:
                known.add(ip)
                found[str(ip)] = Node(name=str(ip), addresses=(ip,))
    return tuple(found.values())


def _node_addresses(pod: PodPage, index: int) -> tuple[IPAddress, ...]:
    """The address of the pod's node: nodeIP, or the pod's own where it is on the host's network."""
    if pod.node_ip is not None:
        return _addresses([pod.node_ip], f"pods[{index}].nodeIP")
    return _pod_addresses(pod, index)[:1] if pod.host_network else ()


def _pod_addresses(pod: PodPage, index: int) -> tuple[IPAddress, ...]:
    written = (*([pod.ip] if pod.ip is not None else []), *pod.ips)
    if not written and pod.host_network and pod.node_ip is not None:
        written = (pod.node_ip,)
    return _addresses(written, f"pods[{index}].ip")


def _pods(page: ScenarioPage, nodes: tuple[Node, ...]) -> tuple[Pod, ...]:
    node_names = {ip: node.name for node in nodes for ip in node.addresses}
    found: dict[str, Pod] = {}
    for index, item in enumerate(page.pods):
        owner = item.workload or item.owner
        pod = Pod(
            namespace=item.namespace,
            name=item.name,
            workload=Workload(
                cluster=CLUSTER,
                namespace=item.namespace,
                kind=owner.kind if owner else "Pod",
                name=owner.name if owner else item.name,
            ),
            uid=f"{item.namespace}/{item.name}",
            labels=labels_from(item.labels),
            ips=_pod_addresses(item, index),
            ports=tuple(ContainerPort(name=p.name, port=p.port, protocol=p.protocol) for p in item.ports),
            host_network=item.host_network,
            node_name=next((node_names[ip] for ip in _node_addresses(item, index)), ""),
            future=item.future,
        )
        if str(pod) in found:
            raise InputError(f"the pod {pod} stands twice", field=f"pods[{index}].name")
        found[str(pod)] = pod
    return tuple(found.values())


def _services(page: ScenarioPage, pods: tuple[Pod, ...], service_cidrs: tuple[IPNetwork, ...]) -> tuple[Service, ...]:
    found = {}
    for index, item in enumerate(page.services):
        key = f"{item.namespace}/{item.name}"
        ports = tuple(
            ServicePort(name=p.name, port=p.port, protocol=p.protocol, target_port=p.target_port, node_port=p.node_port)
            for p in item.ports
        )
        stated = page.endpoints.get(key)
        if stated is not None:
            backends = _stated_backends(key, stated, ports, pods)
        else:
            backends = _selected_backends(item, ports, pods)
        found[key] = Service(
            namespace=item.namespace,
            name=item.name,
            type=item.type,
            cluster_ips=_cluster_ips(item, index),
            external_ips=_addresses(item.external_ips, f"services[{index}].externalIPs"),
            external_name=item.external_name,
            selector=labels_from(item.selector),
            ports=ports,
            backends=backends,
            annotations=labels_from(item.annotations),
            external_traffic_policy=item.external_traffic_policy,
        )
    for key, stated in page.endpoints.items():
        if key not in found:
            found[key] = _undeclared_service(key, stated, pods, service_cidrs)
    return tuple(found.values())


def _cluster_ips(item: ServicePage, index: int) -> tuple[IPAddress, ...]:
    written = [*([item.cluster_ip] if item.cluster_ip else []), *item.cluster_ips]
    return _addresses([ip for ip in written if ip != "None"], f"services[{index}].clusterIP")


def _selected_backends(
    item: ServicePage, ports: tuple[ServicePort, ...], pods: tuple[Pod, ...]
) -> tuple[ServiceBackend, ...]:
    """What the endpoints controller would write: nothing for a Service without a selector."""
    if not item.selector:
        return ()
    chosen = [
        pod
        for pod in pods
        if pod.namespace == item.namespace and item.selector.items() <= dict(pod.labels).items() and not pod.future
    ]
    return tuple(
        ServiceBackend(ip=ip, port=target, protocol=port.protocol, port_name=port.name, pod=pod.name)
        for port in ports
        for pod in chosen
        for ip in pod.ips
        for target in _targets(port, pod)
    )


def _targets(port: ServicePort, pod: Pod) -> tuple[int, ...]:
    """The number of targetPort on this pod; none where no container declares the name (NP-26)."""
    match port.target_port:
        case None:
            return (port.port,)
        case int() as number:
            return (number,)
        case name:
            return tuple(p.port for p in pod.ports if p.name == name and p.protocol is port.protocol)[:1]


def _stated_backends(
    key: str, stated: list[str], ports: tuple[ServicePort, ...], pods: tuple[Pod, ...]
) -> tuple[ServiceBackend, ...]:
    """Each `IP:PORT` belongs to the Service ports whose target it is, or to all where none says so."""
    owners = {ip: pod for pod in pods if not pod.host_network for ip in pod.ips}
    found = []
    for index, text in enumerate(stated):
        ip, number = _socket_address(text, f"endpoints.{key}[{index}]")
        pod = owners.get(ip)
        fitting = [p for p in ports if number in (_targets(p, pod) if pod else (p.target_port or p.port,))]
        found += [
            ServiceBackend(
                ip=ip,
                port=number,
                protocol=port.protocol,
                port_name=port.name,
                pod=pod.name if pod and pod.namespace == key.partition("/")[0] else "",
            )
            for port in fitting or ports
        ]
    return tuple(found)


def _undeclared_service(
    key: str, stated: list[str], pods: tuple[Pod, ...], service_cidrs: tuple[IPNetwork, ...]
) -> Service:
    """A Service of which the page gives the endpoints alone. The API server's has a well-known address and port."""
    namespace, _, name = key.partition("/")
    if not name:
        raise InputError("must be named namespace/service", field=f"endpoints.{key}")
    numbers = dict.fromkeys(_socket_address(text, f"endpoints.{key}[{index}]")[1] for index, text in enumerate(stated))
    is_api_server = key == KUBERNETES_SERVICE
    cidrs = (service_cidrs or (ip_network(KUBEADM_SERVICE_CIDR),)) if is_api_server else ()
    ports = tuple(
        ServicePort(name="https" if is_api_server else "", port=443 if is_api_server else number, target_port=number)
        for number in numbers
    )
    return Service(
        namespace=namespace,
        name=name,
        cluster_ips=tuple(cidr[1] for cidr in cidrs),
        ports=ports,
        backends=_stated_backends(key, stated, ports, pods),
    )


def _socket_address(text: str, at: str) -> tuple[IPAddress, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65535):
        raise InputError(f"{text!r} is not ADDRESS:PORT", field=at)
    return _addresses([host.removeprefix("[").removesuffix("]")], at)[0], int(port)


def _addresses(texts: tuple[str, ...] | list[str], at: str) -> tuple[IPAddress, ...]:
    try:
        return tuple(dict.fromkeys(canonical_address(text) for text in texts))
    except ValueError as exc:
        raise InputError(f"{exc}", field=at) from exc


def _cidrs(texts: list[str], at: str) -> tuple[IPNetwork, ...]:
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as exc:
        raise InputError(f"{exc}", field=at) from exc
