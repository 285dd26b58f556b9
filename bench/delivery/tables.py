"""Figures of the tables: the upsert beside its limit and beside the ORM, bytes a row, and the questions that people
ask.
"""

import time
from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import BigInteger, Integer, orm, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aggregator.model.link import Link, link_id, link_key
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Workload
from aggregator.store import Retention, Scope, Span, Store
from aggregator.store.deltas import ACTIVITY, ActivityArray, LinkSighting, Merge, Sides
from aggregator.store.keys import DAY_MINUTES, cluster_id_of, milliseconds
from aggregator.store.postgres import copy_binary, create_partitions, drop_partitions
from aggregator.store.schema import COUNTERS
from bench.delivery.load import CLUSTER
from bench.report import Bar, Figure, median_and_spread

LINKS = 60_000
WORKLOADS = 1_500
HOURS = 7 * 24
ACTIVE = 0.6
ROUNDS = 5


class _Base(DeclarativeBase):
    pass


class _Fine(_Base):
    __tablename__ = "link_activity_5m"
    link_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    bucket_minute: Mapped[int] = mapped_column(Integer, primary_key=True)
    cluster_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    client_count: Mapped[int] = mapped_column(BigInteger)
    client_tx_bytes: Mapped[int] = mapped_column(BigInteger)
    client_rx_bytes: Mapped[int] = mapped_column(BigInteger)


def rows_of(ids: np.ndarray, minute: int) -> ActivityArray:
    rows = np.zeros(len(ids), ACTIVITY)
    rows["link_id"] = np.sort(ids)
    rows["bucket_minute"] = minute
    rows["cluster_id"] = cluster_id_of(CLUSTER)
    for counter in COUNTERS[:3]:
        rows[counter] = 7
    return rows


def upsert_figures(store: Store) -> list[Figure]:
    """Rows a second into a table with half a million: 20,000 rows inserted and updated again, 5-minute and hourly."""
    today = int(time.time() // 60 // DAY_MINUTES) * DAY_MINUTES
    rng = np.random.default_rng(1)
    universe = rng.integers(-(2**62), 2**62, 100_000)
    for bucket in range(5):
        store.sink.merge(Merge(activity=rows_of(universe, today + 5 * bucket)))
    size = 20_000
    ours, limits, orms = [], [], []
    names = ", ".join(("link_id", "bucket_minute", "cluster_id", *COUNTERS[:3]))
    for number in range(ROUNDS):
        minute = today + 120 + 60 * number
        rows = rows_of(rng.choice(universe, size, replace=False), minute)
        store.sink.merge(Merge(activity=rows))
        begin = time.perf_counter()
        store.sink.merge(Merge(activity=rows))
        ours.append(size / (time.perf_counter() - begin))
        with store.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TEMPORARY TABLE source ON COMMIT DROP AS SELECT * FROM link_activity_5m LIMIT 0"
            )
            connection.execute(
                text(
                    f"INSERT INTO source ({names}) SELECT link_id, {minute}, cluster_id, 1, 1, 1 FROM link_activity_5m "
                    f"WHERE bucket_minute = {minute} ORDER BY link_id"
                )
            )
            begin = time.perf_counter()
            for table in ("link_activity_5m", "link_activity_1h"):
                sums = ", ".join(f"{name} = held.{name} + excluded.{name}" for name in COUNTERS[:3])
                connection.exec_driver_sql(
                    f"INSERT INTO {table} AS held ({names}) SELECT {names} FROM source "
                    f"ON CONFLICT (link_id, bucket_minute, cluster_id) DO UPDATE SET {sums}"
                )
        limits.append(size / (time.perf_counter() - begin))
        begin = time.perf_counter()
        with orm.Session(store.engine) as session:
            for row in rows[:500].tolist():
                # Both resolutions: two get and set a row.
                for _ in range(2):
                    found = session.get(_Fine, row[:3], populate_existing=True)
                    assert found is not None
                    found.client_count += 1
                    session.flush()
            session.commit()
        orms.append(500 / (time.perf_counter() - begin))
    value, spread = median_and_spread(ours)
    limit, _ = median_and_spread(limits)
    by_orm, _ = median_and_spread(orms)
    return [
        Figure(
            figure="link updates a second, 5-minute and hourly row each, durable",
            value=value,
            unit="rows/s",
            against=f"the same upsert inside the server, no client: {limit:,.0f} rows/s",
            ratio=value / limit,
            bar=Bar(comparison=">=", limit=0.8, of="ratio"),
            spread=spread,
        ),
        Figure(
            figure="link updates a second beside the ORM's get and set",
            value=value,
            unit="rows/s",
            against=f"ORM: {by_orm:,.0f} rows/s",
            ratio=value / by_orm,
            bar=Bar(comparison=">=", limit=80, of="ratio"),
            spread=spread,
        ),
    ]


