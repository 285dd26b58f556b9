"""The decision log, sightings and the installation's key, on both databases."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from aggregator.model.decision import Choice, Decisions, LinkDecision
from aggregator.model.link import link_id
from aggregator.store.decisions import DecisionEntry, DecisionLog, DecisionState, Undo
from aggregator.store.installation import masking_key
from aggregator.store.migrate import migrate
from aggregator.store.sightings import days_seen
from aggregator.store.store import Store, open_store
from tests.integration.services.world import DB, NOW, OLD, WEB, Seen, link, record


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    migrate(database_url)
    opened = open_store(database_url, clock=lambda: NOW)
    yield opened
    opened.close()


def entry(port: int, author: str = "dana") -> DecisionEntry:
    said = LinkDecision(link=link(WEB, DB, port), choice=Choice.EXCLUDE)
    return DecisionEntry(said=said, author=author, at=NOW, reason="because: ünïcode")


def test_a_log_is_read_back_as_it_was_written(store: Store) -> None:
    log = DecisionLog(store.engine)
    log.append("default", lambda _state: [entry(1), entry(2)])
    log.append("default", lambda _state: [DecisionEntry(said=Undo(version=1), author="eve", at=NOW)])
    again = DecisionLog(store.engine).state("default")
    assert again == log.state("default")
    assert [logged.version for logged in again.log] == [1, 2, 3]
    assert again.log[0].entry == entry(1)
    assert again.decisions == Decisions.of([entry(2).said])  # type: ignore[list-item]
    assert DecisionLog(store.engine).state("another").version == 0


def test_many_writers_leave_no_gap_and_lose_nothing(store: Store) -> None:
    """Each with a log of its own, as aggregators have."""
    writers, each = 4, 5
    refused: list[Exception] = []

    def write(number: int) -> None:
        log = DecisionLog(store.engine)
        for turn in range(each):
            try:
                log.append("default", lambda _state, port=number * 100 + turn: [entry(port + 1)])
            except Exception as exc:  # noqa: BLE001  # collected and compared below
                refused.append(exc)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = DecisionLog(store.engine).state("default")
    assert [logged.version for logged in state.log] == list(range(1, len(state.log) + 1))
    assert len(state.log) + len(refused) == writers * each
    assert len(state.decisions.links) == len(state.log)


def test_what_is_checked_holds_when_it_is_written(store: Store) -> None:
    """Compare and set: of several who saw the same state, one writes."""
    start = threading.Barrier(4)
    wrote: list[int] = []

    class Moved(Exception):  # noqa: N818  # of this test alone
        """Somebody was first."""

    def write(number: int) -> None:
        log = DecisionLog(store.engine)
        seen = log.state("default").version
        start.wait()

        def unless_moved(state: DecisionState) -> list[DecisionEntry]:
            if state.version != seen:
                raise Moved
            return [entry(number + 1)]

        try:
            log.append("default", unless_moved)
            wrote.append(number)
        except Moved:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrote) == 1
    assert DecisionLog(store.engine).state("default").version == 1


def test_days_are_counted_once_each(store: Store) -> None:
    for days in (0, 0, 1, 5):
        record(store, [Seen(link=link(WEB, DB, 5432), last=NOW - timedelta(days=days))])
    record(store, [Seen(link=link(OLD, DB, 1))])
    assert days_seen(store.engine, WEB) == {link_id(link(WEB, DB, 5432)): 3}
    assert len(days_seen(store.engine, DB)) == 2


def test_the_key_is_made_once(store: Store) -> None:
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(masking_key(store.engine))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1
    assert len(keys) == 4
    assert len(keys[0]) == 32
