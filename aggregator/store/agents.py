"""Agents: how each node feels, how far it was committed, what was lost, what was quarantined.

Enters: an AgentReport every 30 s. Leaves: AgentStatus and its like, for people and for readiness.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.sql import func

from aggregator.store import schema
from aggregator.store.deltas import CursorKey
from aggregator.store.keys import COARSE_MINUTES, as_signed, as_unsigned, bucket_of, cluster_id_of, milliseconds, moment
from aggregator.store.links import Span
from aggregator.store.upsert import Upserts

_REPORTED = (
    "version",
    "kernel",
    "backend",
    "refused",
    "cidr_hints",
    "map_fill_permille",
    "spool_bytes",
    "spool_batches",
    "clock_skew_ms",
    "last_report_ms",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CidrHint:
    """A CIDR value found in a control-plane process's arguments, e.g. ("kube-apiserver",
    "--service-cluster-ip-range").
    """

    process: str
    flag: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReport:
    """What a node said of itself."""

    cluster: str
    agent_id: str
    version: str
    kernel: str
    backend: str
    refused: tuple[str, ...]
    cidr_hints: tuple[CidrHint, ...]
    map_fill_permille: int
    spool_bytes: int
    spool_batches: int
    clock_skew_ms: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """A node's last report, its newest cursor, and the totals of what it delivered and lost."""

    agent_id: str
    version: str
    kernel: str
    backend: str
    refused: tuple[str, ...]
    cidr_hints: tuple[CidrHint, ...]
    map_fill_permille: int
    spool_bytes: int
    spool_batches: int
    clock_skew_ms: int
    last_report: datetime | None
    last_batch: datetime | None
    epoch: int
    committed_seq: int
    flow_records: int
    clamped_batches: int
    rejected_batches: int
    losses: dict[str, int]  # by the names of schema.LOSSES, all recorded hours
    gap_batches: int
    gap_flow_records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GapStatus:
    agent_id: str
    epoch: int
    from_seq: int
    to_seq: int
    reason: str
    flow_records: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineStatus:
    agent_id: str
    epoch: int
    seq: int
    reason: str
    size_bytes: int
    at: datetime


def save_report(connection: Connection, upserts: Upserts, report: AgentReport) -> None:
    connection.execute(
        upserts.replacing(schema.agent, _REPORTED),
        {
            "cluster_id": cluster_id_of(report.cluster),
            "agent_id": report.agent_id,
            "version": report.version,
            "kernel": report.kernel,
            "backend": report.backend,
            "refused": json.dumps(report.refused),
            "cidr_hints": json.dumps([[hint.process, hint.flag, hint.value] for hint in report.cidr_hints]),
            "map_fill_permille": report.map_fill_permille,
            "spool_bytes": report.spool_bytes,
            "spool_batches": report.spool_batches,
            "clock_skew_ms": report.clock_skew_ms,
            "last_report_ms": milliseconds(report.at),
        },
    )


def statuses(connection: Connection, cluster: str) -> list[AgentStatus]:
    """By name. An agent is known from its first batch or report on."""
    here = cluster_id_of(cluster)
    cursors: dict[str, Any] = {}
    cursor = schema.agent_cursor
    for row in connection.execute(select(cursor).where(cursor.c.cluster_id == here).order_by(cursor.c.used_ms)):
        cursors[row.agent_id] = row
    loss = schema.agent_loss
    losses = {
        row.agent_id: {name: int(getattr(row, name)) for name in schema.LOSSES}
        for row in connection.execute(
            select(loss.c.agent_id, *(func.sum(loss.c[name]).label(name) for name in schema.LOSSES))
            .where(loss.c.cluster_id == here)
            .group_by(loss.c.agent_id)
        )
    }
    gap = schema.agent_gap
    missing = {
        row.agent_id: (int(row.batches), int(row.flow_records))
        for row in connection.execute(
            select(
                gap.c.agent_id,
                func.sum(gap.c.to_seq - gap.c.from_seq + 1).label("batches"),
                func.sum(gap.c.flow_records).label("flow_records"),
            )
            .where(gap.c.cluster_id == here)
            .group_by(gap.c.agent_id)
        )
    }
    agent = schema.agent
    found = {row.agent_id: row for row in connection.execute(select(agent).where(agent.c.cluster_id == here))}
    return [
        _status(found[agent_id], cursors.get(agent_id), losses.get(agent_id), missing.get(agent_id, (0, 0)))
        for agent_id in sorted(found)
    ]


