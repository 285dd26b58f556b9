"""Reading links: what was seen in a scope and a span, each Link once with its Evidence.

Enters: Scope, Span. Leaves: ObservedLink values in no particular order.
Invariant: a Link's count is the client's, or the server's where no client reported; failed attempts never make a Link
established. Without a span, Links whose activity has been dropped by retention are there, too, with what is left.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, select, union
from sqlalchemy.sql import func

from aggregator.model.link import Confidence, Evidence, Link, ObservedLink, Side
from aggregator.model.workload import Workload
from aggregator.store import schema
from aggregator.store.deltas import EvidenceKind, Sides
from aggregator.store.keys import COARSE_MINUTES, FINE_MINUTES, cluster_id_of, milliseconds, moment, parse_link_key

_FINE_SPAN = timedelta(hours=26)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time from `start` to before `end`, timezone-aware UTC; widened to whole buckets when it is read."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The Links that have an end in a workload, else in a namespace, else all of a cluster."""

    cluster: str
    namespace: str | None = None
    workload: Workload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityPoint:
    """One bucket of one Link, as both sides counted it."""

    start: datetime
    minutes: int
    client_count: int
    client_tx_bytes: int
    client_rx_bytes: int
    server_count: int
    server_tx_bytes: int
    server_rx_bytes: int


class LinkReader:
    """Reads with any connection; remembers parsed Links, which never change."""

    def __init__(self, *, fine_kept: timedelta) -> None:
        self._fine_kept = fine_kept
        self._parsed: dict[tuple[int, int], Link] = {}

    def links(self, connection: Connection, scope: Scope, span: Span | None, now: datetime) -> list[ObservedLink]:
        in_scope = _in_scope(scope)
        sums = {row.link_id: row for row in connection.execute(self._sums(scope, span, now, in_scope))}
        attempts = {row.link_id: int(row.attempts) for row in connection.execute(self._attempts(scope, span, in_scope))}
        evidence = self._evidence(connection, scope, in_scope)
        observed = []
        for row in connection.execute(select(schema.link).where(in_scope)):
            seen = sums.get(row.link_id)
            failed = attempts.get(row.link_id, 0)
            if span is not None and seen is None and not failed:
                continue
            established = row.established if span is None else seen is not None
            observed.append(
                ObservedLink(
                    link=self._link(row),
                    evidence=_evidence_of(row, seen, failed, evidence.get(row.link_id, {})),
                    established=established,
                )
            )
        return observed

    def sums(
        self, connection: Connection, scope: Scope, span: Span | None, now: datetime
    ) -> dict[int, tuple[int, ...]]:
        rows = connection.execute(self._sums(scope, span, now, _in_scope(scope)))
        return {row[0]: tuple(row[1:]) for row in rows}

    def activity(
        self, connection: Connection, cluster: str, link_id: int, span: Span, now: datetime
    ) -> list[ActivityPoint]:
        table, minutes = self._table(span, now)
        statement = _narrowed(select(table), table, Scope(cluster=cluster), span, minutes)
        rows = connection.execute(statement.where(table.c.link_id == link_id).order_by(table.c.bucket_minute))
        return [
            ActivityPoint(
                start=moment(row.bucket_minute * 60_000),
                minutes=minutes,
                **{counter: getattr(row, counter) for counter in schema.COUNTERS},
            )
            for row in rows
        ]

    def _table(self, span: Span | None, now: datetime) -> tuple[Table, int]:
        """The finest resolution that is small enough and still kept for the whole span."""
        if span is not None and span.end - span.start <= _FINE_SPAN and span.start >= now - self._fine_kept:
            return schema.link_activity_5m, FINE_MINUTES
        return schema.link_activity_1h, COARSE_MINUTES

    def _sums(self, scope: Scope, span: Span | None, now: datetime, in_scope: ColumnElement[bool]) -> Select[Any]:
        table, minutes = self._table(span, now)
        statement: Select[Any] = select(
            table.c.link_id, *(func.sum(table.c[counter]).label(counter) for counter in schema.COUNTERS)
        )
        statement = _narrowed(statement, table, scope, span, minutes)
        return _of_links(statement, table, scope, in_scope).group_by(table.c.link_id)

    def _attempts(self, scope: Scope, span: Span | None, in_scope: ColumnElement[bool]) -> Select[Any]:
        table = schema.link_attempt
        statement: Select[Any] = select(table.c.link_id, func.sum(table.c.attempts).label("attempts"))
        statement = _narrowed(statement, table, scope, span, COARSE_MINUTES)
        return _of_links(statement, table, scope, in_scope).group_by(table.c.link_id)

    def _evidence(
        self, connection: Connection, scope: Scope, in_scope: ColumnElement[bool]
    ) -> dict[int, dict[EvidenceKind, list[str]]]:
        table = schema.link_evidence
        statement = select(table.c.link_id, table.c.kind, table.c.value).where(
            table.c.cluster_id == cluster_id_of(scope.cluster)
        )
        statement = _of_links(statement, table, scope, in_scope)
        found: dict[int, dict[EvidenceKind, list[str]]] = defaultdict(lambda: defaultdict(list))
        for row in connection.execute(statement):
            found[row.link_id][EvidenceKind(row.kind)].append(row.value)
        return found

    def _link(self, row: Row[Any]) -> Link:
        key = (row.cluster_id, row.link_id)
        link = self._parsed.get(key)
        if link is None:
            link = self._parsed[key] = parse_link_key(row.key)
        return link


