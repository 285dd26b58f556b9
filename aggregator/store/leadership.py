"""Leadership: which of several aggregators on one database does the work that only one may do.

On PostgreSQL a session advisory lock on a connection of its own: it is gone when the process or the connection is.
SQLite belongs to one process, which leads.
"""

import contextlib
import threading

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from aggregator.store.database import is_sqlite

LEADER_LOCK = 0x57415454_00000002


class Leadership:
    """Ask before every piece of the leader's work."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def lead(self) -> bool:
        """Whether this process leads, now; takes the lead when nobody has it."""
        if is_sqlite(self._engine):
            return True
        with self._lock:
            try:
                if self._connection is not None:
                    # The lock lives as long as the session does.
                    self._connection.exec_driver_sql("SELECT 1")
                    return True
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                if self._connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": LEADER_LOCK}).scalar():
                    return True
            except SQLAlchemyError:
                pass
            self._drop()
            return False

    def resign(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(SQLAlchemyError):
                connection.invalidate()  # the session must end: a pooled one would keep the lock
            with contextlib.suppress(SQLAlchemyError):
                connection.close()
