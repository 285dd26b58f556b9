"""ClusterSource: where a cluster view comes from, whatever feeds it (a watch, or manifests)."""

from typing import Protocol

from aggregator.cluster.discover import CidrDiscovery
from aggregator.cluster.view import ClusterView
from aggregator.model.cidrs import ClusterCidrs
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.finding import Finding
from aggregator.model.resolution import Resolver


class ClusterSource(Protocol):
    """One cluster. `run` keeps it fresh until cancelled; the rest can be asked at any time."""

    @property
    def cluster(self) -> str: ...

    @property
    def snapshot(self) -> ClusterSnapshot:
        """The cluster now; the same object until something changes."""
        ...

    @property
    def view(self) -> ClusterView:
        """Everything that is known of the cluster, and since when."""
        ...

    @property
    def resolver(self) -> Resolver: ...

    @property
    def cidrs(self) -> ClusterCidrs:
        """The cluster's own ranges: what `cidrs.classify` asks."""
        ...

    @property
    def discovery(self) -> CidrDiscovery:
        """Where to put what a person sets by hand and what agents saw."""
        ...

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What a person should know about the view itself."""
        ...

    @property
    def age_seconds(self) -> float:
        """How long ago the view was last known to be right."""
        ...

    @property
    def stale(self) -> bool:
        """The view is too old to judge by: verdicts are UNKNOWN."""
        ...

    async def run(self) -> None: ...
