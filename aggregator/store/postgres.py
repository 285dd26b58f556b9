"""PostgreSQL's bulk path: a binary COPY built by numpy into a temporary table, UPDATE and INSERT from there.

Enters: rows of ACTIVITY, sorted by key. Leaves: the sums, in SQLAlchemy's own transaction, and daily range partitions.
Invariant: a partition holds the whole days in its name, UTC; retention drops partitions and deletes nothing.
"""

import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from aggregator.store.deltas import ACTIVITY, ActivityArray, coarse
from aggregator.store.keys import COARSE_MINUTES, DAY_MINUTES, moment
from aggregator.store.schema import COUNTERS, PARTITIONED, link_activity_1h, link_activity_5m, link_attempt

# https://www.postgresql.org/docs/15/sql-copy.html#id-1.9.3.55.9.4: signature, flags, header extension; then for each
# tuple a 16-bit field count and each field as a 32-bit length and its bytes, all big-endian; -1 ends it.
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_COPY_TRAILER = b"\xff\xff"
_NAMES = ACTIVITY.names or ()
_COPY_ROW = np.dtype(
    [("fields", ">i2")]
    + [
        column
        for name in _NAMES
        for column in ((f"{name}_length", ">i4"), (name, ">i4" if ACTIVITY[name].itemsize == 4 else ">i8"))
    ]
)
_AHEAD_DAYS = 3
_LOCK_TIMEOUT = "4s"
# Room for HOT updates, in per cent: rows of the current bucket are updated every few seconds. At 100 none is HOT, and a
# row leaves five dead ones in the file; at 60 nearly all are, and the file grows no more.
FILLFACTORS = {link_activity_5m.name: 60, link_activity_1h.name: 70, link_attempt.name: 80}
_BUCKETS = {
    link_activity_5m.name: "delta.bucket_minute",
    link_activity_1h.name: f"(delta.bucket_minute - mod(delta.bucket_minute, {COARSE_MINUTES}))",
}
# The planner must look every row of `delta` up by the key. Left alone it may read a whole day for a handful of rows, or
# keep the plan that was right for a partition that was empty. Two sequential scans cost it more than one, whatever the
# tables hold; a cost so high would make it compile the statement, which takes longer than running it.
_BY_KEY = "SELECT " + ", ".join(
    f"set_config('{name}', 'off', true)" for name in ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit")
)
_SAME = "held.link_id = delta.link_id AND held.bucket_minute = {bucket} AND held.cluster_id = delta.cluster_id"


def _add_statement(table: str, partition: str, day: int) -> str:
    """Add to the rows that are there. ON CONFLICT alone would do, but locks each of them first: half as much again of
    work and of log.
    """
    bucket = _BUCKETS[table]
    return (
        f"UPDATE {partition} AS held SET "  # noqa: S608 - constants and numbers
        + ", ".join(f"{counter} = held.{counter} + delta.{counter}" for counter in COUNTERS)
        + f" FROM delta WHERE {_SAME.format(bucket=bucket)} AND {_of_day(day)}"
    )


def _insert_statement(table: str, partition: str, day: int) -> str:
    """Write those that are not."""
    bucket = _BUCKETS[table]
    values = ", ".join(bucket if name == "bucket_minute" else f"delta.{name}" for name in _NAMES)
    return (
        f"INSERT INTO {partition} ({', '.join(_NAMES)}) SELECT {values} FROM delta WHERE {_of_day(day)} "  # noqa: S608 - constants and numbers
        f"AND NOT EXISTS (SELECT FROM {partition} AS held WHERE {_SAME.format(bucket=bucket)})"
    )


def _of_day(day: int) -> str:
    return f"delta.bucket_minute >= {day * DAY_MINUTES} AND delta.bucket_minute < {(day + 1) * DAY_MINUTES}"


_TEMPORARY = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS delta ("
    + ", ".join(f"{name} {'integer' if ACTIVITY[name].itemsize == 4 else 'bigint'} NOT NULL" for name in _NAMES)
    + ") ON COMMIT DELETE ROWS"
)


def copy_binary(activity: ActivityArray) -> bytes:
    """The rows in COPY's binary format."""
    out = np.empty(len(activity), _COPY_ROW)
    out["fields"] = len(_NAMES)
    for name in _NAMES:
        out[f"{name}_length"] = ACTIVITY[name].itemsize
        out[name] = activity[name]
    return _COPY_HEADER + out.tobytes() + _COPY_TRAILER


