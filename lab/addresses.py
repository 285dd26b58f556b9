"""Who gets which address: nodes, pods round-robin as a CNI's host-local does, Services from their own range.

Enters: the CIDRs of the scenario. Leaves: plans and addresses. Pure but for each allocator's own cursor.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from lab.errors import ScenarioError
from lab.settings import Address, Cidrs, Network

FAMILY = {4: "IPv4", 6: "IPv6"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    name: str
    addresses: tuple[Address, ...]
    pod_networks: tuple[Network, ...]

    @property
    def gateways(self) -> tuple[Address, ...]:
        return tuple(network[1] for network in self.pod_networks)


def plan_nodes(names: Sequence[str], cidrs: Cidrs) -> tuple[NodePlan, ...]:
    """Each node takes the next /24 (IPv4) or /64 (IPv6); the first address of the node range is the router's."""
    ranges: list[list[Network]] = [
        list(islice(network.subnets(new_prefix=24 if network.version == 4 else 64), len(names)))
        for network in cidrs.pods
    ]
    if any(len(r) < len(names) for r in ranges):
        raise ScenarioError(f"lab.cidrs.pods has no room for {len(names)} nodes; give a wider range")
    return tuple(
        NodePlan(
            name=name,
            addresses=tuple(network[2 + index] for network in cidrs.nodes),
            pod_networks=tuple(r[index] for r in ranges),
        )
        for index, name in enumerate(names)
    )


@dataclass(slots=True)
class PodAddresses:
    """One node's pod addresses; a freed address comes again only after the whole range was handed out."""

    node: NodePlan
    _cursor: int = 1
    _taken: set[int] = field(default_factory=set)

    def take(self) -> tuple[Address, ...]:
        for _ in range(253):
            self._cursor = self._cursor + 1 if self._cursor < 254 else 2
            if self._cursor not in self._taken:
                self._taken.add(self._cursor)
                return tuple(network[self._cursor] for network in self.node.pod_networks)
        raise ScenarioError(f"node {self.node.name} has no pod address left; run fewer pods")

    def give_back(self, addresses: Sequence[Address]) -> None:
        if addresses:
            self._taken.discard(int(addresses[0]) - int(self.node.pod_networks[0][0]))


@dataclass(slots=True)
class ServiceAddresses:
    """Cluster addresses; those that the scenario wrote down are reserved first. The first is the API server's."""

    cidrs: Cidrs
    reserved: Iterable[str]
    _taken: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._taken = {str(network[1]) for network in self.cidrs.services} | set(self.reserved)

    def take(self, family: str) -> str:
        network = next((n for n in self.cidrs.services if FAMILY[n.version] == family), None)
        if network is None:
            raise ScenarioError(f"a Service asks for {family}, but lab.cidrs has none; add it to all three ranges")
        for offset in range(20, min(network.num_addresses, 10_000)):
            address = str(network[offset])
            if address not in self._taken:
                self._taken.add(address)
                return address
        raise ScenarioError("lab.cidrs.services has no address left; give a wider range")
