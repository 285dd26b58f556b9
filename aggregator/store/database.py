"""The database behind a URL: two are supported, each set up so that a commit survives a power loss.

Enters: a URL. Leaves: a SQLAlchemy engine. Invariant: another driver is refused with a sentence, before anything is
done.
"""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError

from aggregator.errors import ConfigurationError

SQLITE = "sqlite"
POSTGRESQL = "postgresql+psycopg"
POOL_CONNECTIONS = 5
IDLE_IN_TRANSACTION_SECONDS = 60


def open_engine(url: str) -> Engine:
    """Raises ConfigurationError for a URL that Wattle does not support."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        message = "the database URL cannot be read; write sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE"
        raise ConfigurationError(message) from error
    match parsed.drivername:
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigurationError("an in-memory SQLite database cannot be shared by threads; use sqlite:///PATH")
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(parsed, connect_args={"timeout": 30.0}, pool_size=POOL_CONNECTIONS)
            event.listen(engine, "connect", _set_pragmas)
            event.listen(engine, "begin", _begin)
            return engine
        case "postgresql+psycopg":
            engine = create_engine(
                parsed,
                pool_pre_ping=True,
                pool_size=POOL_CONNECTIONS,
                connect_args={"connect_timeout": 5, "application_name": "wattle"},
            )
            event.listen(engine, "connect", _no_jit)
            event.listen(engine, "begin", _bound_write)
            return engine
        case other:
            message = (
                f"the database driver {other!r} is not supported: Wattle writes in bulk, which needs "
                "sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE"
            )
            raise ConfigurationError(message)


def for_writing(engine: Engine) -> Engine:
    """The same pool; on SQLite a transaction takes the write lock at its start, so that none fails in the middle."""
    return engine.execution_options(wattle_write=True)


def for_reading(engine: Engine) -> Engine:
    """The same pool; all questions of a transaction are of one state of the database, as they are on SQLite anyway."""
    return engine if is_sqlite(engine) else engine.execution_options(isolation_level="REPEATABLE READ")


def is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    """WAL lets readers go on beside the writer; FULL is what makes an acknowledgement after COMMIT true."""
    connection.isolation_level = None  # the driver's own BEGIN comes too late: see _begin
    cursor = connection.cursor()
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("wattle_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _no_jit(connection: DBAPIConnection, _record: object) -> None:
    """Questions here take milliseconds; compiling them, which large tables talk the planner into, takes longer."""
    cursor = connection.cursor()
    try:
        cursor.execute("SET jit = off")
    finally:
        cursor.close()
    connection.commit()


def _bound_write(connection: Connection) -> None:
    """An aggregator that is frozen while it writes holds locks that another one waits for. Readers hold none, and may
    take their time.
    """
    if connection.get_execution_options().get("wattle_write", False):
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_SECONDS}s'")
