"""Overview: links counted by workload inside the database: a first page need not read each one.

Invariant: the counts are those of the rows that LinkReader would give without a span; an end that is no workload has no
namespace and is counted with nobody.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Select, case, func, select

from aggregator.errors import StoreError
from aggregator.model.workload import Workload
from aggregator.store import schema
from aggregator.store.database import for_reading
from aggregator.store.keys import cluster_id_of, moment
from aggregator.store.merging import translated

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadCount:
    """Links of one workload; first and last sightings are those of established ones, None without any."""

    workload: Workload
    ingress: int
    egress: int
    failed: int
    first_seen: datetime | None
    last_seen: datetime | None
    last_tried: datetime  # of any link, also one that was never established
    inside: int = 0  # of `egress`, those that stay in the workload's namespace


FRESH_SECONDS = 2.0  # counts of the whole cluster are taken again at most so often
KEPT_SECONDS = 60.0  # and are shown for so long while they are taken again


class Overview:
    """Blocking and thread-safe.

    Counting a whole cluster reads every link, and the first page of everybody asks for it: it is done by one at a time,
    and whoever comes meanwhile is shown the counts of a moment ago.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = for_reading(engine)
        self._clock = clock
        self._counting = threading.Lock()
        self._kept: dict[str, tuple[float, list[WorkloadCount]]] = {}

    def whole(self, cluster: str) -> list[WorkloadCount]:
        """Every workload that an end of a link is, in order; of a moment ago, a minute at most."""
        kept = self._kept.get(cluster)
        age = self._clock() - kept[0] if kept is not None else KEPT_SECONDS
        if kept is not None and age < FRESH_SECONDS:
            return kept[1]
        if kept is not None and age < KEPT_SECONDS:
            if self._counting.acquire(blocking=False):
                threading.Thread(target=self._count_again, args=(cluster,), name="overview", daemon=True).start()
            return kept[1]
        with self._counting:
            return self._count(cluster)

    def _count_again(self, cluster: str) -> None:
        try:
            self._count(cluster)
        except StoreError as error:
            log.warning("the links could not be counted: %s", error)
        finally:
            self._counting.release()

    def _count(self, cluster: str) -> list[WorkloadCount]:
        found = self.by_workload(cluster)
        self._kept[cluster] = (self._clock(), found)
        return found

    def by_workload(self, cluster: str, namespace: str = "") -> list[WorkloadCount]:
        """Of one namespace, or of all of them."""
        with translated(), self._reader.connect() as connection:
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
            func.sum(case((link.c.src_namespace != link.c.dst_namespace, 0), else_=_one_if_established())).label(
                "inside"
            ),
            func.count().label("rows"),
            func.max(link.c.last_seen_ms).label("tried_ms"),
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
        last_tried=moment(max(row.tried_ms for row in rows)),
        inside=int(out.inside) if out is not None else 0,
    )
