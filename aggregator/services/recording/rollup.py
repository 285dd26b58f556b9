"""Roll-up: a workload that speaks with very many outside addresses is recorded by their networks.

Enters: a Link. Leaves: the same Link, or one whose address end is a network. Invariant: a workload has at most `most`
ends of each prefix length in each direction; what is rolled up is counted, and shows as a network, never as an
address.
"""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

from aggregator.metrics import RECORDING_ROLLED_UP
from aggregator.model.link import Link
from aggregator.model.workload import Address, LinkEnd, Workload

_LEVELS = {4: (32, 24, 16, 8, 0), 6: (128, 64, 48, 32, 0)}

KnownAddresses = Callable[[str, str, str, str], dict[str, set[str]]]


class RollUp:
    """Asks the store once a workload what it has recorded already. Not thread-safe."""

    def __init__(self, *, most: int, known_addresses: KnownAddresses) -> None:
        self._most = most
        self._known_addresses = known_addresses
        self._seen: dict[Workload, dict[str, dict[int, set[str]]]] = {}

    def __call__(self, link: Link) -> Link:
        match link.src, link.dst:
            case Workload() as workload, Address() as address:
                return replace(link, dst=self._end(workload, "dst", address))
            case Address() as address, Workload() as workload:
                return replace(link, src=self._end(workload, "src", address))
            case _:
                return link

    def _end(self, workload: Workload, direction: str, address: Address) -> LinkEnd:
        levels = self._levels_of(workload)[direction]
        for prefix_length in _LEVELS[4 if isinstance(address.ip, IPv4Address) else 6]:
            end = _widened(address, prefix_length)
            held = levels.setdefault(prefix_length, set())
            if str(end) in held or len(held) < self._most or prefix_length == 0:
                if str(end) not in held and end.prefix_length is not None:
                    RECORDING_ROLLED_UP.inc()
                held.add(str(end))
                return end
        return address

    def _levels_of(self, workload: Workload) -> dict[str, dict[int, set[str]]]:
        found = self._seen.get(workload)
        if found is None:
            known = self._known_addresses(workload.cluster, workload.namespace, workload.kind, workload.name)
            found = self._seen[workload] = {"src": {}, "dst": {}}
            for direction, spellings in known.items():
                for spelling in spellings:
                    network = ip_network(spelling)
                    found[direction].setdefault(network.prefixlen, set()).add(spelling)
        return found


def _widened(address: Address, prefix_length: int) -> Address:
    if prefix_length == address.ip.max_prefixlen:
        return address
    network = ip_network((address.ip, prefix_length), strict=False)
    return replace(address, ip=network.network_address, prefix_length=prefix_length)
