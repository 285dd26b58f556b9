"""Sightings: on how many days each Link of a workload was seen, which readiness is estimated from.

Invariant: counted once a Link and day, whatever the traffic: bursts say nothing about what is still unseen.
"""

from sqlalchemy import Engine, distinct, func, or_, select

from aggregator.model.workload import Workload
from aggregator.store import schema
from aggregator.store.keys import DAY_MINUTES, cluster_id_of
from aggregator.store.merging import translated


def days_seen(engine: Engine, workload: Workload) -> dict[int, int]:
    """Days with activity by link id; Links whose activity is no longer kept are not in it."""
    link, activity = schema.link, schema.link_activity_1h
    ends = [
        (link.c[f"{end}_namespace"] == workload.namespace)
        & (link.c[f"{end}_name"] == workload.name)
        & (link.c[f"{end}_kind"] == workload.kind)
        for end in ("src", "dst")
    ]
    here = cluster_id_of(workload.cluster)
    ids = select(link.c.link_id).where(link.c.cluster_id == here, or_(*ends))
    day = activity.c.bucket_minute - activity.c.bucket_minute % DAY_MINUTES
    statement = (
        select(activity.c.link_id, func.count(distinct(day)).label("days"))
        .where(activity.c.cluster_id == here, activity.c.link_id.in_(ids))
        .group_by(activity.c.link_id)
    )
    with translated(), engine.connect() as connection:
        return {row.link_id: int(row.days) for row in connection.execute(statement)}
