"""Overview: links counted by namespace and by workload inside the database: a first page need not read each one.

Invariant: the counts are those of the rows that LinkReader would give without a span; an end that is no workload has no
namespace and is counted with nobody.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Select, case, func, select

from aggregator.model.workload import Workload
from aggregator.store import schema
from aggregator.store.keys import cluster_id_of, moment
from aggregator.store.merging import translated


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespacePairCount:
    """Links from one namespace to another; "" where that end is no workload."""

    src: str
    dst: str
    links: int  # established ones
    last_seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadCount:
    """Links of one workload; first and last sightings are those of established ones, None without any."""

    workload: Workload
    ingress: int
    egress: int
    failed: int
    first_seen: datetime | None
    last_seen: datetime | None


class Overview:
    """Blocking and thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def by_namespace(self, cluster: str) -> list[NamespacePairCount]:
        link = schema.link
        statement = (
            select(
                link.c.src_namespace,
                link.c.dst_namespace,
                func.sum(_one_if_established()).label("links"),
                func.max(link.c.last_seen_ms).label("last_ms"),
            )
            .where(link.c.cluster_id == cluster_id_of(cluster))
            .group_by(link.c.src_namespace, link.c.dst_namespace)
        )
        with translated(), self._engine.connect() as connection:
            return [
                NamespacePairCount(
                    src=row.src_namespace, dst=row.dst_namespace, links=int(row.links), last_seen=moment(row.last_ms)
                )
                for row in connection.execute(statement)
            ]

    def workloads(self, cluster: str) -> set[Workload]:
        """Every workload that an end of a link is."""
        found = set()
        with translated(), self._engine.connect() as connection:
            for end in ("src", "dst"):
                name = [schema.link.c[f"{end}_{part}"] for part in ("namespace", "kind", "name")]
                wanted = [schema.link.c.cluster_id == cluster_id_of(cluster), name[0] != ""]
                found |= {tuple(row) for row in connection.execute(select(*name).distinct().where(*wanted))}
        return {Workload(cluster=cluster, namespace=namespace, kind=kind, name=name) for namespace, kind, name in found}

    def by_workload(self, cluster: str, namespace: str = "") -> list[WorkloadCount]:
        """Of one namespace, or of all of them."""
        with translated(), self._engine.connect() as connection:
            outward, inward = (
                {tuple(row[:3]): row for row in connection.execute(_by_end(cluster, end, namespace))}
                for end in ("src", "dst")
            )
        return [
            _count(cluster, key, outward.get(key), inward.get(key)) for key in sorted(outward.keys() | inward.keys())
        ]


def _one_if_established() -> Any:
    return case((schema.link.c.established, 1), else_=0)


def _by_end(cluster: str, end: str, namespace: str) -> Select[Any]:
    link = schema.link
    name = [link.c[f"{end}_{part}"] for part in ("namespace", "kind", "name")]
    wanted = [link.c.cluster_id == cluster_id_of(cluster), name[0] == namespace if namespace else name[0] != ""]
    return (
        select(
            *name,
            func.sum(_one_if_established()).label("links"),
            func.count().label("rows"),
            func.min(case((link.c.established, link.c.first_seen_ms))).label("first_ms"),
            func.max(case((link.c.established, link.c.last_seen_ms))).label("last_ms"),
        )
        .where(*wanted)
        .group_by(*name)
    )


def _count(cluster: str, key: tuple[Any, ...], out: Any, into: Any) -> WorkloadCount:
    rows = [row for row in (out, into) if row is not None]
    firsts = [row.first_ms for row in rows if row.first_ms is not None]
    lasts = [row.last_ms for row in rows if row.last_ms is not None]
    namespace, kind, name = key
    return WorkloadCount(
        workload=Workload(cluster=cluster, namespace=namespace, kind=kind, name=name),
        ingress=int(into.links) if into is not None else 0,
        egress=int(out.links) if out is not None else 0,
        failed=sum(int(row.rows) - int(row.links) for row in rows),
        first_seen=moment(min(firsts)) if firsts else None,
        last_seen=moment(max(lasts)) if lasts else None,
    )
