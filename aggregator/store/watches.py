"""Policies on watch: who put them there, until when. Nothing is deleted: a watch that ended is still told of."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, insert, select, update

from aggregator.store import schema
from aggregator.store.database import for_writing
from aggregator.store.keys import cluster_id_of, milliseconds, moment
from aggregator.store.merging import translated


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWatch:
    watch_id: str
    name: str
    yaml: str
    author: str
    reason: str
    began_at: datetime
    ends_at: datetime
    stopped_at: datetime | None = None

    def runs(self, now: datetime) -> bool:
        return self.stopped_at is None and now < self.ends_at


class PolicyWatches:
    """Blocking and thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = for_writing(engine)

    def begin(self, cluster: str, watch: PolicyWatch) -> None:
        row = {
            "cluster_id": cluster_id_of(cluster),
            "watch_id": watch.watch_id,
            "name": watch.name,
            "yaml": watch.yaml,
            "author": watch.author,
            "reason": watch.reason,
            "began_ms": milliseconds(watch.began_at),
            "ends_ms": milliseconds(watch.ends_at),
        }
        with translated(), self._writer.begin() as connection:
            connection.execute(insert(schema.policy_watch), row)

    def stop(self, cluster: str, watch_id: str, *, at: datetime) -> bool:
        """False when it has been stopped already, or there is none."""
        table = schema.policy_watch
        here = (table.c.cluster_id == cluster_id_of(cluster), table.c.watch_id == watch_id, table.c.stopped_ms == 0)
        with translated(), self._writer.begin() as connection:
            return connection.execute(update(table).where(*here).values(stopped_ms=milliseconds(at))).rowcount == 1

    def all(self, cluster: str) -> list[PolicyWatch]:
        """The newest first."""
        table = schema.policy_watch
        wanted = select(table).where(table.c.cluster_id == cluster_id_of(cluster))
        with translated(), self._engine.connect() as connection:
            rows = connection.execute(wanted.order_by(table.c.began_ms.desc(), table.c.watch_id)).all()
        return [
            PolicyWatch(
                watch_id=row.watch_id,
                name=row.name,
                yaml=row.yaml,
                author=row.author,
                reason=row.reason,
                began_at=moment(row.began_ms),
                ends_at=moment(row.ends_ms),
                stopped_at=moment(row.stopped_ms) if row.stopped_ms else None,
            )
            for row in rows
        ]
