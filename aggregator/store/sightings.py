"""Sightings: on how many days each Link of a workload was seen, which readiness is estimated from; and which Links
workloads have, which drift is found by.

Invariant: counted once a Link and day, whatever the traffic: bursts say nothing about what is still unseen.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Engine, Row, and_, distinct, func, not_, or_, select

from aggregator.model.workload import Workload
from aggregator.store import schema
from aggregator.store.database import for_reading
from aggregator.store.keys import DAY_MINUTES, cluster_id_of
from aggregator.store.merging import translated


def days_seen(engine: Engine, workload: Workload) -> dict[int, int]:
    """Days with activity by link id; Links whose activity is no longer kept are not in it."""
    link, activity = schema.link, schema.link_activity_1h
    here = cluster_id_of(workload.cluster)
    ids = select(link.c.link_id).where(link.c.cluster_id == here, _either_end(workload))
    day = activity.c.bucket_minute - activity.c.bucket_minute % DAY_MINUTES
    statement = (
        select(activity.c.link_id, func.count(distinct(day)).label("days"))
        .where(activity.c.cluster_id == here, activity.c.link_id.in_(ids))
        .group_by(activity.c.link_id)
    )
    with translated(), for_reading(engine).connect() as connection:
        return {row.link_id: int(row.days) for row in connection.execute(statement)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenLink:
    """A link that is established and no probe, as little of it as drift asks for; `key` is its canonical key."""

    link_id: int
    key: str
    first_seen_ms: int
    last_seen_ms: int


_PARTS = ("namespace", "kind", "name")
FEW_WORKLOADS = 50
"""Up to so many are asked for one by one, by the index; more are cheaper to find in one reading of all links."""


def established_links(engine: Engine, cluster: str, workloads: Collection[Workload]) -> dict[Workload, list[SeenLink]]:
    """By each of the workloads, the links that have it as an end."""
    link = schema.link
    columns: list[Column[Any]] = [link.c.link_id, link.c.key, link.c.first_seen_ms, link.c.last_seen_ms]
    ends: list[Column[Any]] = [link.c[f"{end}_{part}"] for end in ("src", "dst") for part in _PARTS]
    counted = (link.c.cluster_id == cluster_id_of(cluster), link.c.established, not_(link.c.probe_only))
    found: dict[Workload, list[SeenLink]] = {workload: [] for workload in workloads}
    wanted = {(workload.namespace, workload.kind, workload.name): workload for workload in workloads}
    with translated(), for_reading(engine).connect() as connection:
        if len(workloads) <= FEW_WORKLOADS:
            for workload in workloads:
                # End by end: with OR, SQLite reads every link.
                rows = {
                    row.link_id: _seen(row)
                    for end in ("src", "dst")
                    for row in connection.execute(select(*columns).where(*counted, _at_end(end, workload)))
                }
                found[workload] += rows.values()
            return found
        for row in connection.execute(select(*columns, *ends).where(*counted)):
            for end in {tuple(row[4:7]), tuple(row[7:10])}:
                if end in wanted:
                    found[wanted[end]].append(_seen(row))
    return found


def _seen(row: Row[Any]) -> SeenLink:
    return SeenLink(link_id=row.link_id, key=row.key, first_seen_ms=row.first_seen_ms, last_seen_ms=row.last_seen_ms)


def _either_end(workload: Workload) -> ColumnElement[bool]:
    return or_(_at_end("src", workload), _at_end("dst", workload))


def _at_end(end: str, workload: Workload) -> ColumnElement[bool]:
    link = schema.link
    return and_(
        link.c[f"{end}_namespace"] == workload.namespace,
        link.c[f"{end}_name"] == workload.name,
        link.c[f"{end}_kind"] == workload.kind,
    )


def live_links(engine: Engine, cluster: str, namespaces: Collection[str], *, since_ms: int) -> list[SeenLink]:
    """Those with an end in one of the namespaces that were in use since then."""
    link = schema.link
    columns: list[Column[Any]] = [link.c.link_id, link.c.key, link.c.first_seen_ms, link.c.last_seen_ms]
    counted = (
        link.c.cluster_id == cluster_id_of(cluster),
        link.c.established,
        not_(link.c.probe_only),
        link.c.last_seen_ms >= since_ms,
    )
    names = sorted(namespaces)
    with translated(), for_reading(engine).connect() as connection:
        rows = {
            row.link_id: _seen(row)
            for end in ("src", "dst")
            for row in connection.execute(select(*columns).where(*counted, link.c[f"{end}_namespace"].in_(names)))
        }
    return list(rows.values())
