"""Raw Kubernetes JSON, reduced to the few values that names and policies need.

Enters: one object as the API server or a manifest gives it. Leaves: a small immutable record. Invariant: nothing is
invented (what the object does not say is empty or None), and equal strings, labels and addresses are one object in
memory: a large cluster repeats the same few of them (the client's own models cost 94 kB a pod).
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_network
from typing import Any, NamedTuple, TypeVar

from aggregator.model.address import IPAddress, IPNetwork, canonical_address
from aggregator.model.cluster import ContainerPort, Labels, Namespace, Node, ServiceBackend, ServicePort
from aggregator.model.protocol import Protocol

Raw = Mapping[str, Any]
NEVER = float("-inf")
FOREVER = float("inf")

_T = TypeVar("_T")
_kept: dict[Any, Any] = {}
_KEPT_AT_MOST = 1_000_000
_addresses: dict[str, IPAddress] = {}

# CNI plug-ins write the address of their own device on the node (tunnel, gateway) into annotations of the Node.
NODE_ADDRESS_ANNOTATIONS = (
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "network.cilium.io/ipv4-cilium-host",
    "network.cilium.io/ipv6-cilium-host",
    "flannel.alpha.coreos.com/public-ip",
)
# The kubelet names the cgroup of a static pod by this hash; its mirror in the API has another UID.
STATIC_POD_ANNOTATIONS = ("kubernetes.io/config.hash", "kubernetes.io/config.mirror")
BOOKKEEPING = frozenset({"managedFields", "resourceVersion", "generation", "selfLink"})


class OwnerRef(NamedTuple):
    """The controller named in metadata.ownerReferences."""

    kind: str
    name: str
    uid: str


class PodFacts(NamedTuple):
    """What one version of a Pod says. Times are epoch seconds; `until` is FOREVER while it runs."""

    uid: str
    static_uid: str
    namespace: str
    name: str
    node_name: str
    host_network: bool
    labels: Labels
    ips: tuple[IPAddress, ...]
    ports: tuple[ContainerPort, ...]
    owner: OwnerRef | None
    since: float
    until: float
    ended: bool
    steady: bool  # nothing says that it is about to let go of its address


class ServiceFacts(NamedTuple):
    """A Service as its object says; backends come from EndpointSlices."""

    uid: str
    namespace: str
    name: str
    type: str
    cluster_ips: tuple[IPAddress, ...]
    external_ips: tuple[IPAddress, ...]
    external_name: str
    selector: Labels
    ports: tuple[ServicePort, ...]
    annotations: Labels
    external_traffic_policy: str
    since: float
    labels: Labels = ()


class SliceFacts(NamedTuple):
    """One EndpointSlice, or one Endpoints object, as backends of its Service: all of them, and those that are sent
    connections. Where a Service has none that are ready, it is those that still serve (KEP-1669).
    """

    namespace: str
    service: str
    backends: tuple[ServiceBackend, ...]
    ready: tuple[ServiceBackend, ...]
    serving: tuple[ServiceBackend, ...] = ()


class OwnerFacts(NamedTuple):
    """A ReplicaSet, Job or other object that itself has, or has not, a controller."""

    uid: str
    namespace: str
    kind: str
    name: str
    owner: OwnerRef | None


class WorkloadFacts(NamedTuple):
    """What a Deployment, StatefulSet, DaemonSet, CronJob, Job or ReplicaSet says of the pods that it makes."""

    namespace: str
    kind: str
    name: str
    owner: OwnerRef | None
    selector: Labels
    template_labels: Labels
    replicas: int | None
    schedule: str
    host_network: bool
    scraped: Labels = ()  # what the pod template says of prometheus.io/
    settings: tuple[str, ...] = ()  # of a DaemonSet: arguments and NAME=value, by which a CNI's features are told
    images: tuple[str, ...] = ()  # of a DaemonSet, by which a CNI is told


class NodeFacts(NamedTuple):
    node: Node
    since: float
    runtime_annotations: Labels  # CNI addresses, kept apart from the node's own


def keep(value: _T) -> _T:
    """The first equal value ever seen: what a large cluster repeats exists once."""
    found = _kept.get(value)
    if found is not None:
        return found  # type: ignore[no-any-return] # the table maps a value to an equal one
    if len(_kept) >= _KEPT_AT_MOST:  # labels that never repeat must not fill the memory
        _kept.clear()
    _kept[value] = value
    return value


def address(text: str) -> IPAddress | None:
    """The address in its one spelling, or None when it is none."""
    found = _addresses.get(text)
    if found is None:
        try:
            found = canonical_address(text)
        except ValueError:
            return None
        if len(_addresses) >= _KEPT_AT_MOST:
            _addresses.clear()
        _addresses[text] = found
    return found


def addresses(texts: Iterable[str | None]) -> tuple[IPAddress, ...]:
    found = [a for text in texts if text for a in (address(text),) if a is not None]
    return tuple(found) if len(found) < 2 else tuple(dict.fromkeys(found))


def networks(texts: Iterable[str | None]) -> tuple[IPNetwork, ...]:
    """CIDRs, host bits masked, without duplicates; what is none is left out."""
    found: dict[IPNetwork, None] = {}
    for text in texts:
        try:
            found[ip_network((text or "").strip(), strict=False)] = None
        except ValueError:
            continue
    return tuple(found)


def epoch_seconds(value: object) -> float | None:
    """A time as Kubernetes writes it (RFC 3339), or as YAML may have read it."""
    match value:
        case str() if value:
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                return None
        case datetime():
            moment = value
        case _:
            return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def labels_of(mapping: Mapping[str, Any] | None) -> Labels:
    """Sorted pairs, kept once. A null value is an empty label."""
    if not mapping:
        return ()
    return _labels(tuple([(str(k), "" if v is None else str(v)) for k, v in mapping.items()]))


@lru_cache(maxsize=1 << 14)
def _labels(said: tuple[tuple[str, str], ...]) -> Labels:
    """The pairs as they were said, in order: those of a workload's pods are said alike."""
    return keep(tuple(sorted((keep(key), keep(value)) for key, value in said)))


