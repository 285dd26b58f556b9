"""The statements of a merge: INSERT, and on a row that is there add, widen or keep.

Built once a process and cached by SQLAlchemy. PostgreSQL and SQLite share ON CONFLICT; they differ in the name of the
function that takes the larger of two values.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_
from sqlalchemy.dialects import postgresql, sqlite

from aggregator.store import schema

Insert = postgresql.Insert | sqlite.Insert


class Upserts:
    """One attribute a table."""

    def __init__(self, dialect: str) -> None:
        self._sqlite = dialect == "sqlite"
        link = self.insert(schema.link)
        new = link.excluded
        self.link = link.on_conflict_do_update(
            index_elements=[schema.link.c.cluster_id, schema.link.c.link_id],
            set_={
                "sides": schema.link.c.sides.op("|")(new.sides),
                "established": or_(schema.link.c.established, new.established),
                "high_confidence": or_(schema.link.c.high_confidence, new.high_confidence),
                "probe_only": and_(schema.link.c.probe_only, new.probe_only),
                "first_seen_ms": self._least(schema.link.c.first_seen_ms, new.first_seen_ms),
                "last_seen_ms": self._greatest(schema.link.c.last_seen_ms, new.last_seen_ms),
            },
        )
        evidence = self.insert(schema.link_evidence)
        self.evidence = evidence.on_conflict_do_update(
            index_elements=list(schema.link_evidence.primary_key.columns),
            set_={
                "first_seen_ms": self._least(schema.link_evidence.c.first_seen_ms, evidence.excluded.first_seen_ms),
                "last_seen_ms": self._greatest(schema.link_evidence.c.last_seen_ms, evidence.excluded.last_seen_ms),
            },
        )
        self.cursor = self.insert(schema.agent_cursor).on_conflict_do_nothing()
        self.cursor_taken = self._replacing(schema.agent_cursor, ["committed_seq", "instance", "used_ms"])
        self.attempt = self._adding(schema.link_attempt, ["attempts"])
        self.loss = self._adding(schema.agent_loss, schema.LOSSES)
        self.refusal = self._adding(schema.flow_refusal, ["flow_records", "count"])
        self.pending = self.insert(schema.pending_flow)
        self.gap = self.insert(schema.agent_gap)
        self.quarantine = self.insert(schema.quarantine)
        agent = self.insert(schema.agent)
        self.agent_delta = agent.on_conflict_do_update(
            index_elements=list(schema.agent.primary_key.columns),
            set_={
                "last_batch_ms": self._greatest(schema.agent.c.last_batch_ms, agent.excluded.last_batch_ms),
                **{
                    name: schema.agent.c[name] + agent.excluded[name]
                    for name in ("flow_records", "clamped_batches", "rejected_batches")
                },
            },
        )
        self.episode = self._replacing(schema.episode, ["kind", "began_ms", "ended_ms", "body"])
        self.note = self._replacing(schema.note, ["value"])

    def insert(self, table: Table) -> Insert:
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)

    def replacing(self, table: Table, names: Sequence[str]) -> Insert:
        """INSERT, or set the columns `names` to the new values."""
        return self._replacing(table, names)

    def _replacing(self, table: Table, names: Sequence[str]) -> Insert:
        statement = self.insert(table)
        return statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns), set_={name: statement.excluded[name] for name in names}
        )

    def _adding(self, table: Table, names: Sequence[str]) -> Insert:
        statement = self.insert(table)
        return statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: table.c[name] + statement.excluded[name] for name in names},
        )

    def _greatest(self, one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.max(one, other) if self._sqlite else func.greatest(one, other)

    def _least(self, one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.min(one, other) if self._sqlite else func.least(one, other)


def insert_many(connection: Connection, statement: Insert, rows: Sequence[dict[str, Any]]) -> None:
    """Execute with many rows, all with the same columns.

    Below SQLAlchemy's own executemany, whose work on every row's parameters costs four times as much as the driver's.
    """
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(rows[0]))
    if compiled.positional:
        order = compiled.positiontup or ()
        connection.exec_driver_sql(compiled.string, [tuple(row[name] for name in order) for row in rows])
    else:
        connection.exec_driver_sql(compiled.string, list(rows))
