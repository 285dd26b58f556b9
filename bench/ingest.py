"""Delivery and store: `python -m bench.ingest`. Starts a PostgreSQL of its own; leaves nothing behind."""

import signal
import sys
from collections.abc import Iterator

from aggregator.store import migrate, open_store
from bench.delivery import streams, tables
from bench.report import Figure, emit
from tests.database import running_postgres


def figures() -> Iterator[Figure]:
    yield streams.wire_figure()
    with running_postgres() as postgres:
        urls = [postgres.create_database(name) for name in ("streams", "upserts", "week")]
        for url in urls:
            migrate(url)
        yield streams.receiver_figure(urls[0])
        yield from streams.end_to_end_figures(postgres, urls[0])
        yield streams.reconnect_figure(urls[0])
        store = open_store(urls[1])
        yield from tables.upsert_figures(store)
        store.close()
        store = open_store(urls[2], retention=tables.KEEP_ALL)
        now = tables.fill_week(store)
        yield tables.size_figure(store)
        yield from tables.query_figures(store, now)
        yield tables.drop_figure(store, now)
        store.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down again
    sys.exit(0 if emit("ingest", figures()) else 1)
