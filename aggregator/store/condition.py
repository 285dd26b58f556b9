"""How the database is: what it is, whether its schema is this version's, whether its clock goes with ours.

Enters: a URL. Leaves: a DatabaseCondition, or StoreUnavailableError. It is read, never changed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from aggregator.store.database import is_sqlite, open_engine
from aggregator.store.merging import translated
from aggregator.store.migrate import alembic_config


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCondition:
    name: str  # "PostgreSQL 15.4" or "SQLite 3.40.1"
    revision: str  # of the schema that it has; "" without one
    newest: str  # of the schema that this version wants
    known: bool  # whether this version knows that revision: if not, a newer Wattle was here
    ahead_seconds: float  # its clock minus ours; 0 for SQLite, which has none


def condition(url: str) -> DatabaseCondition:
    """Raises ConfigurationError, StoreUnavailableError."""
    engine = open_engine(url)
    try:
        with translated(), engine.connect() as connection:
            scripts = ScriptDirectory.from_config(alembic_config(connection))
            revision = MigrationContext.configure(connection).get_current_revision() or ""
            sqlite = is_sqlite(engine)
            return DatabaseCondition(
                name=_name(connection, sqlite=sqlite),
                revision=revision,
                newest=scripts.get_current_head() or "",
                known=revision in {script.revision for script in scripts.walk_revisions()} | {""},
                ahead_seconds=0.0 if sqlite else _ahead(connection),
            )
    finally:
        engine.dispose()


def _name(connection: Connection, *, sqlite: bool) -> str:
    if sqlite:
        return f"SQLite {connection.execute(text('SELECT sqlite_version()')).scalar_one()}"
    return f"PostgreSQL {str(connection.execute(text('SHOW server_version')).scalar_one()).split()[0]}"


def _ahead(connection: Connection) -> float:
    theirs: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return (theirs - datetime.now(tz=UTC)).total_seconds()