def controller_of(metadata: Raw) -> OwnerRef | None:
    """The owner that controls this object. Several owners of which none controls name no controller."""
    references: list[Raw] = list(metadata.get("ownerReferences") or ())
    chosen = next((r for r in references if r.get("controller")), references[0] if len(references) == 1 else None)
    if chosen is None:
        return None
    return _owner(str(chosen["kind"]), str(chosen["name"]), str(chosen.get("uid", "")))


@lru_cache(maxsize=1 << 14)
def _owner(kind: str, name: str, uid: str) -> OwnerRef:
    return keep(OwnerRef(keep(kind), name, uid))


def protocol_of(value: object) -> Protocol | None:
    try:
        return Protocol(str(value or "TCP"))
    except ValueError:
        return None


def pod(raw: Raw) -> PodFacts:
    metadata, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    annotations = metadata.get("annotations") or {}
    phase = status.get("phase", "")
    ended = phase in {"Succeeded", "Failed"}
    texts = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    since = epoch_seconds(status.get("startTime")) or epoch_seconds(metadata.get("creationTimestamp")) or NEVER
    static_uid = next((annotations[key] for key in STATIC_POD_ANNOTATIONS if key in annotations), "")
    return PodFacts(
        uid=str(metadata.get("uid") or ""),
        static_uid=static_uid,
        namespace=keep(str(metadata.get("namespace") or "default")),
        name=str(metadata["name"]),
        node_name=keep(str(spec.get("nodeName") or "")),
        host_network=bool(spec.get("hostNetwork")),
        labels=labels_of(metadata.get("labels")),
        ips=addresses(texts),
        ports=container_ports(spec),
        owner=controller_of(metadata),
        since=since,
        until=_containers_finished(status) if ended else FOREVER,
        ended=ended,
        steady=not ended and "deletionTimestamp" not in metadata and spec.get("restartPolicy", "Always") == "Always",
    )


def container_ports(spec: Raw) -> tuple[ContainerPort, ...]:
    """Ports of containers and of restartable init containers (sidecars); NP-26."""
    containers = list(spec.get("containers") or ())
    containers.extend(i for i in spec.get("initContainers") or () if i.get("restartPolicy") == "Always")
    said = tuple(
        [
            (str(entry.get("name") or ""), number, str(entry.get("protocol") or "TCP"))
            for container in containers
            for entry in container.get("ports") or ()
            if isinstance(number := entry.get("containerPort"), int)
        ]
    )
    return _ports(said) if said else ()


