"""Covers of addresses by CIDRs: exact, or with fewer prefixes where a person accepted more addresses.

Enters: networks to cover, a budget of prefixes, what must never be touched. Leaves: the cover with what it adds.
Invariant: every network is covered; a forbidden address never; the widened cover adds the fewest addresses that so many
prefixes can (a dynamic programme on the binary trie, O(n k^2)).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from aggregator.model.address import IPNetwork

FLOORS = {4: 24, 6: 64}  # never wider than this, however small the budget
MAX_BUDGET = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """`extra` addresses are covered without having been asked for."""

    networks: tuple[IPNetwork, ...]
    extra: int


def exact(networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The fewest prefixes that cover exactly these: adds no address."""
    all_networks = list(networks)
    v4 = collapse_addresses(n for n in all_networks if isinstance(n, IPv4Network))
    v6 = collapse_addresses(n for n in all_networks if isinstance(n, IPv6Network))
    return (*v4, *v6)


def budgeted(networks: Iterable[IPNetwork], budget: int, *, forbidden: Iterable[IPNetwork] = ()) -> Cover | None:
    """At most `budget` prefixes for each family, None when that cannot be done without a forbidden address."""
    wanted = exact(networks)
    barred = tuple(forbidden)
    found: list[IPNetwork] = []
    extra = 0
    for version in (4, 6):
        family = [network for network in wanted if network.version == version]
        if len(family) <= budget:
            found += family
            continue
        trie = _Trie(family, [network for network in barred if network.version == version], version)
        best = trie.best(min(budget, MAX_BUDGET))
        if best is None:
            return None
        extra += best[0]
        found += best[1]
    return Cover(networks=tuple(found), extra=extra)


class _Trie:
    """Leaves are the wanted networks; only branching nodes exist, so there are fewer nodes than twice the leaves."""

    def __init__(self, leaves: Sequence[IPNetwork], forbidden: Sequence[IPNetwork], version: int) -> None:
        self._leaves = leaves
        self._forbidden = forbidden
        self._version = version
        self._bits = 32 if version == 4 else 128

    def best(self, budget: int) -> tuple[int, list[IPNetwork]] | None:
        found = self._solve(0, len(self._leaves), budget)
        candidates = [(cost, len(networks), networks) for cost, networks in found.values()]
        if not candidates:
            return None
        cost, _, networks = min(candidates, key=lambda item: (item[0], item[1]))
        return cost, networks

    def _solve(self, low: int, high: int, budget: int) -> dict[int, tuple[int, list[IPNetwork]]]:
        """By number of prefixes used: the fewest extra addresses for the leaves low to high, and the prefixes."""
        if high - low == 1:
            return {1: (0, [self._leaves[low]])}
        whole = self._common(low, high)
        found: dict[int, tuple[int, list[IPNetwork]]] = {}
        if self._may_cover(whole):
            wanted = sum(network.num_addresses for network in self._leaves[low:high])
            found[1] = (whole.num_addresses - wanted, [whole])
        if budget < 2:
            return found
        middle = self._middle(low, high, whole)
        left = self._solve(low, middle, budget - 1)
        right = self._solve(middle, high, budget - 1)
        for used_left, (cost_left, networks_left) in left.items():
            for used_right, (cost_right, networks_right) in right.items():
                used, cost = used_left + used_right, cost_left + cost_right
                if used <= budget and (used not in found or cost < found[used][0]):
                    found[used] = (cost, [*networks_left, *networks_right])
        return found

    def _common(self, low: int, high: int) -> IPNetwork:
        """The longest prefix that holds all of these leaves (they are in order, so the first and the last decide)."""
        first = int(self._leaves[low].network_address)
        last = int(self._leaves[high - 1].broadcast_address)
        length = self._bits - (first ^ last).bit_length()
        start = first >> (self._bits - length) << (self._bits - length)
        return IPv4Network((start, length)) if self._version == 4 else IPv6Network((start, length))

    def _middle(self, low: int, high: int, whole: IPNetwork) -> int:
        """The first leaf in the upper half of the common prefix."""
        half = int(whole.network_address) | 1 << (self._bits - whole.prefixlen - 1)
        return next(n for n in range(low, high) if int(self._leaves[n].network_address) >= half)

    def _may_cover(self, network: IPNetwork) -> bool:
        if network.prefixlen < FLOORS[self._version]:
            return False
        return not any(barred.overlaps(network) for barred in self._forbidden)
