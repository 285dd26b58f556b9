"""SqlSink: one Merge, one transaction, on either database.

Enters: Merge. Leaves: a COMMIT, or an error of aggregator.errors with nothing written.
Invariant: the cursors are locked and compared first. Rows are written in the order of their keys, so that two
aggregators on one database wait for each other instead of locking each other out.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import attrgetter

from sqlalchemy import Connection, Engine, bindparam, delete, exc, select, tuple_, update

from aggregator.errors import (
    CursorMovedError,
    LinkCollisionError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from aggregator.store import rows, schema
from aggregator.store.database import for_writing
from aggregator.store.deltas import CursorKey, CursorMove, GapDelta, LinkSighting, Merge, PendingKey
from aggregator.store.keys import DAY_MINUTES, as_signed, as_unsigned, cluster_id_of
from aggregator.store.sink import Bulk, Cloned, CursorOpening, Opened
from aggregator.store.upsert import Upserts, insert_many

_CHUNK = 500  # row values in one statement: below SQLite's limit on variables
_IDS = 10_000  # single values
_CursorTuple = tuple[int, str, int]  # cluster_id, agent_id, epoch as the database has it


class SqlSink:
    """Implements Sink."""

    def __init__(self, engine: Engine, bulk: Bulk) -> None:
        self._engine = for_writing(engine)
        self._bulk = bulk
        self._upserts = Upserts(engine.dialect.name)
        self._clusters: set[str] = set()

    # ---- cursors ----------------------------------------------------------------------------------------------------

    def open_cursors(self, openings: Sequence[CursorOpening]) -> list[Opened | Cloned]:
        with self._transaction() as connection:
            self.register_clusters(connection, {opening.key.cluster for opening in openings})
            by_key = {_cursor_tuple(opening.key): opening for opening in openings}
            insert_many(
                connection,
                self._upserts.cursor,
                [
                    # What was acknowledged by another database, or never kept: this one counts from the spool's first.
                    _cursor_row(key, opening.first_seq - 1, opening)
                    for key, opening in sorted(by_key.items())
                ],
            )
            found = self._locked_cursors(connection, by_key)
            answers: dict[_CursorTuple, Opened | Cloned] = {}
            taken, forgotten = [], []
            for key, opening in sorted(by_key.items()):
                committed_seq, last_instance = found[key]
                if last_instance not in opening.lineage:
                    answers[key] = Cloned(last_instance=last_instance)
                    continue
                if committed_seq < opening.first_seq - 1:
                    forgotten.append(rows.gap_row(_forgotten(opening, committed_seq)))
                    committed_seq = opening.first_seq - 1
                answers[key] = Opened(committed_seq=committed_seq)
                taken.append(_cursor_row(key, committed_seq, opening))
            if forgotten:
                insert_many(connection, self._upserts.gap, forgotten)
            if taken:
                insert_many(connection, self._upserts.cursor_taken, taken)
        return [answers[_cursor_tuple(opening.key)] for opening in openings]

    def _locked_cursors(
        self, connection: Connection, keys: Collection[_CursorTuple]
    ) -> dict[_CursorTuple, tuple[int, int]]:
        """(committed_seq, instance) of those that are there, which nobody else can move until the transaction ends."""
        table = schema.agent_cursor
        key_columns = tuple_(table.c.cluster_id, table.c.agent_id, table.c.epoch)
        found: dict[_CursorTuple, tuple[int, int]] = {}
        ordered = sorted(keys)
        for start in range(0, len(ordered), _CHUNK):
            cursors = connection.execute(
                select(table)
                .where(key_columns.in_(ordered[start : start + _CHUNK]))
                .order_by(table.c.cluster_id, table.c.agent_id, table.c.epoch)
                .with_for_update()
            )
            found.update(
                {
                    (row.cluster_id, row.agent_id, row.epoch): (row.committed_seq, as_unsigned(row.instance))
                    for row in cursors
                }
            )
        return found

    # ---- the merge --------------------------------------------------------------------------------------------------

    def merge(self, merge: Merge) -> None:
        self._make_room(merge)
        with self._transaction() as connection:
            self.register_clusters(connection, _clusters_of(merge))
            self._move_cursors(connection, merge.cursors)
            self._settle(connection, merge.settled)
            self._add_links(connection, merge.links)
            if len(merge.activity):
                self._bulk.add_activity(connection, merge.activity)
            self._add_rest(connection, merge)

    def _make_room(self, merge: Merge) -> None:
        minutes = [delta.bucket_minute for delta in merge.attempts]
        if len(merge.activity):
            minutes += [int(merge.activity["bucket_minute"].min()), int(merge.activity["bucket_minute"].max())]
        if minutes:
            with translated():
                self._bulk.make_room(first_minute=min(minutes) // DAY_MINUTES * DAY_MINUTES, last_minute=max(minutes))

    def _move_cursors(self, connection: Connection, moves: Sequence[CursorMove]) -> None:
        """Compare and set, all of them or none."""
        if not moves:
            return
        keys = {_cursor_tuple(move.key): move for move in moves}
        found = self._locked_cursors(connection, keys)
        moved: dict[tuple[str, str, int], int | None] = {}
        for key, move in keys.items():
            committed_seq, instance = found.get(key, (None, None))
            if instance != move.instance:
                moved[move.key.as_tuple()] = None
            elif committed_seq != move.from_seq:
                moved[move.key.as_tuple()] = committed_seq
        if moved:
            raise CursorMovedError(moved)
        table = schema.agent_cursor
        connection.execute(
            update(table)
            .where(
                table.c.cluster_id == bindparam("on_cluster"),
                table.c.agent_id == bindparam("on_agent"),
                table.c.epoch == bindparam("on_epoch"),
            )
            .values(committed_seq=bindparam("to_seq"), used_ms=bindparam("at_ms")),
            [
                {
                    "on_cluster": key[0],
                    "on_agent": key[1],
                    "on_epoch": key[2],
                    "to_seq": move.to_seq,
                    "at_ms": move.at_ms,
                }
                for key, move in sorted(keys.items(), key=lambda item: item[0])
            ],
        )

    def _settle(self, connection: Connection, settled: Sequence[PendingKey]) -> None:
        """Take pending flows out. Each is there, or somebody else has settled it and this merge must not."""
        if not settled:
            return
        table = schema.pending_flow
        key_columns = tuple_(table.c.cluster_id, table.c.agent_id, table.c.epoch, table.c.seq, table.c.row)
        keys = sorted(
            (cluster_id_of(key.cluster), key.agent_id, as_signed(key.epoch), key.seq, key.row) for key in settled
        )
        deleted = 0
        for start in range(0, len(keys), _CHUNK):
            deleted += connection.execute(delete(table).where(key_columns.in_(keys[start : start + _CHUNK]))).rowcount
        if deleted != len(keys):
            message = f"{len(keys) - deleted} of {len(keys)} pending flows were settled by another aggregator"
            raise StoreError(message)

    def _add_links(self, connection: Connection, links: Sequence[LinkSighting]) -> None:
        if not links:
            return
        ordered = sorted(links, key=attrgetter("link_id"))
        insert_many(connection, self._upserts.link, [rows.link_row(sighting) for sighting in ordered])
        table = schema.link
        collided: set[int] = set()
        expected: dict[int, dict[int, str]] = defaultdict(dict)
        for sighting in ordered:
            if not sighting.verified:
                expected[cluster_id_of(sighting.link.src.cluster)][sighting.link_id] = sighting.key
        for cluster_id, keys in expected.items():
            for ids in batched(keys, _IDS):
                held = connection.execute(
                    select(table.c.link_id, table.c.key).where(
                        table.c.cluster_id == cluster_id, table.c.link_id.in_(ids)
                    )
                )
                collided |= {row.link_id for row in held if keys[row.link_id] != row.key}
        if collided:
            raise LinkCollisionError(frozenset(collided))

    def _add_rest(self, connection: Connection, merge: Merge) -> None:
        upserts = self._upserts
        for statement, values in (
            (upserts.attempt, [rows.attempt_row(delta) for delta in merge.attempts]),
            (upserts.evidence, [rows.evidence_row(delta) for delta in merge.evidence]),
            (upserts.pending, [rows.pending_row(flow) for flow in merge.pending]),
            (upserts.gap, [rows.gap_row(gap) for gap in merge.gaps]),
            (upserts.quarantine, [rows.quarantine_row(batch) for batch in merge.quarantined]),
            (upserts.loss, [rows.loss_row(delta) for delta in merge.losses]),
            (upserts.refusal, [rows.refusal_row(delta) for delta in merge.refusals]),
            (upserts.agent_delta, [rows.agent_row(delta) for delta in merge.agents]),
        ):
            if values:
                values.sort(key=lambda row: tuple(str(value) for value in row.values())[:5])
                insert_many(connection, statement, values)

    # ---- inside -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with translated(), self._engine.begin() as connection:
            yield connection

    def register_clusters(self, connection: Connection, names: set[str]) -> None:
        new = names - self._clusters
        if not new:
            return
        table = schema.cluster
        connection.execute(
            self._upserts.insert(table).on_conflict_do_nothing(),
            [{"cluster_id": cluster_id_of(name), "name": name} for name in sorted(new)],
        )
        for name in new:
            held_by = connection.execute(
                select(table.c.name).where(table.c.cluster_id == cluster_id_of(name))
            ).scalar_one()
            if held_by != name:
                message = f"the clusters {name!r} and {held_by!r} have the same id; rename one of them"
                raise StoreRefusedError(message)
        self._clusters |= new


@contextmanager
def translated() -> Iterator[None]:
    """The driver's errors in the words of aggregator.errors."""
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError) as error:
        message = f"the database is not available: {_first_line(error)}"
        raise StoreUnavailableError(message) from error
    except (exc.DataError, exc.IntegrityError) as error:
        message = f"the database refused the values: {_first_line(error)}"
        raise StoreRefusedError(message) from error
    except OverflowError as error:  # SQLite's driver, for an integer of more than 64 bits
        message = f"the database refused the values: {error}"
        raise StoreRefusedError(message) from error
    except exc.DBAPIError as error:
        message = f"the database failed: {_first_line(error)}"
        raise (StoreUnavailableError if error.connection_invalidated else StoreError)(message) from error


def batched(values: Iterable[int], size: int) -> Iterator[list[int]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _clusters_of(merge: Merge) -> set[str]:
    return {
        *(move.key.cluster for move in merge.cursors),
        *(sighting.link.src.cluster for sighting in merge.links),
    }


def _cursor_tuple(key: CursorKey) -> _CursorTuple:
    return (cluster_id_of(key.cluster), key.agent_id, as_signed(key.epoch))


def _cursor_row(key: _CursorTuple, committed_seq: int, opening: CursorOpening) -> rows.Row:
    return {
        "cluster_id": key[0],
        "agent_id": key[1],
        "epoch": key[2],
        "committed_seq": committed_seq,
        "instance": as_signed(opening.instance),
        "used_ms": opening.now_ms,
    }


def _forgotten(opening: CursorOpening, committed_seq: int) -> GapDelta:
    return GapDelta(
        key=opening.key,
        from_seq=committed_seq + 1,
        to_seq=opening.first_seq - 1,
        reason="forgotten",
        flow_records=0,
        at_ms=opening.now_ms,
    )