class PostgresBulk:
    """Implements Bulk."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._days: set[int] = set()

    def make_room(self, *, first_minute: int, last_minute: int) -> None:
        wanted = set(range(first_minute // DAY_MINUTES, last_minute // DAY_MINUTES + 1))
        with self._lock:
            if wanted <= self._days:
                return
            create_partitions(self._engine, wanted)
            self._days |= wanted

    def add_activity(self, connection: Connection, activity: ActivityArray) -> None:
        connection.exec_driver_sql(_TEMPORARY)
        connection.exec_driver_sql(_BY_KEY)
        # One aggregator at a time, until its COMMIT: what its UPDATE does not find must not be written by another one
        # before its INSERT.
        for cluster_id in np.unique(activity["cluster_id"]).tolist():
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ACTIVITY_LOCK}, {cluster_id})")
        self._copy(connection, activity)
        self._add(connection, link_activity_5m.name, activity)
        hourly = coarse(activity)
        if len(hourly) < len(activity):  # several buckets of one hour, which are one row there
            connection.exec_driver_sql("TRUNCATE delta")
            self._copy(connection, hourly)
        self._add(connection, link_activity_1h.name, hourly)

    @staticmethod
    def _add(connection: Connection, table: str, activity: ActivityArray) -> None:
        """Add `delta`, which holds `activity`, to the table's partitions."""
        days, sizes = np.unique(activity["bucket_minute"] // DAY_MINUTES, return_counts=True)
        for day, size in zip(days.tolist(), sizes.tolist(), strict=True):
            partition = partition_name(table, day)
            if connection.exec_driver_sql(_add_statement(table, partition, day)).rowcount < size:
                connection.exec_driver_sql(_insert_statement(table, partition, day))

    @staticmethod
    def _copy(connection: Connection, activity: ActivityArray) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor, cursor.copy("COPY delta FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(copy_binary(activity))


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One day of one table."""

    table: str
    name: str
    day: int  # days since 1970


def create_partitions(engine: Engine, days: set[int]) -> None:
    """Those that are missing; waits for no lock longer than a few seconds."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        # Two aggregators that make the same partition would fail on the catalogue's unique key.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PARTITION_LOCK})
        for day in sorted(days):
            for table in PARTITIONED:
                name = partition_name(table.name, day)
                fillfactor = f" WITH (fillfactor = {FILLFACTORS[table.name]})"
                connection.exec_driver_sql(
                    f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table.name} "
                    f"FOR VALUES FROM ({day * DAY_MINUTES}) TO ({(day + 1) * DAY_MINUTES}){fillfactor}"
                )


ACTIVITY_LOCK = 0x57415454  # with a cluster's id: the form of two 32-bit keys, apart from those of one
PARTITION_LOCK = 0x57415454_00000001


def partition_name(table: str, day: int) -> str:
    return f"{table}_{moment(day * DAY_MINUTES * 60_000):%Y%m%d}"


def partitions(connection: Connection) -> Iterator[Partition]:
    """Every daily partition there is."""
    rows = connection.execute(
        text(
            "SELECT parent.relname AS parent, child.relname AS child, "
            "pg_get_expr(child.relpartbound, child.oid) AS bound FROM pg_inherits "
            "JOIN pg_class parent ON parent.oid = inhparent JOIN pg_class child ON child.oid = inhrelid "
            "WHERE parent.relname = ANY(:tables) AND child.relkind = 'r' ORDER BY child.relname"
        ),
        {"tables": [table.name for table in PARTITIONED]},
    )
    for row in rows:
        first_minute = int(row.bound.split("(", 1)[1].split(")", 1)[0].strip("'"))
        yield Partition(table=row.parent, name=row.child, day=first_minute // DAY_MINUTES)


def drop_partitions(engine: Engine, *, first_kept_day: dict[str, int]) -> list[str]:
    """Retention: drop what lies before each table's first kept day. A partition that is in use is left for the next
    run.
    """
    with engine.connect() as connection:
        old = [found for found in partitions(connection) if found.day < first_kept_day[found.table]]
    dropped = []
    for partition in old:
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS {partition.name}")
        except OperationalError:  # the lock timeout
            continue
        dropped.append(partition.name)
    return dropped


def days_ahead(today: int) -> set[int]:
    """The days that must have partitions: yesterday (late batches) to a few days ahead."""
    return set(range(today - 1, today + _AHEAD_DAYS + 1))
