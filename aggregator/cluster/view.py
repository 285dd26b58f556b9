"""ClusterView: everything known of one cluster now, and its History.

Enters: raw objects by kind, as added, changed or removed, with the time at which that was seen. Leaves: a
ClusterSnapshot and answers about owners. Invariant: a pod's owner is what the chain of controllers says, or unknown
(None) while a link of the chain has not been seen; once known it stays with the pod for ever.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aggregator.cluster import reduce
from aggregator.cluster.backends import backends_by_selector
from aggregator.cluster.cidrs import CidrRole, ClusterCidrs
from aggregator.cluster.history import SKEW_SECONDS, History, ServiceKey
from aggregator.cluster.reduce import (
    FOREVER,
    NodeFacts,
    OwnerFacts,
    OwnerRef,
    PodFacts,
    Raw,
    ServiceFacts,
    SliceFacts,
    WorkloadFacts,
)
from aggregator.model.address import IPAddress
from aggregator.model.cluster import (
    ClusterSnapshot,
    Namespace,
    Pod,
    Service,
    ServiceBackend,
    WorkloadRecord,
)
from aggregator.model.workload import Workload
from aggregator.policy.parse import parse_policy

if TYPE_CHECKING:
    from aggregator.model.networkpolicy import NetworkPolicy

# Kinds whose own controller may be looked up, because the view keeps them.
LOOKED_UP = frozenset({"ReplicaSet", "Job"})
WORKLOAD_KINDS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job", "ReplicaSet"})
API_SERVER = ("default", "kubernetes")

ObjectKey = tuple[str, str]  # (namespace, name)


class ClusterView:
    """One cluster. `derive`: the source shows all that there is, so what it lacks is derived where that is no guess:
    a Service without EndpointSlices has the backends that its selector picks.
    """

    def __init__(self, cluster: str, *, derive: bool = False, grace_seconds: float = 30.0) -> None:
        self.cluster = cluster
        self.history = History(grace_seconds=grace_seconds)
        self.generation = 0
        self.confirmed = reduce.NEVER  # everything until then has been seen
        self.cidrs = ClusterCidrs()
        self.derive = derive
        self.pods: dict[str, Pod] = {}
        self.pod_facts: dict[str, PodFacts] = {}
        self.services: dict[ObjectKey, ServiceFacts] = {}
        self.nodes: dict[str, NodeFacts] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.policies: dict[ObjectKey, NetworkPolicy] = {}
        self.workload_facts: dict[tuple[str, str, str], WorkloadFacts] = {}
        self.others: dict[tuple[str, str, str], Raw] = {}  # what other parts parse: (kind, namespace, name)
        self.unreadable: dict[tuple[str, str, str], str] = {}
        self._pod_names: dict[ObjectKey, str] = {}
        self._nameless_pods = 0
        self._slices: dict[ObjectKey, dict[str, SliceFacts]] = {}
        self._owners: dict[str, OwnerFacts] = {}
        self._waiting: dict[str, set[str]] = {}  # owner key -> pods whose owner is not known before it is seen
        self._workloads: dict[Workload, Workload] = {}
        self._services_now: dict[ObjectKey, Service] = {}
        self._snapshot: ClusterSnapshot | None = None

    # ---- what comes in ----------------------------------------------------------------------------------------------

    def apply(self, kind: str, raw: Raw, *, at: float) -> None:
        """The object exists like this, seen at `at`. Raises KeyError, TypeError or ValueError on nonsense."""
        match kind:
            case "Pod":
                self._apply_pod(reduce.pod(raw), at)
            case "Service":
                self._apply_service(reduce.service(raw), at)
            case "EndpointSlice" | "Endpoints":
                self._apply_slice(kind, raw, at)
            case "Node":
                self._apply_node(reduce.node(raw), at)
            case "Namespace":
                namespace = reduce.namespace(raw)
                self._put(self.namespaces, namespace.name, namespace)
            case "NetworkPolicy":
                policy = parse_policy(raw)
                self._put(self.policies, (policy.namespace, policy.name), policy)
            case _ if kind in WORKLOAD_KINDS:
                self._apply_workload(kind, raw, at)
            case _:
                metadata = raw.get("metadata") or {}
                self._put(self.others, (kind, str(metadata.get("namespace") or ""), str(metadata["name"])), raw)

    def remove(self, kind: str, namespace: str, name: str, *, at: float, uid: str = "") -> None:
        """The object is gone at `at` at the latest."""
        match kind:
            case "Pod":
                self._remove_pod(uid or self._pod_names.get((namespace, name), ""), at)
            case "Service":
                self._remove_service((namespace, name), at)
            case "EndpointSlice" | "Endpoints":
                self._remove_slice(namespace, f"{kind}/{name}", at)
            case "Node":
                self._remove_node(name, at)
            case "Namespace":
                self._drop(self.namespaces, name)
            case "NetworkPolicy":
                self._drop(self.policies, (namespace, name))
            case _ if kind in WORKLOAD_KINDS:
                self._owners.pop(f"{namespace}/{kind}/{name}", None)
                self._owners.pop(uid, None)
                self._drop(self.workload_facts, (kind, namespace, name))
            case _:
                self._drop(self.others, (kind, namespace, name))

    def _put(self, table: dict[Any, Any], key: object, value: object) -> None:
        if table.get(key) != value:
            table[key] = value
            self._changed()

    def _drop(self, table: dict[Any, Any], key: object) -> None:
        if table.pop(key, None) is not None:
            self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self._snapshot = None

    # ---- pods and their owners --------------------------------------------------------------------------------------

    def _apply_pod(self, facts: PodFacts, at: float) -> None:
        key = facts.uid or self._key_of_nameless(facts)
        if key in self.history.pod_ends and key not in self.pods:
            return  # a late event about a pod that is gone: a UID never comes back
        until = min(facts.until, at) + SKEW_SECONDS if facts.ended else FOREVER
        since = facts.since if facts.since > reduce.NEVER or not self.pods else self.confirmed
        workload = self.workload_of(facts)
        if workload is None and facts.owner is not None:
            self._waiting.setdefault(_owner_key(facts.namespace, facts.owner), set()).add(key)
        changed = self.history.see_pod(key, facts, workload, since=since, until=until)
        pod = self._pod(facts, workload or self._nearest_owner(facts))
        if self.pods.get(key) != pod:
            self.pods[key] = pod
            changed = True
        self.pod_facts[key] = facts
        self._pod_names[(facts.namespace, facts.name)] = key
        if changed:
            self._changed()

    def _key_of_nameless(self, facts: PodFacts) -> str:
        """A manifest may lack UIDs: one is made up for as long as the pod is there."""
        known = self._pod_names.get((facts.namespace, facts.name))
        if known is not None:
            return known
        self._nameless_pods += 1
        return f"{facts.namespace}/{facts.name}#{self._nameless_pods}"

    def _remove_pod(self, key: str, at: float) -> None:
        facts = self.pod_facts.pop(key, None)
        if facts is None:
            return
        del self.pods[key]
        if self._pod_names.get((facts.namespace, facts.name)) == key:
            del self._pod_names[(facts.namespace, facts.name)]
        self.history.end_pod(key, facts.ips, until=at + SKEW_SECONDS)
        self._changed()

    def workload_of(self, facts: PodFacts) -> Workload | None:
        """The top owner; None while a controller in between has not been seen."""
        if facts.owner is None or facts.owner.kind == "Node":  # a static pod's mirror is owned by its node
            return self._workload(facts.namespace, "Pod", facts.name)
        return self._top(facts.namespace, facts.owner)

    def _top(self, namespace: str, ref: OwnerRef) -> Workload | None:
        for _ in range(4):  # Pod -> Job -> CronJob is the longest chain; a loop must end all the same
            if ref.kind not in LOOKED_UP:
                break
            facts = self._owners.get(_owner_key(namespace, ref))
            if facts is None:
                return None
            if facts.owner is None:
                break
            ref = facts.owner
        return self._workload(namespace, ref.kind, ref.name)

    def _nearest_owner(self, facts: PodFacts) -> Workload:
        """The controller that the pod itself names: what a snapshot shows until the chain is known."""
        if facts.owner is None:
            return self._workload(facts.namespace, "Pod", facts.name)
        return self._workload(facts.namespace, facts.owner.kind, facts.owner.name)

    def nearest_owner(self, key: str) -> Workload | None:
        """For a pod whose chain of controllers has a gap that nothing will fill: the last one seen."""
        facts = self.pod_facts.get(key)
        return self._nearest_owner(facts) if self.derive and facts is not None else None

    def _workload(self, namespace: str, kind: str, name: str) -> Workload:
        made = Workload(cluster=self.cluster, namespace=namespace, kind=kind, name=name)
        return self._workloads.setdefault(made, made)

    def _pod(self, facts: PodFacts, workload: Workload) -> Pod:
        return Pod(
            namespace=facts.namespace,
            name=facts.name,
            workload=workload,
            uid=facts.uid,
            labels=facts.labels,
            ips=facts.ips,
            ports=facts.ports,
            host_network=facts.host_network,
            node_name=facts.node_name,
            ended=facts.ended,
        )

    def _apply_workload(self, kind: str, raw: Raw, at: float) -> None:
        facts = reduce.workload(raw, kind)
        self._put(self.workload_facts, (kind, facts.namespace, facts.name), facts)
        if kind not in LOOKED_UP:
            return
        owner = reduce.owner(raw, kind)
        names = [f"{owner.namespace}/{kind}/{owner.name}"]
        if owner.uid:
            names.append(owner.uid)
        for name in names:
            self._owners[name] = owner
            for key in self._waiting.pop(name, ()):
                if key in self.pod_facts:
                    self._apply_pod(self.pod_facts[key], at)

    # ---- services ---------------------------------------------------------------------------------------------------

    def _apply_service(self, facts: ServiceFacts, at: float) -> None:
        key = (facts.namespace, facts.name)
        before = self.services.get(key)
        if before is not None and before.uid != facts.uid:
            self._remove_service(key, at)
        self._put(self.services, key, facts)
        ips = (*facts.cluster_ips, *facts.external_ips)
        self.history.see_service(_service_key(facts), ips, since=facts.since, until=FOREVER)
        self.refresh_backends(key, at)

    def _remove_service(self, key: ObjectKey, at: float) -> None:
        facts = self.services.pop(key, None)
        self._services_now.pop(key, None)
        if facts is not None:
            self.history.end_service(_service_key(facts), until=at + SKEW_SECONDS)
            self._changed()

    def _remove_slice(self, namespace: str, name: str, at: float) -> None:
        for service, slices in self._slices.items():
            if service[0] == namespace and slices.pop(name, None) is not None:
                self.refresh_backends(service, at)

    def _apply_slice(self, kind: str, raw: Raw, at: float) -> None:
        facts = reduce.endpoint_slice(raw) if kind == "EndpointSlice" else reduce.endpoints(raw)
        key = (facts.namespace, facts.service)
        name = f"{kind}/{raw['metadata']['name']}"
        slices = self._slices.setdefault(key, {})
        if slices.get(name) != facts:
            slices[name] = facts
            self.refresh_backends(key, at)

    def refresh_backends(self, key: ObjectKey, at: float) -> None:
        """What stands behind the Service now, into the history when it changed."""
        facts = self.services.get(key)
        if facts is None:
            return
        backends = self._backends(facts)
        confirmed = facts.since if _service_key(facts) not in self.history.services else min(self.confirmed, at)
        service = _service(facts, backends)
        if self._services_now.get(key) != service:
            self._services_now[key] = service
            self._changed()
        self.history.see_backends(_service_key(facts), facts.ports, backends, confirmed=confirmed, at=at)

    def _backends(self, facts: ServiceFacts) -> tuple[ServiceBackend, ...]:
        slices = self._slices.get((facts.namespace, facts.name), {})
        found = [b for name, s in sorted(slices.items()) if name.startswith("EndpointSlice/") for b in s.backends]
        if not found:
            found = [b for _, s in sorted(slices.items()) for b in s.backends]
        if not slices and self.derive and facts.selector:
            found = list(backends_by_selector(facts, self.pods.values()))
        return tuple(dict.fromkeys(found))

    def refresh_derived_backends(self, at: float) -> None:
        if self.derive:
            for key in self.services.keys() - {key for key, slices in self._slices.items() if slices}:
                self.refresh_backends(key, at)

    @property
    def api_server(self) -> tuple[ServiceFacts | None, tuple[ServiceBackend, ...]]:
        """The Service default/kubernetes and what stands behind it now."""
        facts = self.services.get(API_SERVER)
        return facts, self._services_now[API_SERVER].backends if facts else ()

    # ---- nodes ------------------------------------------------------------------------------------------------------

    def _apply_node(self, facts: NodeFacts, at: float) -> None:
        before = self.nodes.get(facts.node.name)
        if before is not None:
            lost = set(before.node.addresses) - set(facts.node.addresses)
            for ip in lost & self.history.node_ips.keys():
                self.history.node_ips[ip].add(facts.node.name, reduce.NEVER, at + SKEW_SECONDS)
        self._put(self.nodes, facts.node.name, facts)
        self.history.see_node(facts.node, since=facts.since)

    def _remove_node(self, name: str, at: float) -> None:
        gone = self.nodes.pop(name, None)
        if gone is not None:
            self.history.end_node(gone.node, until=at + SKEW_SECONDS)
            self._changed()

    def node_name_of(self, ip: IPAddress) -> str:
        """The node that has this address now, or ""."""
        return next((f.node.name for f in self.nodes.values() if ip in f.node.addresses), "")

    # ---- what goes out ----------------------------------------------------------------------------------------------

    def set_cidrs(self, cidrs: ClusterCidrs) -> None:
        if cidrs != self.cidrs:
            self.cidrs = cidrs
            self._changed()

    def snapshot(self) -> ClusterSnapshot:
        """The cluster now."""
        if self._snapshot is None:
            self._snapshot = ClusterSnapshot(
                name=self.cluster,
                namespaces=_in_order(self.namespaces),
                nodes=tuple(self.nodes[name].node for name in sorted(self.nodes)),
                pods=tuple(sorted(self.pods.values(), key=lambda p: (p.namespace, p.name, p.uid))),
                services=_in_order(self._services_now),
                workloads=tuple(
                    record
                    for _, facts in sorted(self.workload_facts.items())
                    for record in (self._record(facts),)
                    if record is not None
                ),
                policies=_in_order(self.policies),
                pod_cidrs=self.cidrs.of(CidrRole.POD),
                service_cidrs=self.cidrs.of(CidrRole.SERVICE),
                cidrs_complete=self.cidrs.complete,
            )
        return self._snapshot

    def _record(self, facts: WorkloadFacts) -> WorkloadRecord | None:
        """A ReplicaSet of a Deployment and a Job of a CronJob are no workloads of their own."""
        if facts.kind in LOOKED_UP and facts.owner is not None:
            return None
        return WorkloadRecord(
            workload=self._workload(facts.namespace, facts.kind, facts.name),
            selector=facts.selector,
            template_labels=facts.template_labels,
            replicas=facts.replicas,
            schedule=facts.schedule,
            host_network=facts.host_network,
        )


def _in_order(table: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(table[key] for key in sorted(table))


def _owner_key(namespace: str, ref: OwnerRef) -> str:
    return ref.uid or f"{namespace}/{ref.kind}/{ref.name}"


def _service_key(facts: ServiceFacts) -> ServiceKey:
    return ServiceKey(facts.namespace, facts.name, facts.uid)


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