def _status(row: Any, cursor: Any, losses: dict[str, int] | None, missing: tuple[int, int]) -> AgentStatus:
    return AgentStatus(
        agent_id=row.agent_id,
        version=row.version,
        kernel=row.kernel,
        backend=row.backend,
        refused=tuple(json.loads(row.refused)),
        cidr_hints=_hints(row.cidr_hints),
        map_fill_permille=row.map_fill_permille,
        spool_bytes=row.spool_bytes,
        spool_batches=row.spool_batches,
        clock_skew_ms=row.clock_skew_ms,
        last_report=moment(row.last_report_ms) if row.last_report_ms else None,
        last_batch=moment(row.last_batch_ms) if row.last_batch_ms else None,
        epoch=as_unsigned(cursor.epoch) if cursor is not None else 0,
        committed_seq=cursor.committed_seq if cursor is not None else 0,
        flow_records=row.flow_records,
        clamped_batches=row.clamped_batches,
        rejected_batches=row.rejected_batches,
        losses=losses or dict.fromkeys(schema.LOSSES, 0),
        gap_batches=missing[0],
        gap_flow_records=missing[1],
    )


def _hints(text: str) -> tuple[CidrHint, ...]:
    return tuple(CidrHint(process=process, flag=flag, value=value) for process, flag, value in json.loads(text))


def cidr_hints(connection: Connection, cluster: str) -> list[CidrHint]:
    """What every node of the cluster found, each once."""
    agent = schema.agent
    rows = connection.execute(select(agent.c.cidr_hints).where(agent.c.cluster_id == cluster_id_of(cluster)))
    found = {hint for row in rows for hint in _hints(row.cidr_hints)}
    return sorted(found, key=lambda hint: (hint.process, hint.flag, hint.value))


def losses_in(connection: Connection, cluster: str, span: Span) -> dict[str, int]:
    """What all agents of the cluster lost or left out in the whole hours that the span touches."""
    loss = schema.agent_loss
    row = connection.execute(
        select(*(func.coalesce(func.sum(loss.c[name]), 0).label(name) for name in schema.LOSSES)).where(
            loss.c.cluster_id == cluster_id_of(cluster),
            loss.c.bucket_minute >= bucket_of(milliseconds(span.start), COARSE_MINUTES),
            loss.c.bucket_minute < -(-milliseconds(span.end) // 60_000),
        )
    ).one()
    return {name: int(getattr(row, name)) for name in schema.LOSSES}


def refusals_in(connection: Connection, cluster: str, span: Span) -> dict[str, int]:
    """Flow records that became part of no Link, by reason."""
    refusal = schema.flow_refusal
    rows = connection.execute(
        select(refusal.c.reason, func.sum(refusal.c.flow_records).label("flow_records"))
        .where(
            refusal.c.cluster_id == cluster_id_of(cluster),
            refusal.c.bucket_minute >= bucket_of(milliseconds(span.start), COARSE_MINUTES),
            refusal.c.bucket_minute < -(-milliseconds(span.end) // 60_000),
        )
        .group_by(refusal.c.reason)
    )
    return {row.reason: int(row.flow_records) for row in rows}


def gaps(connection: Connection, cluster: str, *, limit: int) -> list[GapStatus]:
    """Newest first."""
    gap = schema.agent_gap
    rows = connection.execute(
        select(gap).where(gap.c.cluster_id == cluster_id_of(cluster)).order_by(gap.c.at_ms.desc()).limit(limit)
    )
    return [
        GapStatus(
            agent_id=row.agent_id,
            epoch=as_unsigned(row.epoch),
            from_seq=row.from_seq,
            to_seq=row.to_seq,
            reason=row.reason,
            flow_records=row.flow_records,
            at=moment(row.at_ms),
        )
        for row in rows
    ]


def quarantined(connection: Connection, cluster: str, *, limit: int) -> list[QuarantineStatus]:
    """Newest first, without the batches themselves."""
    batch = schema.quarantine
    rows = connection.execute(
        select(
            batch.c.agent_id,
            batch.c.epoch,
            batch.c.seq,
            batch.c.reason,
            func.length(batch.c.message).label("size_bytes"),
            batch.c.at_ms,
        )
        .where(batch.c.cluster_id == cluster_id_of(cluster))
        .order_by(batch.c.at_ms.desc())
        .limit(limit)
    )
    return [
        QuarantineStatus(
            agent_id=row.agent_id,
            epoch=as_unsigned(row.epoch),
            seq=row.seq,
            reason=row.reason,
            size_bytes=row.size_bytes,
            at=moment(row.at_ms),
        )
        for row in rows
    ]


def committed_seq(connection: Connection, key: CursorKey) -> int:
    cursor = schema.agent_cursor
    return (
        connection.execute(
            select(cursor.c.committed_seq).where(
                cursor.c.cluster_id == cluster_id_of(key.cluster),
                cursor.c.agent_id == key.agent_id,
                cursor.c.epoch == as_signed(key.epoch),
            )
        ).scalar()
        or 0
    )
