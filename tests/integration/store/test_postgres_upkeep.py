"""Partitions, retention and leadership on a real PostgreSQL."""

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest

from aggregator.store import Retention, Store, migrate, open_store
from aggregator.store.database import for_writing
from aggregator.store.deltas import ACTIVITY, Merge
from aggregator.store.keys import DAY_MINUTES, moment
from aggregator.store.postgres import partitions

NOW_MS = 1_790_000_000_000
TODAY = NOW_MS // 60_000 // DAY_MINUTES


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    migrate(postgres_url)
    retention = Retention(fine=timedelta(days=2), coarse=timedelta(days=10))
    opened = open_store(postgres_url, retention=retention, clock=lambda: moment(NOW_MS))
    yield opened
    opened.close()


def days(store: Store, table: str) -> list[int]:
    with store.engine.connect() as connection:
        return [partition.day - TODAY for partition in partitions(connection) if partition.table == table]


def record(store: Store, day: int) -> None:
    row = np.zeros(1, ACTIVITY)
    row["link_id"], row["client_count"] = 1, 1
    row["bucket_minute"] = (TODAY + day) * DAY_MINUTES
    store.sink.merge(Merge(activity=row))


def test_a_merge_makes_room_for_its_own_day(store: Store) -> None:
    record(store, -1)
    assert -1 in days(store, "link_activity_5m")
    assert -1 in days(store, "link_activity_1h")


def test_retention_drops_whole_days_by_resolution(store: Store) -> None:
    for day in (-11, -10, -3, -2, 0):
        record(store, day)
    removed = store.retain()
    assert [day for day in days(store, "link_activity_5m") if day <= 0] == [-2, -1, 0]
    assert [day for day in days(store, "link_activity_1h") if day <= 0] == [-10, -3, -2, -1, 0]
    assert removed["link_activity_5m"] == 3
    assert removed["link_activity_1h"] == 1


def test_retention_makes_room_ahead(store: Store) -> None:
    store.retain()
    assert {0, 1, 2, 3} <= set(days(store, "link_activity_5m"))


def test_one_leads_and_the_other_follows_when_it_is_gone(store: Store, postgres_url: str) -> None:
    other = open_store(postgres_url)
    try:
        assert store.leadership.lead()
        assert store.leadership.lead()
        assert not other.leadership.lead()
        store.leadership.resign()
        assert other.leadership.lead()
        assert not store.leadership.lead()
    finally:
        other.close()


def test_a_frozen_aggregator_s_transaction_is_ended_and_a_slow_reader_s_is_not(store: Store) -> None:
    shown = "SHOW idle_in_transaction_session_timeout"
    with for_writing(store.engine).begin() as connection:
        assert connection.exec_driver_sql(shown).scalar() == "1min"
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql(shown).scalar() == "0"


def test_another_driver_is_refused_with_a_sentence() -> None:
    from aggregator.errors import ConfigurationError

    for url in ("postgresql://u@h/d", "postgresql+asyncpg://u@h/d", "mysql://u@h/d", "sqlite://", "nonsense"):
        with pytest.raises(ConfigurationError, match="sqlite:///PATH"):
            open_store(url)
