"""Counting in the database gives what counting the rows gives, on both databases."""

from collections.abc import Iterator

import pytest

from aggregator.model.workload import Workload
from aggregator.store.links import Scope
from aggregator.store.migrate import migrate
from aggregator.store.overview import Overview
from aggregator.store.store import Store, open_store
from tests.integration.services.world import CROSSING_LINKS, NOW, OTHER_LINKS, SHOP, SHOP_LINKS, record


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    migrate(database_url)
    opened = open_store(database_url, clock=lambda: NOW)
    record(opened, [*SHOP_LINKS, *CROSSING_LINKS, *OTHER_LINKS])
    yield opened
    opened.close()


def test_counts_by_workload_are_those_of_the_rows(store: Store) -> None:
    rows = store.links(Scope(cluster="default"))
    found = Overview(store.engine).by_workload("default")
    assert {count.workload for count in found} == {
        end for row in rows for end in (row.link.src, row.link.dst) if isinstance(end, Workload)
    }
    for count in found:
        outward = [row for row in rows if row.link.src == count.workload]
        inward = [row for row in rows if row.link.dst == count.workload]
        assert count.egress == sum(row.established for row in outward)
        assert count.ingress == sum(row.established for row in inward)
        assert count.failed == sum(not row.established for row in (*outward, *inward))
        established = [row.evidence for row in (*outward, *inward) if row.established]
        assert count.last_seen == max((seen.last_seen for seen in established if seen.last_seen), default=None)
        assert count.first_seen == min((seen.first_seen for seen in established if seen.first_seen), default=None)
    assert Overview(store.engine).workloads("default") == {count.workload for count in found}
    shop = Overview(store.engine).by_workload("default", SHOP)
    assert [count.workload for count in shop] == [c.workload for c in found if c.workload.namespace == SHOP]


def test_counts_by_namespace_are_those_of_the_rows(store: Store) -> None:
    rows = store.links(Scope(cluster="default"))
    counts = {(count.src, count.dst): count.links for count in Overview(store.engine).by_namespace("default")}
    expected: dict[tuple[str, str], int] = {}
    for row in rows:
        src, dst = (end.namespace if isinstance(end, Workload) else "" for end in (row.link.src, row.link.dst))
        expected[src, dst] = expected.get((src, dst), 0) + row.established
    assert counts == expected
