"""Retention: how long each thing is kept, and letting go of it.

Invariant: on PostgreSQL activity goes by DROP of whole days and nothing else; Links stay, whatever happens to their
activity. The small tables (evidence, losses, gaps, quarantine, cursors) are swept by DELETE on both databases.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.sql import func

from aggregator.store import schema
from aggregator.store.database import for_writing, is_sqlite
from aggregator.store.keys import DAY_MINUTES
from aggregator.store.postgres import create_partitions, days_ahead, drop_partitions

KEPT_QUARANTINED_BATCHES = 100  # an agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """`fine`: 5-minute activity. `coarse`: hourly activity and attempts, losses, refusals. `cursor`: unused cursors."""

    fine: timedelta = timedelta(days=2)
    coarse: timedelta = timedelta(days=35)
    evidence: timedelta = timedelta(days=90)
    cursor: timedelta = timedelta(days=30)


def run_retention(engine: Engine, retention: Retention, now_ms: int) -> dict[str, int]:
    """What was removed, by table: partitions on PostgreSQL, rows elsewhere."""
    today = now_ms // 60_000 // DAY_MINUTES
    first_kept = {
        table.name: today - (retention.fine if table is schema.link_activity_5m else retention.coarse).days
        for table in schema.PARTITIONED
    }
    removed: dict[str, int] = {}
    if not is_sqlite(engine):
        create_partitions(engine, days_ahead(today))
        for name in drop_partitions(engine, first_kept_day=first_kept):
            parent = name.rpartition("_")[0]
            removed[parent] = removed.get(parent, 0) + 1
    with for_writing(engine).begin() as connection:
        if is_sqlite(engine):
            for table in schema.PARTITIONED:
                removed[table.name] = connection.execute(
                    delete(table).where(table.c.bucket_minute < first_kept[table.name] * DAY_MINUTES)
                ).rowcount
        removed |= _sweep(connection, retention, now_ms)
    return {table: count for table, count in removed.items() if count}


def _sweep(connection: Connection, retention: Retention, now_ms: int) -> dict[str, int]:
    coarse_ms = now_ms - round(retention.coarse.total_seconds() * 1000)
    evidence_ms = now_ms - round(retention.evidence.total_seconds() * 1000)
    cursor_ms = now_ms - round(retention.cursor.total_seconds() * 1000)
    sweeps = (
        delete(schema.agent_loss).where(schema.agent_loss.c.bucket_minute < coarse_ms // 60_000),
        delete(schema.flow_refusal).where(schema.flow_refusal.c.bucket_minute < coarse_ms // 60_000),
        delete(schema.agent_gap).where(schema.agent_gap.c.at_ms < coarse_ms),
        delete(schema.quarantine).where(schema.quarantine.c.at_ms < coarse_ms),
        delete(schema.link_evidence).where(schema.link_evidence.c.last_seen_ms < evidence_ms),
        delete(schema.agent_cursor).where(schema.agent_cursor.c.used_ms < cursor_ms),
    )
    removed = {str(sweep.table): connection.execute(sweep).rowcount for sweep in sweeps}
    removed["quarantine"] += _thin_quarantine(connection)
    return removed


def _thin_quarantine(connection: Connection) -> int:
    """Keep each agent's newest: an agent gone mad must not fill the database."""
    table = schema.quarantine
    crowded = connection.execute(
        select(table.c.cluster_id, table.c.agent_id)
        .group_by(table.c.cluster_id, table.c.agent_id)
        .having(func.count() > KEPT_QUARANTINED_BATCHES)
    ).all()
    removed = 0
    for cluster_id, agent_id in crowded:
        own = (table.c.cluster_id == cluster_id, table.c.agent_id == agent_id)
        oldest_kept = connection.execute(
            select(table.c.at_ms)
            .where(*own)
            .order_by(table.c.at_ms.desc())
            .limit(1)
            .offset(KEPT_QUARANTINED_BATCHES - 1)
        ).scalar_one()
        removed += connection.execute(delete(table).where(*own, table.c.at_ms < oldest_kept)).rowcount
    return removed
