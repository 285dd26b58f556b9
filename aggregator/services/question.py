"""Question: everything that one answer is computed from, restricted to what its caller may see.

Enters: a Caller, the cluster's source, the store, the decisions. Leaves: one consistent cut of them all. Invariant: the
pure core is only ever given what comes from here, so an answer cannot depend on what is hidden.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Protocol

from aggregator.errors import NotFoundError
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy
from aggregator.model.cidrs import ClusterCidrs
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Decisions
from aggregator.model.finding import Finding
from aggregator.model.link import ObservedLink
from aggregator.model.proposal import DeclaredLink, Generation
from aggregator.model.workload import Workload
from aggregator.policy.generation.addresses import Addresses
from aggregator.policy.generation.declared import declared_links
from aggregator.policy.generation.selectors import Selectors
from aggregator.policy.profiles.profile import Profile
from aggregator.services.authority.caller import Caller
from aggregator.services.authority.sight import Sight
from aggregator.services.policies.applied import AppliedPolicies
from aggregator.services.verdicts import Verdicts
from aggregator.store.agents import AgentStatus
from aggregator.store.decisions import DecisionState
from aggregator.store.links import Scope, Span
from aggregator.store.overview import Overview

SERVICE_KIND = "Service"


class LinkStore(Protocol):
    """What the services ask of the store; blocking."""

    def links(self, scope: Scope, span: Span | None = None) -> list[ObservedLink]: ...

    def agents(self, cluster: str) -> list[AgentStatus]: ...

    def losses(self, cluster: str, span: Span) -> dict[str, int]: ...

    def pending_count(self, cluster: str) -> int: ...

    def recording_since(self, cluster: str) -> datetime | None: ...


class View(Protocol):
    """What the services ask of the cluster's source; cluster.source.ClusterSource is one."""

    @property
    def cluster(self) -> str: ...

    @property
    def snapshot(self) -> ClusterSnapshot: ...

    @property
    def cidrs(self) -> ClusterCidrs: ...

    @property
    def findings(self) -> tuple[Finding, ...]: ...

    @property
    def age_seconds(self) -> float: ...

    @property
    def stale(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRef:
    """A workload, or a Service as the union of its backends, as a person names it."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a scope: `clear` is what may be computed with, `masked` is only shown."""

    clear: Sequence[ObservedLink]
    masked: Sequence[ObservedLink]


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What is computed from a snapshot and decisions alone, once for both; each part when it is first asked for."""

    cluster: ClusterSnapshot
    decisions: Decisions
    profile: Profile

    def under(self, decisions: Decisions) -> "Derived":
        """The same cluster with other decisions: what does not depend on those that changed is not computed again."""
        made = Derived(cluster=self.cluster, decisions=decisions, profile=self.profile)
        same = {"applied", "selecting", "known_workloads"}
        if decisions.labels == self.decisions.labels:
            same.add("selectors")
        if (decisions.aliases, decisions.cluster_cidrs) == (self.decisions.aliases, self.decisions.cluster_cidrs):
            same.add("addresses")
        vars(made).update({name: value for name, value in vars(self).items() if name in same})
        return made

    @cached_property
    def selectors(self) -> Selectors:
        return Selectors(self.cluster, self.decisions.labels.workload_labels)

    @cached_property
    def addresses(self) -> Addresses:
        return Addresses(self.cluster, self.decisions)

    @cached_property
    def applied(self) -> Verdicts:
        """Under the policies that are in force now, of every kind that is understood."""
        extra = (p for p in self.cluster.extra_policies if isinstance(p, AdminPolicy | ForeignPolicy))
        return Verdicts(self.cluster, (*self.cluster.policies, *extra), self.profile)

    @cached_property
    def selecting(self) -> AppliedPolicies:
        return AppliedPolicies(cluster=self.cluster)

    @cached_property
    def declared(self) -> tuple[DeclaredLink, ...]:
        """What the cluster's own objects announce, seen or not."""
        return declared_links(self.cluster, frozenset())

    @cached_property
    def known_workloads(self) -> frozenset[Workload]:
        """Those that the cluster shows now."""
        return frozenset(r.workload for r in self.cluster.workloads) | frozenset(self.cluster.pods_by_workload)


@dataclass(frozen=True, kw_only=True)
class OneCut:
    """What one request has read and generated already: the parts of its answer tell one story, and cost once."""

    rows: dict[Hashable, Rows] = field(default_factory=dict)
    generations: dict[Hashable, tuple[Rows, Generation]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Question:
    caller: Caller
    sight: Sight
    state: DecisionState
    stale: bool
    derived: Derived
    now: datetime
    overview: Overview = field(repr=False)
    read_links: Callable[[Scope, Span | None], Sequence[ObservedLink]] = field(repr=False)
    cut: OneCut = field(default_factory=OneCut, repr=False)

    @property
    def cluster(self) -> ClusterSnapshot:
        return self.derived.cluster

    @property
    def decisions(self) -> Decisions:
        return self.derived.decisions

    @property
    def profile(self) -> Profile:
        return self.derived.profile

    @property
    def selectors(self) -> Selectors:
        return self.derived.selectors

    @property
    def addresses(self) -> Addresses:
        return self.derived.addresses

    @property
    def applied(self) -> Verdicts:
        return self.derived.applied

    @property
    def known_workloads(self) -> frozenset[Workload]:
        return self.derived.known_workloads

    def rows(self, *, namespace: str | None = None, workloads: Sequence[Workload] = (), span: Span | None) -> Rows:
        """Every link with an end in one of the workloads, else in the namespace, else all of the cluster."""
        key = (namespace, tuple(workloads), span)
        known = self.cut.rows.get(key)
        if known is None:
            known = self.cut.rows[key] = self._rows(namespace, workloads, span)
        return known

    def _rows(self, namespace: str | None, workloads: Sequence[Workload], span: Span | None) -> Rows:
        name = self.cluster.name
        if workloads:
            scopes = [Scope(cluster=name, workload=workload) for workload in workloads]
        else:
            scopes = [Scope(cluster=name, namespace=namespace)]
        found: dict[object, ObservedLink] = {}
        for scope in scopes:
            found.update((row.link, row) for row in self.read_links(scope, span))
        clear, masked = self.sight.rows(sorted(found.values(), key=lambda row: row.link.sort_key()))
        return Rows(clear=clear, masked=masked)

    def workloads_of(self, ref: WorkloadRef) -> tuple[Workload, ...]:
        """The workload itself, or the backends of a Service. Raises NotFoundError for a Service that is not there."""
        if ref.kind == SERVICE_KIND:
            return self._backends_of(ref)
        return (Workload(cluster=self.cluster.name, namespace=ref.namespace, kind=ref.kind, name=ref.name),)

    def _backends_of(self, ref: WorkloadRef) -> tuple[Workload, ...]:
        for service in self.cluster.services:
            if (service.namespace, service.name) == (ref.namespace, ref.name):
                pods = (pod for b in service.backends for pod in self.cluster.pods_by_ip.get(b.ip, ()))
                found = {pod.workload for pod in pods if not pod.host_network}
                if not found and service.selector:
                    found = set(self._selected_by(ref.namespace, service.selector))
                return tuple(sorted(found))
        raise NotFoundError(f"there is no Service {ref.name} in the namespace {ref.namespace}")

    def _selected_by(self, namespace: str, selector: tuple[tuple[str, str], ...]) -> Iterable[Workload]:
        """A Service scaled to zero has no backends: what its selector picks by template."""
        for record in self.cluster.workloads:
            labels = set(record.template_labels)
            if record.workload.namespace == namespace and labels.issuperset(selector):
                yield record.workload
