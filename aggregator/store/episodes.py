"""What the cluster view remembers of the past: implements model.history.EpisodeStore's three verbs on a connection."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, or_, select

from aggregator.model.history import Episode
from aggregator.store import schema
from aggregator.store.keys import cluster_id_of, milliseconds, moment
from aggregator.store.upsert import Upserts


def save(connection: Connection, upserts: Upserts, episodes: Sequence[Episode]) -> None:
    newest = {(cluster_id_of(episode.cluster), episode.key): episode for episode in episodes}
    if newest:
        connection.execute(
            upserts.episode,
            [
                {
                    "cluster_id": cluster_id,
                    "key": key,
                    "kind": episode.kind,
                    "began_ms": milliseconds(episode.began),
                    "ended_ms": None if episode.ended is None else milliseconds(episode.ended),
                    "body": episode.body,
                }
                for (cluster_id, key), episode in sorted(newest.items(), key=lambda item: item[0])
            ],
        )


def load(connection: Connection, cluster: str, since: datetime) -> list[Episode]:
    table = schema.episode
    rows = connection.execute(
        select(table).where(
            table.c.cluster_id == cluster_id_of(cluster),
            or_(table.c.ended_ms.is_(None), table.c.ended_ms >= milliseconds(since)),
        )
    )
    return [
        Episode(
            cluster=cluster,
            kind=row.kind,
            key=row.key,
            began=moment(row.began_ms),
            ended=None if row.ended_ms is None else moment(row.ended_ms),
            body=row.body,
        )
        for row in rows
    ]


def forget(connection: Connection, ended_before: datetime) -> int:
    table = schema.episode
    return connection.execute(delete(table).where(table.c.ended_ms < milliseconds(ended_before))).rowcount
