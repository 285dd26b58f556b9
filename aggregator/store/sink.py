"""Sink: where recorded flows go. One Protocol, one transaction a call, two databases behind it.

Enters: Merge values. Leaves: rows, all of a Merge or none. Invariant: a cursor moves in the transaction that writes
what it stands for, and only from where it was expected by the instance that owns it; else nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from aggregator.store.deltas import ActivityArray, CursorKey, Merge


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A cursor that this instance owns now."""

    committed_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloned:
    """The cursor's last instance is not in the lineage: the spool that says Hello is a copy."""

    last_instance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorOpening:
    """What Hello says of a spool: who has it now, who had it before, and the lowest number in it."""

    key: CursorKey
    instance: int
    lineage: Sequence[int]
    first_seq: int
    now_ms: int


class Sink(Protocol):
    """Blocking; callers on an event loop use a thread."""

    def open_cursors(self, openings: Sequence[CursorOpening]) -> list[Opened | Cloned]:
        """Take each cursor for its instance, or create it, in one transaction; no key twice. Numbers that this
        database never saw become a Gap.
        """
        ...

    def merge(self, merge: Merge) -> None:
        """Write everything in one transaction.

        Raises CursorMovedError, LinkCollisionError, StoreRefusedError or StoreUnavailableError; nothing is written
        then. After StoreUnavailableError the outcome may be unknown: the same merge again tells by CursorMovedError.
        """
        ...


class Bulk(Protocol):
    """What a database does in its own way: the two large upserts, and room for the days that they write to."""

    def make_room(self, *, first_minute: int, last_minute: int) -> None:
        """Partitions for every day in between, where the database has any; in a transaction of its own."""
        ...

    def add_activity(self, connection: Connection, activity: ActivityArray) -> None:
        """INSERT or add to what is there, in 5-minute buckets and in those of an hour."""
        ...
