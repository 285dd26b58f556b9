"""Two aggregators on one database: what both write at once is the sum, on either database."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from aggregator.errors import StoreError
from aggregator.store import Store, migrate, open_store
from aggregator.store.deltas import ACTIVITY, ActivityArray, Merge
from aggregator.store.keys import COARSE_MINUTES, DAY_MINUTES, FINE_MINUTES, cluster_id_of
from tests.flowlink import CLUSTER

DAY = 20_000 * DAY_MINUTES
LINKS = 40
ROUNDS = 60


@pytest.fixture
def stores(database_url: str) -> Iterator[tuple[Store, Store]]:
    migrate(database_url)
    both = (open_store(database_url), open_store(database_url))
    yield both
    for store in both:
        store.close()


def rows(writer: int, number: int) -> ActivityArray:
    """Some links in one or two buckets; both writers come to a new bucket at the same time."""
    rng = np.random.default_rng([writer, number])
    minutes = [DAY + FINE_MINUTES * (number // 3)] * 2 + [DAY + FINE_MINUTES * (number // 3 + number % 2)]
    parts = []
    for minute in sorted(set(minutes)):
        part = np.zeros(LINKS // 2, ACTIVITY)
        part["link_id"] = np.sort(rng.choice(LINKS, LINKS // 2, replace=False))
        part["bucket_minute"] = minute
        part["cluster_id"] = cluster_id_of(CLUSTER)
        part["client_count"] = rng.integers(1, 100, len(part))
        part["server_tx_bytes"] = 1
        parts.append(part)
    joined = np.concatenate(parts)
    return joined[np.lexsort((joined["bucket_minute"], joined["link_id"]))]


def test_what_two_write_at_once_is_the_sum(stores: tuple[Store, Store]) -> None:
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for number in range(ROUNDS):
                barrier.wait(30)
                _merge(stores[writer], rows(writer, number))
        except BaseException as error:  # noqa: BLE001 - the main thread tells it
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    written = np.concatenate([rows(writer, number) for writer in (0, 1) for number in range(ROUNDS)])
    for table, minutes in (("link_activity_5m", FINE_MINUTES), ("link_activity_1h", COARSE_MINUTES)):
        expected: dict[tuple[int, int], tuple[int, int]] = {}
        for row in written:
            key = (int(row["link_id"]), int(row["bucket_minute"]) // minutes * minutes)
            count, sent = expected.get(key, (0, 0))
            expected[key] = (count + int(row["client_count"]), sent + int(row["server_tx_bytes"]))
        with stores[0].engine.connect() as connection:
            found = {
                (link_id, minute): (count, sent)
                for link_id, minute, count, sent in connection.exec_driver_sql(
                    f"SELECT link_id, bucket_minute, client_count, server_tx_bytes FROM {table}"
                )
            }
        assert found == expected, table


def _merge(store: Store, activity: ActivityArray) -> None:
    for _ in range(50):
        try:
            store.sink.merge(Merge(activity=activity))
        except StoreError:  # one of them was made to give way; nothing was written
            continue
        return
    raise AssertionError("the merge never came through")
