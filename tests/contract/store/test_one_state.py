"""A reader sees one state of the database: all of a merge or nothing of it, however many questions an answer takes."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from aggregator.model.link import Link, link_id
from aggregator.store import Scope, Store, open_store
from aggregator.store.deltas import AttemptDelta, Merge
from aggregator.store.keys import COARSE_MINUTES, bucket_of, moment
from tests.contract.store.rows import LINK, NOW_MS, OTHER, activity, sighting
from tests.flowlink import CLUSTER


@pytest.fixture
def other(store: Store, database_url: str) -> Iterator[Store]:
    """Another process's."""
    opened = open_store(database_url, clock=lambda: moment(NOW_MS))
    yield opened
    opened.close()


def tried(link: Link) -> AttemptDelta:
    hour = bucket_of(NOW_MS, COARSE_MINUTES)
    return AttemptDelta(cluster=CLUSTER, link_id=link_id(link), bucket_minute=hour, outcome="refused", attempts=3)


@pytest.mark.parametrize("questions", range(1, 4))
def test_a_merge_between_two_questions_is_seen_by_neither(store: Store, other: Store, questions: int) -> None:
    """A link without its connections and attempts would say of an attempt that is blocked that nobody made it."""
    other.sink.merge(Merge(links=[sighting(OTHER)], activity=activity(OTHER, client_count=1), attempts=[tried(OTHER)]))
    asked: list[str] = []

    def merge_meanwhile(*what: Any) -> None:
        statement = str(what[2])
        if not statement.startswith("SELECT"):
            return
        asked.append(statement)
        if len(asked) == questions:
            other.sink.merge(
                Merge(links=[sighting(LINK)], activity=activity(LINK, client_count=2), attempts=[tried(LINK)])
            )

    event.listen(store.engine, "after_cursor_execute", merge_meanwhile)
    assert [observed.link for observed in store.links(Scope(cluster=CLUSTER))] == [OTHER]
    assert len(asked) > questions, "it was merged meanwhile"
    event.remove(store.engine, "after_cursor_execute", merge_meanwhile)
    (link,) = (observed for observed in store.links(Scope(cluster=CLUSTER)) if observed.link == LINK)
    assert (link.evidence.connections, link.evidence.failed_attempts) == (2, 3)
