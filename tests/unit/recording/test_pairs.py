"""Counters of pairs of workloads: what is committed, once, and never more series than were allowed."""

from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from aggregator.errors import StoreUnavailableError
from aggregator.model.link import Link
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Address, LinkEnd, Workload
from aggregator.services.recording.pairs import PairCounting
from aggregator.store.deltas import ACTIVITY, LinkSighting, Merge, Sides


class Database:
    """Takes everything, or nothing."""

    away = False

    def open_cursors(self, _openings: Any) -> Any:
        raise NotImplementedError

    def merge(self, merge: Merge) -> None:
        del merge
        if self.away:
            raise StoreUnavailableError("away")


def workload(name: str) -> Workload:
    return Workload(cluster="pairs", namespace="shop", kind="Deployment", name=name)


def merge(number: int, src: LinkEnd, dst: LinkEnd, *, sides: Sides, client: int = 0, server: int = 0) -> Merge:
    link = Link(src=src, dst=dst, protocol=Protocol.TCP, port=80)
    sighting = LinkSighting(
        link=link,
        link_id=number,
        key=str(number),
        sides=sides,
        established=True,
        high_confidence=True,
        probe_only=False,
        first_seen_ms=0,
        last_seen_ms=0,
    )
    activity = np.zeros(1, ACTIVITY)
    activity["link_id"] = number
    for side, count in (("client", client), ("server", server)):
        activity[f"{side}_count"], activity[f"{side}_tx_bytes"], activity[f"{side}_rx_bytes"] = count, 10 * count, count
    return Merge(links=[sighting], activity=activity)


def counted(name: str, src: str, dst: str, namespace: str = "shop") -> float | None:
    labels = {
        "cluster": "pairs",
        "source_namespace": "shop",
        "source": f"Deployment/{src}",
        "destination_namespace": namespace,
        "destination": f"Deployment/{dst}" if namespace else dst,
    }
    return REGISTRY.get_sample_value(name, labels)


def test_both_ends_of_a_connection_are_one_connection() -> None:
    pairs = PairCounting(Database(), most=9)
    a, b = workload("a1"), workload("b1")
    pairs.merge(merge(1, a, b, sides=Sides.CLIENT, client=7))
    pairs.merge(merge(1, a, b, sides=Sides.SERVER, server=7))
    assert counted("wattle_pair_connections_total", "a1", "b1") == 7
    assert counted("wattle_pair_bytes_total", "a1", "b1") == 77


def test_a_server_counts_where_no_client_reports() -> None:
    pairs = PairCounting(Database(), most=9)
    pairs.merge(merge(2, workload("a2"), workload("b2"), sides=Sides.SERVER, server=5))
    assert counted("wattle_pair_connections_total", "a2", "b2") == 5


def test_ports_of_one_pair_are_one_series_and_addresses_one_outside() -> None:
    pairs = PairCounting(Database(), most=9)
    for number, host in ((3, "192.0.2.1"), (4, "192.0.2.2")):
        address = Address(cluster="pairs", ip=ip_address(host))
        pairs.merge(merge(number, workload("a3"), address, sides=Sides.CLIENT, client=2))
    assert counted("wattle_pair_connections_total", "a3", "outside", namespace="") == 4


def test_series_end_where_they_are_told_to_and_the_rest_is_counted_together() -> None:
    pairs = PairCounting(Database(), most=2)
    before = REGISTRY.get_sample_value("wattle_pair_unlisted_connections_total") or 0.0
    for number in range(10, 15):
        pairs.merge(merge(number, workload("a4"), workload(f"b{number}"), sides=Sides.CLIENT, client=1))
    seen = [n for n in range(10, 15) if counted("wattle_pair_connections_total", "a4", f"b{n}") is not None]
    assert seen == [10, 11]
    assert REGISTRY.get_sample_value("wattle_pair_unlisted_connections_total") == before + 3


def test_what_was_not_committed_is_not_counted() -> None:
    database = Database()
    pairs = PairCounting(database, most=9)
    database.away = True
    with pytest.raises(StoreUnavailableError):
        pairs.merge(merge(20, workload("a5"), workload("b5"), sides=Sides.CLIENT, client=1))
    assert counted("wattle_pair_connections_total", "a5", "b5") is None
