"""Store: the one object that the rest of the aggregator holds of the database.

Enters: Merge values (through `sink`), reports, episodes. Leaves: links with evidence, agents, what waits and what was
lost. Invariant: every method is one transaction, blocking and thread-safe; callers on an event loop use a thread.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, select
from sqlalchemy.sql import func

from aggregator.model.history import Episode
from aggregator.model.link import ObservedLink
from aggregator.store import agents, episodes, pending, schema
from aggregator.store.agents import AgentReport, AgentStatus, CidrHint, GapStatus, QuarantineStatus
from aggregator.store.database import for_reading, for_writing, is_sqlite, open_engine
from aggregator.store.deltas import CursorKey, PendingFlow
from aggregator.store.keys import cluster_id_of, milliseconds
from aggregator.store.leadership import Leadership
from aggregator.store.links import ActivityPoint, LinkReader, Scope, Span
from aggregator.store.merging import SqlSink, translated
from aggregator.store.postgres import PostgresBulk
from aggregator.store.retention import Retention, run_retention
from aggregator.store.sink import Sink
from aggregator.store.sqlite import SqliteBulk
from aggregator.store.upsert import Upserts


class Store:
    """Reads and small writes; bulk writes go through `sink`."""

    def __init__(self, engine: Engine, *, retention: Retention, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._writer, self._reader = for_writing(engine), for_reading(engine)
        self._upserts = Upserts(engine.dialect.name)
        self._retention = retention
        self._clock = clock
        self._links = LinkReader(fine_kept=retention.fine)
        self._sink = SqlSink(engine, SqliteBulk() if is_sqlite(engine) else PostgresBulk(engine))
        self.leadership = Leadership(engine)

    @property
    def sink(self) -> Sink:
        return self._sink

    @property
    def engine(self) -> Engine:
        """For the other modules of store/ and for tests."""
        return self._engine

    def close(self) -> None:
        self.leadership.resign()
        self._engine.dispose()

    # ---- links ------------------------------------------------------------------------------------------------------

    def clusters(self) -> list[str]:
        with self._reading() as connection:
            return list(connection.execute(select(schema.cluster.c.name).order_by(schema.cluster.c.name)).scalars())

    def links(self, scope: Scope, span: Span | None = None) -> list[ObservedLink]:
        """Every Link of the scope that was seen in the span; without a span, every Link ever recorded."""
        with self._reading() as connection:
            return self._links.links(connection, scope, span, self._clock())

    def activity_sums(self, scope: Scope, span: Span | None = None) -> dict[int, tuple[int, ...]]:
        """By link id the sums of schema.COUNTERS in the span: what `links` shows, before it is made into values."""
        with self._reading() as connection:
            return self._links.sums(connection, scope, span, self._clock())

    def activity(self, cluster: str, link_id: int, span: Span) -> list[ActivityPoint]:
        """What both sides counted for one Link, bucket by bucket."""
        with self._reading() as connection:
            return self._links.activity(connection, cluster, link_id, span, self._clock())

    def recording_since(self, cluster: str) -> datetime | None:
        """When the first flow of the cluster was seen."""
        with self._reading() as connection:
            return _moment_or_none(
                connection.execute(
                    select(func.min(schema.link.c.first_seen_ms)).where(
                        schema.link.c.cluster_id == cluster_id_of(cluster)
                    )
                ).scalar()
            )

    # ---- agents -----------------------------------------------------------------------------------------------------

    def save_report(self, report: AgentReport) -> None:
        with self._writing() as connection:
            agents.save_report(connection, self._upserts, report)

    def agents(self, cluster: str) -> list[AgentStatus]:
        with self._reading() as connection:
            return agents.statuses(connection, cluster)

    def cidr_hints(self, cluster: str) -> list[CidrHint]:
        with self._reading() as connection:
            return agents.cidr_hints(connection, cluster)

    def losses(self, cluster: str, span: Span) -> dict[str, int]:
        """What agents lost or left out, by the names of schema.LOSSES."""
        with self._reading() as connection:
            return agents.losses_in(connection, cluster, span)

    def refusals(self, cluster: str, span: Span) -> dict[str, int]:
        """Flow records that became part of no Link, by reason."""
        with self._reading() as connection:
            return agents.refusals_in(connection, cluster, span)

    def gaps(self, cluster: str, *, limit: int = 100) -> list[GapStatus]:
        with self._reading() as connection:
            return agents.gaps(connection, cluster, limit=limit)

    def quarantined(self, cluster: str, *, limit: int = 100) -> list[QuarantineStatus]:
        with self._reading() as connection:
            return agents.quarantined(connection, cluster, limit=limit)

    def committed_seq(self, key: CursorKey) -> int:
        """How far a spool has been committed; 0 when it is unknown."""
        with self._reading() as connection:
            return agents.committed_seq(connection, key)

    # ---- what waits -------------------------------------------------------------------------------------------------

    def pending_flows(self, *, limit: int) -> list[PendingFlow]:
        """The oldest first."""
        with self._reading() as connection:
            return pending.oldest(connection, limit=limit)

    def pending_count(self, cluster: str) -> int:
        with self._reading() as connection:
            return pending.count(connection, cluster)

    def external_addresses(self, cluster: str, namespace: str, kind: str, name: str) -> dict[str, set[str]]:
        """The addresses that a workload has links with: {"src": those it is called by, "dst": those it calls}."""
        with self._reading() as connection:
            return pending.external_addresses(connection, cluster, (namespace, kind, name))

    # ---- the cluster's past: implements model.history.EpisodeStore --------------------------------------------------

    def save_episodes(self, episodes_to_save: Sequence[Episode]) -> None:
        with self._writing() as connection:
            self._sink.register_clusters(connection, {episode.cluster for episode in episodes_to_save})
            episodes.save(connection, self._upserts, episodes_to_save)

    def load_episodes(self, cluster: str, *, since: datetime) -> Sequence[Episode]:
        with self._reading() as connection:
            return episodes.load(connection, cluster, since)

    def forget_episodes(self, *, ended_before: datetime) -> int:
        with self._writing() as connection:
            return episodes.forget(connection, ended_before)

    # ---- upkeep -----------------------------------------------------------------------------------------------------

    def retain(self) -> dict[str, int]:
        """Make room ahead and let go of what is older than the retention: what was removed, by table. Leader only."""
        with translated():
            return run_retention(self._engine, self._retention, milliseconds(self._clock()))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with translated(), self._writer.begin() as connection:
            yield connection


def _moment_or_none(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, tz=UTC)


def open_store(
    url: str,
    *,
    retention: Retention | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(tz=UTC),
) -> Store:
    """The store behind `url`, whose schema must be current (see `migrate`). Raises ConfigurationError."""
    return Store(open_engine(url), retention=retention or Retention(), clock=clock)