def _in_scope(scope: Scope) -> ColumnElement[bool]:
    """By either end: two looks into an index and their union, where an OR would have every link of the cluster read."""
    table = schema.link
    in_cluster = table.c.cluster_id == cluster_id_of(scope.cluster)
    if scope.workload is None and scope.namespace is None:
        return in_cluster
    ends = (select(table.c.link_id).where(in_cluster, _ends_in(table, end, scope)) for end in ("src", "dst"))
    return and_(in_cluster, table.c.link_id.in_(union(*ends)))


def _ends_in(table: Table, end: str, scope: Scope) -> ColumnElement[bool]:
    if scope.workload is None:
        return table.c[f"{end}_namespace"] == scope.namespace
    return and_(
        table.c[f"{end}_namespace"] == scope.workload.namespace,
        table.c[f"{end}_name"] == scope.workload.name,
        table.c[f"{end}_kind"] == scope.workload.kind,
    )


def _of_links(statement: Select[Any], table: Table, scope: Scope, in_scope: ColumnElement[bool]) -> Select[Any]:
    """Of a workload's or a namespace's links alone; a whole cluster needs no such look. By way of `link`, not by the
    ids of the union: only so does PostgreSQL expect few of them, where it otherwise reads whole days.
    """
    if scope.workload is None and scope.namespace is None:
        return statement
    return statement.where(table.c.link_id.in_(select(schema.link.c.link_id).where(in_scope)))


def _narrowed(statement: Select[Any], table: Table, scope: Scope, span: Span | None, minutes: int) -> Select[Any]:
    """To the cluster and to the whole buckets that the span touches."""
    statement = statement.where(table.c.cluster_id == cluster_id_of(scope.cluster))
    if span is None:
        return statement
    first = milliseconds(span.start) // 60_000 // minutes * minutes
    end = -(-milliseconds(span.end) // 60_000)
    return statement.where(table.c.bucket_minute >= first, table.c.bucket_minute < end)


def _evidence_of(
    row: Row[Any],
    seen: Row[Any] | None,
    failed: int,
    found: dict[EvidenceKind, list[str]],
) -> Evidence:
    sides = Sides(row.sides)
    count, tx_bytes, rx_bytes = 0, 0, 0
    if seen is not None:
        client = (int(seen.client_count), int(seen.client_tx_bytes), int(seen.client_rx_bytes))
        server = (int(seen.server_count), int(seen.server_rx_bytes), int(seen.server_tx_bytes))
        # What the server sent is what the client received: tx and rx are the client's in either case.
        count, tx_bytes, rx_bytes = client if any(client) else server
    return Evidence(
        sides=frozenset(
            side for flag, side in ((Sides.CLIENT, Side.CLIENT), (Sides.SERVER, Side.SERVER)) if flag in sides
        ),
        services=_sorted(found.get(EvidenceKind.SERVICE, ())),
        processes=_sorted({*found.get(EvidenceKind.CLIENT_PROCESS, ()), *found.get(EvidenceKind.SERVER_PROCESS, ())}),
        connections=count,
        tx_bytes=tx_bytes,
        rx_bytes=rx_bytes,
        failed_attempts=failed,
        first_seen=moment(row.first_seen_ms),
        last_seen=moment(row.last_seen_ms),
        src_pods=_sorted(found.get(EvidenceKind.SRC_POD, ())),
        dst_pods=_sorted(found.get(EvidenceKind.DST_POD, ())),
        confidence=Confidence.HIGH if row.high_confidence else Confidence.LOW,
        same_node_probe=row.probe_only,
    )


def _sorted(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(values))