@lru_cache(maxsize=1 << 14)
def _ports(said: tuple[tuple[str, int, str], ...]) -> tuple[ContainerPort, ...]:
    """Names, numbers and protocols as ports: a large cluster says the same few over and over."""
    found = [
        ContainerPort(name=keep(name), port=number, protocol=protocol)
        for name, number, text in said
        if (protocol := protocol_of(text)) is not None
    ]
    return keep(tuple(found)) if found else ()


def _containers_finished(status: Raw) -> float:
    """When the last container of an ended pod finished; FOREVER when the object does not say."""
    finished = []
    for entry in status.get("containerStatuses") or ():
        state = entry.get("state") or {}
        ended_at = epoch_seconds((state.get("terminated") or {}).get("finishedAt"))
        if ended_at is None:
            return FOREVER
        finished.append(ended_at)
    return max(finished) + 1.0 if finished else FOREVER  # metadata times are whole seconds, rounded down


def node(raw: Raw) -> NodeFacts:
    metadata, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    annotations = metadata.get("annotations") or {}
    own = [a.get("address") for a in status.get("addresses") or () if a.get("type") in {"InternalIP", "ExternalIP"}]
    devices = [str(annotations[key]).partition("/")[0] for key in NODE_ADDRESS_ANNOTATIONS if key in annotations]
    return NodeFacts(
        node=Node(
            name=keep(str(metadata["name"])),
            labels=labels_of(metadata.get("labels")),
            addresses=addresses([*own, *devices]),
            pod_cidrs=networks(spec.get("podCIDRs") or [spec.get("podCIDR")]),
        ),
        since=epoch_seconds(metadata.get("creationTimestamp")) or NEVER,
        runtime_annotations=labels_of({k: v for k, v in annotations.items() if k in NODE_ADDRESS_ANNOTATIONS}),
    )


def trimmed(kind: str, raw: Raw) -> dict[str, Any]:
    """The object without its status and without the bookkeeping of who wrote which field; of a definition of a kind,
    whose schemas are long, only who converts it.
    """
    metadata = {k: v for k, v in (raw.get("metadata") or {}).items() if k not in BOOKKEEPING}
    if kind == "CustomResourceDefinition":
        return {**raw, "metadata": metadata, "status": None, "spec": {"conversion": raw["spec"].get("conversion")}}
    return {**{k: v for k, v in raw.items() if k != "status"}, "metadata": metadata}


def namespace(raw: Raw) -> Namespace:
    metadata = raw.get("metadata") or {}
    return Namespace(name=keep(str(metadata["name"])), labels=labels_of(metadata.get("labels")))


def service(raw: Raw) -> ServiceFacts:
    metadata, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    cluster_ips = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]
    balancers = [entry.get("ip") for entry in (status.get("loadBalancer") or {}).get("ingress") or ()]
    return ServiceFacts(
        uid=str(metadata.get("uid") or ""),
        namespace=keep(str(metadata.get("namespace") or "default")),
        name=str(metadata["name"]),
        type=str(spec.get("type") or "ClusterIP"),
        cluster_ips=addresses(cluster_ips),
        external_ips=addresses([*(spec.get("externalIPs") or ()), *balancers]),
        external_name=str(spec.get("externalName") or ""),
        selector=labels_of(spec.get("selector")),
        ports=tuple(p for entry in spec.get("ports") or () for p in (_service_port(entry),) if p is not None),
        annotations=labels_of(metadata.get("annotations")),
        external_traffic_policy=str(spec.get("externalTrafficPolicy") or "Cluster"),
        since=epoch_seconds(metadata.get("creationTimestamp")) or NEVER,
        labels=labels_of(metadata.get("labels")),
    )


def _service_port(entry: Raw) -> ServicePort | None:
    protocol = protocol_of(entry.get("protocol"))
    if protocol is None or not isinstance(entry.get("port"), int):
        return None
    return ServicePort(
        name=keep(str(entry.get("name") or "")),
        port=entry["port"],
        protocol=protocol,
        target_port=entry.get("targetPort"),
        node_port=entry.get("nodePort"),
    )


