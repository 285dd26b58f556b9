"""SQLite's bulk path: the driver's executemany, 5-minute and hourly rows in the transaction of the merge."""

from sqlalchemy import Connection

from aggregator.store.deltas import ACTIVITY, ActivityArray, coarse
from aggregator.store.schema import COUNTERS, link_activity_1h, link_activity_5m

_NAMES = ACTIVITY.names or ()


def _statement(table: str) -> str:
    return (
        f"INSERT INTO {table} ({', '.join(_NAMES)}) VALUES ({', '.join('?' for _ in _NAMES)}) "  # noqa: S608 - constants
        "ON CONFLICT (link_id, bucket_minute, cluster_id) DO UPDATE SET "
        + ", ".join(f"{counter} = {counter} + excluded.{counter}" for counter in COUNTERS)
    )


_FINE = _statement(link_activity_5m.name)
_COARSE = _statement(link_activity_1h.name)


class SqliteBulk:
    """Implements Bulk."""

    def make_room(self, *, first_minute: int, last_minute: int) -> None:
        """SQLite has no partitions."""

    def add_activity(self, connection: Connection, activity: ActivityArray) -> None:
        # Below SQLAlchemy's statement layer: three times the rows a second of its own executemany.
        connection.exec_driver_sql(_FINE, activity.tolist())
        connection.exec_driver_sql(_COARSE, coarse(activity).tolist())
