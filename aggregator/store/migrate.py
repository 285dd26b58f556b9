"""migrate: the database behind a URL gets the schema of this version.

Invariant: one aggregator migrates at a time (an advisory lock on PostgreSQL, the write lock on SQLite), none waits
for a lock for longer than a few seconds, and every migration is a transaction of its own.
"""

import logging
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text

from aggregator.errors import StoreUnavailableError
from aggregator.store.database import is_sqlite, open_engine
from aggregator.store.keys import DAY_MINUTES, milliseconds
from aggregator.store.merging import translated
from aggregator.store.postgres import create_partitions, days_ahead
from aggregator.store.schema import metadata

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
MIGRATION_LOCK = 0x57415454_00000003
_LOCK_TIMEOUT = "4s"
_STATEMENT_TIMEOUT = "60s"


def migrate(url: str, *, wait_seconds: float = 0.0) -> None:
    """Bring the schema up to date, and make room for the next days. Raises ConfigurationError or StoreError.

    `wait_seconds`: how long a database may take that does not answer yet, as one that is started together with us.
    """
    engine = open_engine(url)
    end = time.monotonic() + wait_seconds
    try:
        while True:
            try:
                migrate_engine(engine)
            except StoreUnavailableError as error:
                if time.monotonic() >= end:
                    raise
                log.info("%s; trying again", error)
                time.sleep(RETRY_SECONDS)
            else:
                return
    finally:
        engine.dispose()


def migrate_engine(engine: Engine, *, revision: str = "head") -> None:
    with translated():
        with engine.connect() as connection:
            if not is_sqlite(engine):
                # For the session: it outlives the transaction of each migration.
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
                connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
                connection.exec_driver_sql(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
                connection.commit()
            try:
                command.upgrade(alembic_config(connection), revision)
                connection.commit()
            finally:
                if not is_sqlite(engine):
                    connection.invalidate()  # the session ends, and with it the lock and the timeouts
        if not is_sqlite(engine) and revision == "head":
            today = milliseconds(datetime.now(tz=UTC)) // 60_000 // DAY_MINUTES
            create_partitions(engine, days_ahead(today))


def alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["include_object"] = include_object
    return config


def include_object(_object: object, name: str | None, kind: str, _reflected: object, _compare_to: object) -> bool:
    """Whether Alembic may compare it: the partitions of a table are not tables of the schema."""
    return kind != "table" or name in metadata.tables or not re.fullmatch(r".*_\d{8}", name or "")
