"""Counting in the database gives what counting the rows gives, on both databases."""

import threading
from collections.abc import Iterator

import pytest

from aggregator.model.link import ObservedLink
from aggregator.model.workload import Workload
from aggregator.store.links import Scope
from aggregator.store.migrate import migrate
from aggregator.store.overview import FRESH_SECONDS, KEPT_SECONDS, Overview
from aggregator.store.store import Store, open_store
from tests.integration.services.world import (
    CROSSING_LINKS,
    DB,
    NOW,
    OTHER_LINKS,
    SHOP,
    SHOP_LINKS,
    WEB,
    Seen,
    link,
    record,
)


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
        assert count.inside == sum(row.established and same_namespace(row) for row in outward)
        tried = [row.evidence.last_seen for row in (*outward, *inward) if row.evidence.last_seen]
        assert count.last_tried == max(tried)
    assert Overview(store.engine).whole("default") == found
    shop = Overview(store.engine).by_workload("default", SHOP)
    assert [count.workload for count in shop] == [c.workload for c in found if c.workload.namespace == SHOP]


def same_namespace(row: ObservedLink) -> bool:
    ends = (row.link.src, row.link.dst)
    return len({end.namespace if isinstance(end, Workload) else end for end in ends}) == 1


def test_the_whole_is_counted_by_one_and_shown_to_all_for_a_moment(store: Store) -> None:
    now = [0.0]
    overview = Overview(store.engine, lambda: now[0])
    before = overview.whole("default")
    record(store, [Seen(link=link(WEB, DB, 9999), process="java")])
    now[0] = FRESH_SECONDS - 0.1
    assert overview.whole("default") == before
    now[0] = FRESH_SECONDS
    assert overview.whole("default") == before, "shown while it is counted again"
    for thread in threading.enumerate():
        if thread.name == "overview":
            thread.join(10)
    assert overview.whole("default") != before
    record(store, [Seen(link=link(WEB, DB, 9998), process="java")])
    counted = overview.whole("default")
    now[0] += KEPT_SECONDS
    assert overview.whole("default") != counted, "too old to be shown"