def endpoint_slice(raw: Raw) -> SliceFacts:
    metadata = raw.get("metadata") or {}
    backends, ready, serving = [], [], []
    for port in raw.get("ports") or ():
        for endpoint in raw.get("endpoints") or ():
            target, conditions = endpoint.get("targetRef") or {}, endpoint.get("conditions") or {}
            found = _backends(endpoint.get("addresses") or (), target, port)
            backends += found
            if conditions.get("ready") is not False:  # unknown is to be taken as ready
                ready += found
            elif conditions.get("serving"):
                serving += found
    service_name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
    namespace = keep(str(metadata.get("namespace") or "default"))
    return SliceFacts(namespace, keep(str(service_name)), tuple(backends), tuple(ready), tuple(serving))


def endpoints(raw: Raw) -> SliceFacts:
    """The older Endpoints object, for what has no EndpointSlice."""
    metadata = raw.get("metadata") or {}
    found: dict[str, list[ServiceBackend]] = {"addresses": [], "notReadyAddresses": []}
    for subset in raw.get("subsets") or ():
        for port in subset.get("ports") or ():
            for key, backends in found.items():
                for entry in subset.get(key) or ():
                    backends.extend(_backends([entry.get("ip")], entry.get("targetRef") or {}, port))
    namespace = keep(str(metadata.get("namespace") or "default"))
    ready, others = found.values()
    return SliceFacts(namespace, str(metadata["name"]), (*ready, *others), tuple(ready))


def _backends(texts: Iterable[str | None], target: Raw, port: Raw) -> list[ServiceBackend]:
    protocol, number = protocol_of(port.get("protocol")), port.get("port")
    if protocol is None or not isinstance(number, int):
        return []
    pod_name = str(target.get("name") or "") if target.get("kind") == "Pod" else ""
    port_name = keep(str(port.get("name") or ""))
    return [
        ServiceBackend(ip=ip, port=number, protocol=protocol, port_name=port_name, pod=pod_name)
        for ip in addresses(texts)
    ]


def owner(raw: Raw, kind: str) -> OwnerFacts:
    metadata = raw.get("metadata") or {}
    name_of_namespace = keep(str(metadata.get("namespace") or "default"))
    uid, name = str(metadata.get("uid") or ""), str(metadata["name"])
    return OwnerFacts(uid, name_of_namespace, kind, name, controller_of(metadata))


def workload(raw: Raw, kind: str) -> WorkloadFacts:
    metadata, spec = raw.get("metadata") or {}, raw.get("spec") or {}
    job = ((spec.get("jobTemplate") or {}).get("spec") or {}) if kind == "CronJob" else spec
    template = job.get("template") or {}
    selector = {} if kind in {"CronJob", "Job"} else (spec.get("selector") or {}).get("matchLabels") or {}
    # The API fills in 1; a manifest that says nothing means the same.
    replicas = spec.get("replicas", 1) if kind in {"Deployment", "StatefulSet", "ReplicaSet"} else None
    return WorkloadFacts(
        namespace=keep(str(metadata.get("namespace") or "default")),
        kind=kind,
        name=str(metadata["name"]),
        owner=controller_of(metadata),
        selector=labels_of(selector),
        template_labels=labels_of((template.get("metadata") or {}).get("labels")),
        replicas=replicas,
        schedule=str(spec.get("schedule") or "") if kind == "CronJob" else "",
        host_network=bool((template.get("spec") or {}).get("hostNetwork")),
        scraped=_scraped(template.get("metadata") or {}),
        settings=_settings(template.get("spec") or {}) if kind == "DaemonSet" else (),
        images=_images(template.get("spec") or {}) if kind == "DaemonSet" else (),
    )


def _scraped(metadata: Raw) -> Labels:
    said = metadata.get("annotations") or {}
    return labels_of({key: value for key, value in said.items() if key.startswith("prometheus.io/")})


def _settings(pod_spec: Raw) -> tuple[str, ...]:
    found = []
    for container in pod_spec.get("containers") or ():
        found += [str(a) for a in (*(container.get("command") or ()), *(container.get("args") or ()))]
        found += [f"{e['name']}={e['value']}" for e in container.get("env") or () if "value" in e]
    return tuple(found)


def _images(pod_spec: Raw) -> tuple[str, ...]:
    return tuple(str(c["image"]) for c in pod_spec.get("containers") or () if c.get("image"))
