"""What docs/scaling.md promises of the schema: it can be distributed by cluster_id, and the links' part by link_id."""

from sqlalchemy import inspect, text

from aggregator.store import migrate, schema
from aggregator.store.database import open_engine

BY_LINK = {"link", "link_evidence", "link_activity_5m", "link_activity_1h", "link_attempt"}


def test_every_key_holds_the_column_to_distribute_by(postgres_url: str) -> None:
    migrate(postgres_url)
    engine = open_engine(postgres_url)
    try:
        inspector = inspect(engine)
        for table in schema.metadata.tables:
            if table == "note":
                continue
            keys = [inspector.get_pk_constraint(table)["constrained_columns"]]
            if table != "cluster":  # a reference table: a copy on every worker
                keys += [unique["column_names"] for unique in inspector.get_unique_constraints(table)]
            for key in keys:
                assert "cluster_id" in key, f"{table}: {key}"
                if table in BY_LINK:
                    assert "link_id" in key, f"{table}: {key}"
            assert inspector.get_foreign_keys(table) == []
        with engine.connect() as connection:
            sequences = connection.execute(
                text("SELECT count(*) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace")
            ).scalar()
            assert sequences == 0
    finally:
        engine.dispose()
