"""Two links and what a merge tells of them."""

import numpy as np

from aggregator.model.link import Link, link_id, link_key
from aggregator.model.protocol import Protocol
from aggregator.store.deltas import ACTIVITY, ActivityArray, LinkSighting, Sides
from aggregator.store.keys import FINE_MINUTES, bucket_of, cluster_id_of
from tests.flowlink import CLUSTER, workload

NOW_MS = 1_790_000_000_000
LINK = Link(src=workload("client"), dst=workload("server"), protocol=Protocol.TCP, port=8080)
OTHER = Link(src=workload("client"), dst=workload("server"), protocol=Protocol.TCP, port=9090)


def sighting(link: Link, **changes: object) -> LinkSighting:
    values = {
        "link": link,
        "link_id": link_id(link),
        "key": link_key(link),
        "sides": Sides.CLIENT,
        "established": True,
        "high_confidence": True,
        "probe_only": False,
        "first_seen_ms": NOW_MS,
        "last_seen_ms": NOW_MS,
    }
    return LinkSighting(**values | changes)  # type: ignore[arg-type]


def activity(link: Link, *, at_ms: int = NOW_MS, **counters: int) -> ActivityArray:
    row = np.zeros(1, ACTIVITY)
    row["link_id"] = link_id(link)
    row["cluster_id"] = cluster_id_of(CLUSTER)
    row["bucket_minute"] = bucket_of(at_ms, FINE_MINUTES)
    for name, value in counters.items():
        row[name] = value
    return row
