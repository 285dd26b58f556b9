"""DecisionLog: what people decided, in the order in which they did; nothing is ever changed or taken out.

Enters: entries, made from the state that they were made against. Leaves: DecisionState. Invariant: the versions of a
cluster are 1, 2, 3, ... without a gap; an undo is an entry that says which one it takes back, so the state after it
is the state without that entry.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sqlalchemy import Connection, Engine, exc, insert, select

from aggregator.errors import ConflictError
from aggregator.model.decision import Decision, DecisionRecord, Decisions
from aggregator.store import schema
from aggregator.store.database import for_reading, for_writing
from aggregator.store.decision_codec import decode, encode
from aggregator.store.keys import cluster_id_of, milliseconds, moment
from aggregator.store.merging import translated

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """Takes back the entry of this version, which may itself be an undo."""

    version: int


Said = Decision | Undo


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionEntry:
    """What one person said at one time."""

    said: Said
    author: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    version: int
    entry: DecisionEntry


@dataclass(frozen=True, kw_only=True)
class DecisionState:
    """Everything said in a cluster, and what of it holds."""

    log: tuple[LoggedDecision, ...] = ()

    @property
    def version(self) -> int:
        return self.log[-1].version if self.log else 0

    @cached_property
    def undone(self) -> frozenset[int]:
        """Versions that an entry in force takes back. An undo can be undone: later entries are asked first."""
        undone: set[int] = set()
        for logged in reversed(self.log):
            if isinstance(logged.entry.said, Undo) and logged.version not in undone:
                undone.add(logged.entry.said.version)
        return frozenset(undone)

    @cached_property
    def in_force(self) -> tuple[tuple[int, DecisionRecord], ...]:
        return tuple(
            (
                logged.version,
                DecisionRecord(
                    decision=logged.entry.said,
                    author=logged.entry.author,
                    at=logged.entry.at,
                    reason=logged.entry.reason,
                ),
            )
            for logged in self.log
            if not isinstance(logged.entry.said, Undo) and logged.version not in self.undone
        )

    @cached_property
    def decisions(self) -> Decisions:
        return Decisions.of(record.decision for _, record in self.in_force)

    @cached_property
    def by_version(self) -> Mapping[int, LoggedDecision]:
        return {logged.version: logged for logged in self.log}

    def with_entries(self, entries: Iterable[LoggedDecision]) -> "DecisionState":
        return DecisionState(log=(*self.log, *entries))


class DecisionLog:
    """Blocking and thread-safe. Remembers the log of each cluster, which only grows."""

    def __init__(self, engine: Engine) -> None:
        self._reader = for_reading(engine)
        self._writer = for_writing(engine)
        self._states: dict[str, DecisionState] = {}

    def state(self, cluster: str) -> DecisionState:
        with translated(), self._reader.connect() as connection:
            return self._read(connection, cluster)

    def append(self, cluster: str, make: Callable[[DecisionState], Iterable[DecisionEntry]]) -> DecisionState:
        """Write what `make` says of the state as it is now, all of it or nothing. What `make` raises goes through."""
        for _ in range(_ATTEMPTS):
            try:
                with translated(), self._writer.begin() as connection:
                    before = self._read(connection, cluster)
                    added = [
                        LoggedDecision(version=before.version + number, entry=entry)
                        for number, entry in enumerate(make(before), start=1)
                    ]
                    _write(connection, cluster, added)
            except _TakenError:
                continue
            return before.with_entries(added)
        raise ConflictError("others decide at the same moment: try again")

    def _read(self, connection: Connection, cluster: str) -> DecisionState:
        known = self._states.setdefault(cluster, DecisionState())
        table = schema.decision
        rows = connection.execute(
            select(table)
            .where(table.c.cluster_id == cluster_id_of(cluster), table.c.version > known.version)
            .order_by(table.c.version)
        ).all()
        if not rows:
            return known
        state = known.with_entries(
            LoggedDecision(
                version=row.version,
                entry=DecisionEntry(
                    said=Undo(version=row.undoes) if row.undoes is not None else decode(row.body),
                    author=row.author,
                    at=moment(row.at_ms),
                    reason=row.reason,
                ),
            )
            for row in rows
        )
        self._states[cluster] = state
        return state


class _TakenError(Exception):
    """Somebody else has written this version."""


def _write(connection: Connection, cluster: str, added: list[LoggedDecision]) -> None:
    try:
        if added:
            connection.execute(insert(schema.decision), [_row(cluster, logged) for logged in added])
    except exc.IntegrityError as error:
        raise _TakenError from error


def _row(cluster: str, logged: LoggedDecision) -> dict[str, object]:
    said = logged.entry.said
    return {
        "cluster_id": cluster_id_of(cluster),
        "version": logged.version,
        "author": logged.entry.author,
        "at_ms": milliseconds(logged.entry.at),
        "reason": logged.entry.reason,
        "body": "" if isinstance(said, Undo) else encode(said),
        "undoes": said.version if isinstance(said, Undo) else None,
    }
