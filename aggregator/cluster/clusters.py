"""Several clusters in one aggregator: each has its own view, and an agent's flows are asked of its own cluster's.

Enters: ClusterSources by name. Leaves: one Resolver over them, and one `run`. Invariant: nothing known of one cluster
answers for another; a flow of a cluster that nobody configured is refused and counted.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from aggregator.cluster.source import ClusterSource
from aggregator.errors import ConfigurationError
from aggregator.model.finding import Finding
from aggregator.model.resolution import FlowIdentity, Refused, Resolution


class Clusters(Mapping[str, ClusterSource]):
    """The sources by the name of their cluster."""

    def __init__(self, sources: Iterable[ClusterSource]) -> None:
        self._sources: dict[str, ClusterSource] = {}
        for source in sources:
            if source.cluster in self._sources:
                raise ConfigurationError(f"the cluster {source.cluster!r} is configured twice")
            self._sources[source.cluster] = source

    def __getitem__(self, cluster: str) -> ClusterSource:
        return self._sources[cluster]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def resolver(self) -> "ClustersResolver":
        return ClustersResolver(self)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for cluster in sorted(self) for finding in self[cluster].findings)

    async def run(self) -> None:
        """Follow them all until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, source in self.items():
                tasks.create_task(source.run(), name=f"cluster view of {name}")


class ClustersResolver:
    """Implements Resolver: each flow is asked of its own cluster."""

    def __init__(self, clusters: Mapping[str, ClusterSource]) -> None:
        self._clusters = clusters

    @property
    def generation(self) -> int:
        return sum(source.resolver.generation for source in self._clusters.values())

    def resolve(self, flow: FlowIdentity, at: datetime) -> Resolution:
        source = self._clusters.get(flow.cluster)
        return Refused(reason="unknown-cluster") if source is None else source.resolver.resolve(flow, at)

    def known_until(self, cluster: str) -> datetime | None:
        source = self._clusters.get(cluster)
        return None if source is None else source.resolver.known_until(cluster)