def fill_week(store: Store) -> datetime:
    """60,000 links between 1,500 workloads, 60 % of them active in each of 168 hours, and 3 h in 5-minute buckets."""
    now = datetime.now(tz=UTC).replace(minute=0, second=0, microsecond=0)
    rng = np.random.default_rng(2)
    workloads = [
        Workload(cluster=CLUSTER, namespace=f"team-{number % 40}", kind="Deployment", name=f"app-{number}")
        for number in range(WORKLOADS)
    ]
    links: dict[int, Link] = {}
    while len(links) < LINKS:
        src, dst = rng.integers(0, WORKLOADS, 2).tolist()
        link = Link(src=workloads[src], dst=workloads[dst], protocol=Protocol.TCP, port=int(rng.integers(1, 9)) * 1_000)
        links[link_id(link)] = link
    now_ms = milliseconds(now)
    sightings = [
        LinkSighting(
            link=link,
            link_id=identifier,
            key=link_key(link),
            sides=Sides.CLIENT,
            established=True,
            high_confidence=True,
            probe_only=False,
            first_seen_ms=now_ms,
            last_seen_ms=now_ms,
        )
        for identifier, link in links.items()
    ]
    store.sink.merge(Merge(links=sightings))
    ids = np.array(list(links), np.int64)
    last_hour = now_ms // 60_000
    create_partitions(store.engine, set(range((last_hour - HOURS * 60) // DAY_MINUTES, last_hour // DAY_MINUTES + 1)))
    for hour in range(HOURS):
        active = rows_of(rng.choice(ids, int(LINKS * ACTIVE), replace=False), last_hour - 60 * hour)
        _copy(store, "link_activity_1h", active)
    for bucket in range(36):
        active = rows_of(rng.choice(ids, int(LINKS * 0.4), replace=False), last_hour - 5 * bucket)
        _copy(store, "link_activity_5m", active)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return now


def _copy(store: Store, table: str, rows: ActivityArray) -> None:
    with store.engine.begin() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with (
            driver.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(ACTIVITY.names or ())}) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.write(copy_binary(rows))


def size_figure(store: Store) -> Figure:
    """Settled days only: what a row costs when it has come to rest, index included."""
    with store.engine.connect() as connection:
        size, rows = connection.execute(
            text(
                "SELECT sum(pg_total_relation_size(inhrelid)), sum(reltuples) FROM pg_inherits "
                "JOIN pg_class ON pg_class.oid = inhrelid "
                "WHERE inhparent = 'link_activity_1h'::regclass AND reltuples > 0"
            )
        ).one()
    per_row = float(size) / float(rows)
    return Figure(
        figure="bytes per edge-hour in the table, index included (a row holds both ends' counters: two edges)",
        value=per_row / 2,
        unit="B",
        against=f"{per_row:.0f} B a row; {float(rows) / 1e6:.1f} M rows",
        bar=Bar(comparison="<=", limit=100),
    )


def query_figures(store: Store, now: datetime) -> list[Figure]:
    """Through the store's own reading side, values built."""
    rng = np.random.default_rng(3)
    week = Span(start=now - timedelta(days=7), end=now + timedelta(hours=1))
    one = []
    for number in rng.integers(0, WORKLOADS, 40).tolist():
        workload = Workload(cluster=CLUSTER, namespace=f"team-{number % 40}", kind="Deployment", name=f"app-{number}")
        begin = time.perf_counter()
        store.links(Scope(cluster=CLUSTER, workload=workload), week)
        one.append((time.perf_counter() - begin) * 1e3)
    three_hours = Span(start=now - timedelta(hours=2), end=now + timedelta(hours=1))
    sums, all_of_it = [], []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        store.activity_sums(Scope(cluster=CLUSTER), three_hours)
        sums.append((time.perf_counter() - begin) * 1e3)
        begin = time.perf_counter()
        store.links(Scope(cluster=CLUSTER), three_hours)
        all_of_it.append((time.perf_counter() - begin) * 1e3)
    one_value, one_spread = median_and_spread(one)
    sums_value, sums_spread = median_and_spread(sums)
    all_value, all_spread = median_and_spread(all_of_it)
    return [
        Figure(
            figure="one workload over 7 days at 6 M rows, links with evidence, p50",
            value=one_value,
            unit="ms",
            against="the bar",
            bar=Bar(comparison="<=", limit=10),
            spread=one_spread,
        ),
        Figure(
            figure="all links of 3 h, counters summed",
            value=sums_value,
            unit="ms",
            against="the bar",
            bar=Bar(comparison="<=", limit=150),
            spread=sums_spread,
        ),
        Figure(
            figure="all links of 3 h as ObservedLink values with evidence",
            value=all_value,
            unit="ms",
            against="no bar",
            spread=all_spread,
        ),
    ]


def drop_figure(store: Store, now: datetime) -> Figure:
    today = milliseconds(now) // 60_000 // DAY_MINUTES
    samples = []
    for day in range(today - 7, today - 2):
        begin = time.perf_counter()
        dropped = drop_partitions(
            store.engine,
            first_kept_day={"link_activity_1h": day + 1, "link_activity_5m": day + 1, "link_attempt": day + 1},
        )
        assert dropped
        samples.append((time.perf_counter() - begin) * 1e3 / len([name for name in dropped if "_1h_" in name]))
    value, spread = median_and_spread(samples)
    return Figure(
        figure="retention drops one day of the hourly table (864,000 rows) and its siblings",
        value=value,
        unit="ms",
        against="DELETE of such a day: 6,000 ms and a VACUUM",
        ratio=value / 6_000,
        bar=Bar(comparison="<=", limit=100),
        spread=spread,
    )


KEEP_ALL = Retention(fine=timedelta(days=3650), coarse=timedelta(days=3650))
