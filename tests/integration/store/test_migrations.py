"""The migrations lead to the schema, on both databases, from nothing and from twice."""

import importlib
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, inspect, text

from aggregator.errors import StoreError
from aggregator.store import migrate, schema
from aggregator.store.database import open_engine
from aggregator.store.migrate import include_object, migrate_engine


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"compare_type": True, "compare_server_default": True, "include_object": include_object},
        )
        return list(compare_metadata(context, schema.metadata))


def test_the_migrations_are_equal_to_the_schema(database_url: str) -> None:
    migrate(database_url)
    migrate(database_url)
    engine = open_engine(database_url)
    try:
        assert differences(engine) == []
    finally:
        engine.dispose()


def test_a_missing_column_would_be_noticed(database_url: str) -> None:
    migrate(database_url)
    engine = open_engine(database_url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE note DROP COLUMN value")
        assert differences(engine) != []
    finally:
        engine.dispose()


def test_the_tables_are_those_that_the_schema_would_create(postgres_url: str, postgres_server) -> None:
    """Partitioning and check constraints, which Alembic does not compare."""
    migrated, created = open_engine(postgres_url), open_engine(postgres_server.create_database("created"))
    try:
        migrate(postgres_url)
        schema.metadata.create_all(created)
        questions = (
            "SELECT partrelid::regclass::text, partstrat, partattrs::text FROM pg_partitioned_table ORDER BY 1",
            """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
               WHERE conrelid::regclass::text !~ '_[0-9]{8}$' AND conrelid <> 0
               AND conrelid::regclass::text <> 'alembic_version' AND connamespace = 'public'::regnamespace
               ORDER BY 1, 2""",
            """SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
               AND tablename !~ '_[0-9]{8}$' AND tablename <> 'alembic_version' ORDER BY 1, 2""",
        )
        for question in questions:
            with migrated.connect() as one, created.connect() as other:
                assert one.execute(text(question)).all() == other.execute(text(question)).all()
                assert one.execute(text(question)).all()
    finally:
        migrated.dispose()
        created.dispose()


def test_sqlite_s_tables_are_those_that_the_schema_would_create(sqlite_url: str, tmp_path) -> None:
    migrate(sqlite_url)
    migrated, created = open_engine(sqlite_url), open_engine(f"sqlite:///{tmp_path}/created.db")
    schema.metadata.create_all(created)
    question = text("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'")

    def pieces(engine: Engine) -> dict[str, list[str]]:
        with engine.connect() as connection:
            # The same definitions, whatever the order of columns and constraints.
            return {
                row.name: sorted(
                    line.strip().rstrip(",") for line in row.sql.replace("('')", "''").replace('"', "").splitlines()
                )
                for row in connection.execute(question)
            }

    try:
        assert pieces(migrated) == pieces(created)
    finally:
        migrated.dispose()
        created.dispose()


def test_several_aggregators_may_start_at_once(postgres_url: str) -> None:
    failures: list[Exception] = []

    def start() -> None:
        try:
            migrate(postgres_url)
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine = open_engine(postgres_url)
    try:
        assert set(schema.metadata.tables) <= set(inspect(engine).get_table_names())
        MetaData().reflect(engine)
    finally:
        engine.dispose()


def test_a_migration_waits_for_no_lock_for_ever(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's open transaction must not make a queue of everything that comes after the migration."""
    module = importlib.import_module("aggregator.store.migrate")  # the package has a function of that name
    monkeypatch.setattr(module, "_LOCK_TIMEOUT", "100ms")
    engine = open_engine(postgres_url)
    migrate_engine(engine, revision="0001")
    with engine.connect() as somebody:
        somebody.exec_driver_sql("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="lock timeout"):
            migrate_engine(engine)
        somebody.rollback()
    migrate_engine(engine)
    engine.dispose()
