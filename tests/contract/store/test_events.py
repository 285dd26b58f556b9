"""Events and policies on watch, on both databases: one row an event, whoever finds it."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from aggregator.model.event import Ended, Event, EventEvidence, EventKind
from aggregator.store.events import EventLog
from aggregator.store.migrate import migrate
from aggregator.store.sightings import established_links, live_links
from aggregator.store.store import Store, open_store
from aggregator.store.watches import PolicyWatch, PolicyWatches
from tests.integration.services.world import CLUSTER, DB, NOW, OLD, WEB, Seen, link, new_link_event, record


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    migrate(database_url)
    opened = open_store(database_url, clock=lambda: NOW)
    yield opened
    opened.close()


EVENT = replace(
    new_link_event(link(WEB, DB, 6000)),
    evidence=EventEvidence(processes=("ünïcode",), src_pods=("shop/web-1",), connections=3, first_seen=NOW),
    cause="because",
)


def test_an_event_is_read_back_as_it_was_found(store: Store) -> None:
    log = EventLog(store.engine)
    assert log.note(CLUSTER, [EVENT, EVENT]) == [EVENT]
    assert log.note(CLUSTER, [EVENT]) == []
    (stored,) = log.holding(CLUSTER)
    assert (stored.event, stored.event_id, stored.told) == (EVENT, EVENT.event_id, False)
    assert log.holding("another") == []
    assert log.counts(CLUSTER) == {EventKind.NEW_LINK: 1}


def test_of_many_who_find_it_at_once_one_has_found_it(store: Store) -> None:
    found: list[Event] = []
    start = threading.Barrier(4)

    def look() -> None:
        log = EventLog(store.engine)
        start.wait()
        found.extend(log.note(CLUSTER, [EVENT, new_link_event(link(WEB, OLD, 1))]))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(EventLog(store.engine).events(CLUSTER)) == 2


def test_it_ends_holds_again_and_is_forgotten_long_after(store: Store) -> None:
    log = EventLog(store.engine)
    log.note(CLUSTER, [EVENT])
    log.end(CLUSTER, [EVENT.event_id], Ended.ACCEPTED, at=NOW)
    assert [s.event.ended for s in log.ended_since(CLUSTER, NOW)] == [Ended.ACCEPTED]
    assert log.forget(ended_before=NOW) == 0
    log.refresh(CLUSTER, [replace(EVENT, cause="another")], at=NOW)
    assert [(s.event.ended, s.event.cause) for s in log.holding(CLUSTER)] == [(None, "another")]
    log.end(CLUSTER, [EVENT.event_id], Ended.LEFT_OUT, at=NOW)
    assert log.forget(ended_before=NOW + timedelta(seconds=1)) == 1
    assert log.events(CLUSTER) == []


def test_what_was_told_is_not_told_again(store: Store) -> None:
    log = EventLog(store.engine)
    log.note(CLUSTER, [new_link_event(link(WEB, DB, port)) for port in (1, 2, 3)])
    waiting, count = log.untold(CLUSTER, limit=2)
    assert (len(waiting), count) == (2, 3)
    log.told(CLUSTER, [stored.event_id for stored in waiting], at=NOW)
    assert log.untold(CLUSTER, limit=2)[1] == 1


def test_links_are_found_by_workload_and_by_namespace(store: Store) -> None:
    old = Seen(link=link(WEB, OLD, 9), last=NOW - timedelta(days=1))
    failed = Seen(link=link(WEB, DB, 7), established=False, count=0, failed=1)
    record(store, [Seen(link=link(WEB, DB, 5432), last=NOW), old, failed])
    found = established_links(store.engine, CLUSTER, [WEB, DB])
    assert {workload.name: len(rows) for workload, rows in found.items()} == {"web": 2, "db": 1}
    since_ms = round((NOW - timedelta(hours=1)).timestamp() * 1000)
    assert len(live_links(store.engine, CLUSTER, ["shop"], since_ms=since_ms)) == 1
    assert live_links(store.engine, CLUSTER, ["ledger"], since_ms=since_ms) == []


def test_a_watch_is_kept_and_stopped_once(store: Store) -> None:
    watches = PolicyWatches(store.engine)
    watch = PolicyWatch(
        watch_id="a" * 16,
        name="db",
        yaml="kind: NetworkPolicy\n",
        author="dana",
        reason="",
        began_at=NOW,
        ends_at=NOW + timedelta(days=7),
    )
    watches.begin(CLUSTER, watch)
    assert watches.all(CLUSTER) == [watch]
    assert watch.runs(NOW)
    assert watches.stop(CLUSTER, watch.watch_id, at=NOW)
    assert not watches.stop(CLUSTER, watch.watch_id, at=NOW)
    assert not watches.all(CLUSTER)[0].runs(NOW)
