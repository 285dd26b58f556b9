"""Applied policies: which of them select a workload, and in which directions they isolate it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from aggregator.model.cluster import ClusterSnapshot, Labels
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload


@dataclass(frozen=True, kw_only=True)
class AppliedPolicies:
    """Of one snapshot. A workload without pods is judged by its template; hostNetwork pods are never selected."""

    cluster: ClusterSnapshot

    @cached_property
    def _by_namespace(self) -> Mapping[str, tuple[NetworkPolicy, ...]]:
        found: dict[str, list[NetworkPolicy]] = {}
        for policy in self.cluster.policies:
            found.setdefault(policy.namespace, []).append(policy)
        return {name: tuple(policies) for name, policies in found.items()}

    @cached_property
    def _variants(self) -> Mapping[Workload, tuple[Labels, ...]]:
        found: dict[Workload, dict[Labels, None]] = {}
        for pod in self.cluster.pods:
            if not pod.host_network and not pod.ended:
                found.setdefault(pod.workload, {})[pod.labels] = None
        for record in self.cluster.workloads:
            if record.workload not in found and not record.host_network:
                found[record.workload] = {record.template_labels or record.selector: None}
        return {workload: tuple(variants) for workload, variants in found.items()}

    def selecting(self, workload: Workload) -> tuple[NetworkPolicy, ...]:
        """Those that select at least one of its pods."""
        variants = [dict(labels) for labels in self._variants.get(workload, ())]
        return tuple(
            policy
            for policy in self._by_namespace.get(workload.namespace, ())
            if any(policy.pod_selector.matches(labels) for labels in variants)
        )

    def selected_by(self, policy: NetworkPolicy) -> tuple[Workload, ...]:
        return tuple(
            sorted(
                workload
                for workload, variants in self._variants.items()
                if workload.namespace == policy.namespace
                and any(policy.pod_selector.matches(dict(labels)) for labels in variants)
            )
        )

    def isolated(self, workload: Workload) -> tuple[Direction, ...]:
        return directions_of(self.selecting(workload))


def directions_of(policies: Iterable[NetworkPolicy]) -> tuple[Direction, ...]:
    """The directions that at least one of the policies isolates, ingress first."""
    found = {direction for policy in policies for direction in policy.directions}
    return tuple(direction for direction in (Direction.INGRESS, Direction.EGRESS) if direction in found)
