"""ClusterView: everything known of one cluster now, and its History.

Enters: raw objects by kind, as added, changed or removed, with the time at which that was seen. Leaves: a
ClusterSnapshot, and the tables that the resolver asks. Invariant: a pod's owner is what the chain of controllers says,
or unknown (None) while a link of the chain has not been seen; once known it stays with the pod for ever. Threads may
share it: who reads or writes holds `lock`.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aggregator.cluster import reduce
from aggregator.cluster.backends import ObjectKey, Services, key_of
from aggregator.cluster.declared import declared_in
from aggregator.cluster.foreign import EXTRA_KINDS, parse_extra
from aggregator.cluster.history import SKEW_SECONDS, History
from aggregator.cluster.labels import LabelHistory
from aggregator.cluster.owners import LOOKED_UP, Owners
from aggregator.cluster.reduce import FOREVER, NEVER, NodeFacts, OwnerFacts, PodFacts, Raw, ServiceFacts, WorkloadFacts
from aggregator.cluster.standing import Standing
from aggregator.errors import InputError
from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.model.cidrs import CidrRole, ClusterCidrs
from aggregator.model.cluster import ClusterSnapshot, Namespace, Pod, WorkloadRecord
from aggregator.model.declared import DeclaredCaller
from aggregator.model.workload import Workload
from aggregator.policy.manifest.parse import parse_policy

if TYPE_CHECKING:
    from aggregator.model.adminpolicy import AdminPolicy
    from aggregator.model.networkpolicy import NetworkPolicy

WORKLOAD_KINDS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job", "ReplicaSet"})
POLICY_KINDS = EXTRA_KINDS | {"NetworkPolicy"}
UNREAD = "which could not be read"
API_SERVER = ("default", "kubernetes")
# What an object that makes no sense raises, from the tables that read it.
NONSENSE = (KeyError, TypeError, ValueError, AttributeError, InputError)

ObjectName = tuple[str, str, str]  # (kind, namespace, name)


class ClusterView:
    """One cluster. `derive`: the source shows all that there is, so what it lacks is derived where that is no guess:
    a Service without EndpointSlices has the backends that its selector picks.
    """

    def __init__(self, cluster: str, *, derive: bool = False, grace_seconds: float = 30.0) -> None:
        self.cluster = cluster
        self.lock = threading.RLock()
        self.history = History(grace_seconds=grace_seconds)
        self.services = Services(self.history)
        self.owners = Owners(cluster)
        self.labels = LabelHistory()
        self.generation = 0
        self.standing = Standing()
        self.confirmed = NEVER  # everything that happened until then has been seen
        self.resumed = False  # only an earlier process's history is here, and the first lists have not come yet
        self.derive = derive
        self.cidrs = ClusterCidrs()
        self.cidr_inputs = 0  # grows when a Node or another source of CIDRs changes
        self.pods: dict[str, Pod] = {}
        self.pod_facts: dict[str, PodFacts] = {}
        self.nodes: dict[str, NodeFacts] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.policies: dict[ObjectKey, NetworkPolicy] = {}
        self.extra_policies: dict[ObjectName, AdminPolicy | ForeignPolicy] = {}
        self.workload_facts: dict[ObjectName, WorkloadFacts] = {}
        self.others: dict[ObjectName, Raw] = {}  # what other parts give a meaning to, without status and bookkeeping
        self.unreadable: dict[ObjectName, str] = {}
        self._pod_names: dict[ObjectKey, str] = {}  # keys of pods without a UID
        self._nameless_pods = 0
        self._snapshot: ClusterSnapshot | None = None
        self._unread: frozenset[str] = frozenset()
        self._declared: tuple[DeclaredCaller, ...] | None = None  # None = to be worked out anew

    @property
    def seen_until(self) -> float:
        """Until then answers can be given: what was confirmed, once this process has seen anything itself."""
        return NEVER if self.resumed else self.confirmed

    # ---- what comes in ----------------------------------------------------------------------------------------------

    def apply(self, kind: str, raw: Raw, *, at: float) -> None:
        """The object exists like this, seen at `at`. Raises one of NONSENSE when it makes no sense."""
        with self.lock:
            before = self.generation
            self._apply(kind, raw, at)
            if self.generation != before and kind != "Pod":
                self._note(kind, raw["metadata"], at)
            if self.unreadable:
                metadata = raw["metadata"]
                self._drop(self.unreadable, (kind, str(metadata.get("namespace") or ""), str(metadata["name"])))

    def _apply(self, kind: str, raw: Raw, at: float) -> None:
        metadata = raw.get("metadata") or {}
        name = (kind, str(metadata.get("namespace") or ""), str(metadata["name"]))
        match kind:
            case "Pod":
                self._apply_pod(reduce.pod(raw), at)
            case "Service":
                self._declared = None
                self._touch(self.services.apply(reduce.service(raw), confirmed=self.confirmed, at=at))
            case "EndpointSlice" | "Endpoints":
                facts = reduce.endpoint_slice(raw) if kind == "EndpointSlice" else reduce.endpoints(raw)
                label = f"{kind}/{name[2]}"
                self._touch(self.services.apply_slice(label, facts, confirmed=self.confirmed, at=at))
            case "Node":
                self._apply_node(reduce.node(raw), at)
            case "Namespace":
                self._put(self.namespaces, name[2], reduce.namespace(raw))
            case "NetworkPolicy":
                policy = parse_policy(raw)
                self._put(self.policies, (policy.namespace, policy.name), policy)
            case _ if kind in WORKLOAD_KINDS:
                self._apply_workload(kind, raw)
            case _ if kind in EXTRA_KINDS:
                self._put(self.extra_policies, name, parse_extra(kind, raw))
            case _:
                self.cidr_inputs += 1
                self._declared = None
                self._put(self.others, name, reduce.trimmed(kind, raw))

    def remove(
        self, kind: str, namespace: str, name: str, *, at: float, uid: str = "", last: Raw | None = None
    ) -> None:
        """The object is gone at `at` at the latest. `last`: what it was like then, where that is known."""
        with self.lock:
            if kind == "Pod" and last is not None:
                self._apply_pod(reduce.pod(last), at)
            self._drop(self.unreadable, (kind, namespace, name))
            before = self.generation
            self._remove((kind, namespace, name), at, uid)
            if self.generation != before and kind != "Pod":
                self.standing.changed(kind, namespace, name, at=at)

    def _note(self, kind: str, metadata: Raw, at: float) -> None:
        self.standing.changed(kind, str(metadata.get("namespace") or ""), str(metadata["name"]), at=at)

    def _remove(self, which: ObjectName, at: float, uid: str) -> None:
        kind, namespace, name = which
        match kind:
            case "Pod":
                self._remove_pod(uid or self._pod_names.get((namespace, name), ""), at)
            case "Service":
                self._declared = None
                self._touch(self.services.remove((namespace, name), at=at))
            case "EndpointSlice" | "Endpoints":
                label = f"{kind}/{name}"
                self._touch(self.services.remove_slice(namespace, label, confirmed=self.confirmed, at=at))
            case "Node":
                gone = self.nodes.pop(name, None)
                if gone is not None:
                    self.history.end_node(gone.node, until=at + SKEW_SECONDS)
                    self.cidr_inputs += 1
                    self._changed()
            case "Namespace":
                self._drop(self.namespaces, name)
            case "NetworkPolicy":
                self._drop(self.policies, (namespace, name))
            case _ if kind in WORKLOAD_KINDS:
                self.owners.forget(kind, namespace, name)
                self._declared = None
                self._drop(self.workload_facts, which)
            case _:
                self.cidr_inputs += 1
                self._declared = None
                self._drop(self.extra_policies if kind in EXTRA_KINDS else self.others, which)

    def known(self, kind: str) -> Iterator[tuple[str, str, str]]:
        """(namespace, name, UID) of all that the view has of this kind; the UID where a name may be used again."""
        match kind:
            case "Pod":
                yield from ((f.namespace, f.name, f.uid) for f in self.pod_facts.values())
            case "Service":
                yield from ((*key, "") for key in self.services.facts)
            case "EndpointSlice" | "Endpoints":
                yield from ((*key, "") for key in self.services.slice_names(kind))
            case "Node":
                yield from (("", name, "") for name in self.nodes)
            case "Namespace":
                yield from (("", name, "") for name in self.namespaces)
            case "NetworkPolicy":
                yield from ((*key, "") for key in self.policies)
            case _:
                tables: tuple[Mapping[ObjectName, Any], ...] = (self.workload_facts, self.extra_policies, self.others)
                yield from ((n[1], n[2], "") for table in tables for n in table if n[0] == kind)
        if kind != "Pod":
            yield from ((n[1], n[2], "") for n in self.unreadable if n[0] == kind)

    def note_unreadable(self, kind: str, namespace: str, name: str, reason: str, *, at: float) -> None:
        """It makes no sense; a policy that does not may say anything."""
        which = (kind, namespace, name)
        with self.lock:
            if self.unreadable.get(which) == reason:
                return
            self._put(self.unreadable, which, reason)
            if kind in POLICY_KINDS:
                self._remove(which, at, "")
                self.standing.changed(*which, at=at)

    def set_unread(self, kinds: frozenset[str]) -> None:
        """Kinds of policies that are there, and of which it is not known now what they say."""
        with self.lock:
            if kinds != self._unread:
                self._unread = kinds
                self._changed()

    def end_what_is_gone(self, at: float) -> None:
        """After a restart: what the restored history holds and the first lists do not is gone at `at` at the latest."""
        with self.lock:
            self.history.end_all_but(
                pods=self.pods.keys(),
                nodes=self.nodes.keys(),
                services={key_of(facts) for facts in self.services.facts.values()},
                until=at + SKEW_SECONDS,
            )
            self.resumed = False
            self._changed()

    def config_map(self, namespace: str, name: str) -> Raw | None:
        """A ConfigMap that is followed by its name, or that a manifest brought."""
        found = self.others.get((f"ConfigMap:{name}", namespace, name))
        return found if found is not None else self.others.get(("ConfigMap", namespace, name))

    def refresh_derived(self, at: float) -> None:
        """Backends by selector, where the source has no slices."""
        if self.derive:
            with self.lock:
                self._touch(self.services.refresh_derived(self.pods.values(), confirmed=self.confirmed, at=at))

    def set_cidrs(self, cidrs: ClusterCidrs) -> None:
        with self.lock:
            if cidrs != self.cidrs:
                self.cidrs = cidrs
                self._changed()

    def _put(self, table: dict[Any, Any], key: object, value: object) -> None:
        if table.get(key) != value:
            table[key] = value
            self._changed()

    def _drop(self, table: dict[Any, Any], key: object) -> None:
        self._touch(table.pop(key, None) is not None)

    def _touch(self, changed: bool) -> None:  # noqa: FBT001 - private: the outcome of the call it wraps
        if changed:
            self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self._snapshot = None

    # ---- pods -------------------------------------------------------------------------------------------------------

    def _apply_pod(self, facts: PodFacts, at: float) -> None:
        key = facts.uid or self._key_of_nameless(facts)
        before = self.pod_facts.get(key)
        if before is not None and before.ips and not facts.ips:
            facts = facts._replace(ips=before.ips)  # a pod that ends may lose its address in the object
        until = min(facts.until, at) + SKEW_SECONDS if facts.ended else FOREVER
        since = facts.since if facts.since > NEVER else min(self.confirmed, at)
        workload = self.owners.top(facts)
        if workload is None:
            self.owners.wait(key, facts)
        gone = self.history.pod_ends.get(key) if before is None else None
        if gone is not None:  # a late event about a pod that is gone: a UID never comes back
            self._touch(self.history.see_pod(key, facts, workload, since=since, until=min(until, gone), at=at))
            return
        changed = self.history.see_pod(key, facts, workload, since=since, until=until, at=at)
        for ip in set(before.ips) - set(facts.ips) if before is not None else ():
            changed |= self.history.lose_address(key, ip, at + SKEW_SECONDS)
        pod = _pod(facts, workload or self.history.pods[key].workload or self.owners.nearest(facts))
        if self.pods.get(key) != pod:
            known = self.pods.get(key)
            self.standing.changed("Pod", pod.namespace, pod.name, at=at, before=known is not None and bool(known.ips))
            self.pods[key] = pod
            changed = True
        if workload is not None:
            self.labels.see(workload, facts.labels, at)
        self.pod_facts[key] = facts
        if not facts.uid:
            self._pod_names[(facts.namespace, facts.name)] = key
        self._touch(changed)

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
            if key:
                # Its other events may still come, late.
                self.history.pod_ends[key] = min(at + SKEW_SECONDS, self.history.pod_ends.get(key, FOREVER))
            return
        del self.pods[key]
        self.standing.forget_pod((facts.namespace, facts.name))
        if self._pod_names.get((facts.namespace, facts.name)) == key:
            del self._pod_names[(facts.namespace, facts.name)]
        self.history.end_pod(key, facts.ips, until=at + SKEW_SECONDS)
        self._changed()

    def node_of_pod(self, namespace: str, name: str, uid: str) -> str:
        """The node on which this very pod runs, or ""."""
        with self.lock:
            facts = self.pod_facts.get(uid)
        matches = facts is not None and (facts.namespace, facts.name) == (namespace, name)
        return facts.node_name if facts is not None and matches and not facts.ended else ""

    def steady(self, key: str) -> bool:
        """Nothing says that this pod is about to let go of its address."""
        facts = self.pod_facts.get(key)
        return facts is not None and facts.steady

    def nearest_owner(self, key: str) -> Workload | None:
        """For a pod whose chain of controllers has a gap that nothing will fill: the last one seen."""
        facts = self.pod_facts.get(key)
        return self.owners.nearest(facts) if self.derive and facts is not None else None

    def _apply_workload(self, kind: str, raw: Raw) -> None:
        facts = reduce.workload(raw, kind)
        if self.workload_facts.get((kind, facts.namespace, facts.name)) != facts:
            self._declared = None
        self._put(self.workload_facts, (kind, facts.namespace, facts.name), facts)
        if kind in LOOKED_UP:
            self.see_owner(reduce.owner(raw, kind))

    def see_owner(self, owner: OwnerFacts) -> None:
        """A controller exists: the pods that waited for it have an owner now, also those that are gone."""
        for key, facts in self.owners.see(owner).items():
            workload = self.owners.top(facts)
            if workload is None:
                self.owners.wait(key, facts)
                continue
            changed = self.history.learn_owner(key, workload)
            self.labels.see(workload, facts.labels, max(facts.since, 0.0))
            if key in self.pods and self.pods[key].workload != workload:
                self.pods[key] = replace(self.pods[key], workload=workload)
                changed = True
            self._touch(changed)

    # ---- nodes ------------------------------------------------------------------------------------------------------

    def _apply_node(self, facts: NodeFacts, at: float) -> None:
        before = self.nodes.get(facts.node.name)
        if before is not None:
            lost = set(before.node.addresses) - set(facts.node.addresses)
            for ip in lost & self.history.node_ips.keys():
                self.history.node_ips[ip].end(facts.node.name, at + SKEW_SECONDS)
        if before != facts:
            self.cidr_inputs += 1
            self._put(self.nodes, facts.node.name, facts)
        since = facts.since if facts.since > NEVER else min(self.confirmed, at)
        self.history.see_node(facts.node, since=since)

    # ---- what goes out ----------------------------------------------------------------------------------------------

    @property
    def api_server(self) -> ServiceFacts | None:
        """The Service default/kubernetes."""
        return self.services.facts.get(API_SERVER)

    def objects(self, kind: str) -> tuple[Raw, ...]:
        """Objects of a kind that the view keeps without a meaning of its own: Ingress, webhooks, ServiceMonitor, ..."""
        with self.lock:
            return tuple(raw for name, raw in sorted(self.others.items(), key=lambda item: item[0]) if name[0] == kind)

    def snapshot(self) -> ClusterSnapshot:
        """The cluster now; the same object until something changes."""
        with self.lock:
            if self._snapshot is None:
                self._snapshot = self._made_snapshot()
            return self._snapshot

    def _made_snapshot(self) -> ClusterSnapshot:
        records = (self._record(facts) for _, facts in sorted(self.workload_facts.items()))
        return ClusterSnapshot(
            name=self.cluster,
            namespaces=_in_order(self.namespaces),
            nodes=tuple(self.nodes[name].node for name in sorted(self.nodes)),
            pods=tuple(sorted(self.pods.values(), key=lambda p: (p.namespace, p.name, p.uid))),
            services=_in_order(self.services.now),
            workloads=tuple(record for record in records if record is not None),
            policies=_in_order(self.policies),
            pod_cidrs=self.cidrs.of(CidrRole.POD),
            service_cidrs=self.cidrs.of(CidrRole.SERVICE),
            cidrs_complete=self.cidrs.complete,
            cidr_sources=self.cidrs.sources,
            declared_callers=self._declared_callers(),
            extra_policies=(*_in_order(self.extra_policies), *self._opaque_policies()),
        )

    def _opaque_policies(self) -> Iterator[ForeignPolicy]:
        """What may be said by what cannot be read: a verdict that it could change is UNKNOWN."""
        for kind, namespace, name in sorted(self.unreadable):
            if kind in POLICY_KINDS:
                yield ForeignPolicy(kind=kind, name=name, namespace=namespace)
        for kind in sorted(self._unread):
            yield ForeignPolicy(kind=kind, name=UNREAD)

    def _declared_callers(self) -> tuple[DeclaredCaller, ...]:
        """Worked out anew only when something has changed that may declare or be declared."""
        if self._declared is None:
            self._declared = declared_in(self.others, self.services.facts, self.workload_facts)
        return self._declared

    def _record(self, facts: WorkloadFacts) -> WorkloadRecord | None:
        """A ReplicaSet of a Deployment and a Job of a CronJob are no workloads of their own."""
        if facts.kind in LOOKED_UP and facts.owner is not None:
            return None
        workload = self.owners.workload(facts.namespace, facts.kind, facts.name)
        return WorkloadRecord(
            workload=workload,
            selector=facts.selector,
            template_labels=facts.template_labels,
            replicas=facts.replicas,
            schedule=facts.schedule,
            host_network=facts.host_network,
            changing_labels=self.labels.changing(workload),
        )


def _in_order(table: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(table[key] for key in sorted(table))


def _pod(facts: PodFacts, workload: Workload) -> Pod:
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
