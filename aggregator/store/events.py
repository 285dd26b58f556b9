"""EventLog: events as they were found, how long they held, and which the webhook has taken.

Enters: Event values. Leaves: StoredEvent values. Invariant: an event is one row however often, by whomever and after
how many restarts it is found; ending one never deletes it, retention does that long after.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, delete, func, select, update

from aggregator.model.event import Ended, Event, EventEvidence, EventKind
from aggregator.model.link import link_key
from aggregator.model.workload import LinkEnd, Workload
from aggregator.store import schema
from aggregator.store.database import for_reading, for_writing
from aggregator.store.keys import cluster_id_of, milliseconds, moment, parse_link_key
from aggregator.store.merging import batched, translated
from aggregator.store.upsert import Upserts

OPEN = ""
_IDS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event with its id, the time at which it was last seen to hold, and whether the webhook has taken it."""

    event_id: int
    event: Event
    seen_at: datetime
    told: bool


class EventLog:
    """Blocking and thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._reader = for_reading(engine)
        self._writer = for_writing(engine)
        upserts = Upserts(engine.dialect.name)
        self._note = upserts.insert(schema.event).on_conflict_do_nothing().returning(schema.event.c.event_id)

    def note(self, cluster: str, events: Iterable[Event]) -> list[Event]:
        """Write those that are new; they are what leaves."""
        found = sorted({event.event_id: event for event in events}.items())
        new: list[Event] = []
        if not found:
            return new
        with translated(), self._writer.begin() as connection:
            for event_id, event in found:
                if connection.execute(self._note, _row(cluster, event_id, event)).first() is not None:
                    new.append(event)
        return new

    def refresh(self, cluster: str, events: Iterable[Event], *, at: datetime) -> None:
        """They still hold, with this evidence; those that had ended hold again."""
        table = schema.event
        with translated(), self._writer.begin() as connection:
            for event in events:
                connection.execute(
                    update(table)
                    .where(table.c.cluster_id == cluster_id_of(cluster), table.c.event_id == event.event_id)
                    .values(seen_ms=milliseconds(at), ended=OPEN, ended_ms=0, body=_body(event))
                )

    def touch(self, cluster: str, event_ids: Iterable[int], *, at: datetime) -> None:
        self._set(cluster, event_ids, {"seen_ms": milliseconds(at)})

    def end(self, cluster: str, event_ids: Iterable[int], ended: Ended, *, at: datetime) -> None:
        """They do not hold any more; the webhook has nothing left to hear of those that it has not taken."""
        self._set(cluster, event_ids, {"ended": ended.value, "ended_ms": milliseconds(at)})

    def told(self, cluster: str, event_ids: Iterable[int], *, at: datetime) -> None:
        self._set(cluster, event_ids, {"told_ms": milliseconds(at)})

    def untold(self, cluster: str, *, limit: int) -> tuple[list[StoredEvent], int]:
        """(the oldest that the webhook has not taken, how many there are)."""
        table = schema.event
        here = (table.c.cluster_id == cluster_id_of(cluster), table.c.told_ms == 0)
        with translated(), self._reader.connect() as connection:
            rows = connection.execute(
                select(table).where(*here).order_by(table.c.found_ms, table.c.event_id).limit(limit)
            ).all()
            count = connection.execute(select(func.count()).select_from(table).where(*here)).scalar_one()
        return [_stored(row) for row in rows], int(count)

    def holding(self, cluster: str, kinds: Sequence[EventKind] = tuple(EventKind)) -> list[StoredEvent]:
        """Those that have not ended, oldest first."""
        table = schema.event
        return self._read(cluster, table.c.ended == OPEN, table.c.kind.in_([kind.value for kind in kinds]))

    def known(self, cluster: str, event_ids: Iterable[int]) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        for part in batched(event_ids, _IDS):
            found += self._read(cluster, schema.event.c.event_id.in_(part))
        return found

    def ended_since(self, cluster: str, at: datetime) -> list[StoredEvent]:
        table = schema.event
        return self._read(cluster, table.c.ended != OPEN, table.c.ended_ms >= milliseconds(at))

    def events(self, cluster: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """The newest first."""
        table = schema.event
        with translated(), self._reader.connect() as connection:
            rows = connection.execute(
                select(table)
                .where(table.c.cluster_id == cluster_id_of(cluster))
                .order_by(table.c.found_ms.desc(), table.c.event_id.desc())
                .limit(limit)
            ).all()
        return [_stored(row) for row in rows]

    def counts(self, cluster: str) -> dict[EventKind, int]:
        """How many hold, by kind."""
        table = schema.event
        wanted = (
            select(table.c.kind, func.count().label("events"))
            .where(table.c.cluster_id == cluster_id_of(cluster), table.c.ended == OPEN)
            .group_by(table.c.kind)
        )
        with translated(), self._reader.connect() as connection:
            return {EventKind(row.kind): int(row.events) for row in connection.execute(wanted)}

    def forget(self, *, ended_before: datetime) -> int:
        """Remove those that ended before; how many."""
        table = schema.event
        gone = delete(table).where(table.c.ended != OPEN, table.c.ended_ms < milliseconds(ended_before))
        with translated(), self._writer.begin() as connection:
            return connection.execute(gone).rowcount

    def _set(self, cluster: str, event_ids: Iterable[int], values: dict[str, object]) -> None:
        table = schema.event
        ids = sorted(event_ids)
        if not ids:
            return
        with translated(), self._writer.begin() as connection:
            for part in batched(ids, _IDS):
                here = (table.c.cluster_id == cluster_id_of(cluster), table.c.event_id.in_(part))
                connection.execute(update(table).where(*here).values(**values))

    def _read(self, cluster: str, *where: Any) -> list[StoredEvent]:
        table = schema.event
        wanted = select(table).where(table.c.cluster_id == cluster_id_of(cluster), *where)
        with translated(), self._reader.connect() as connection:
            rows = connection.execute(wanted.order_by(table.c.found_ms, table.c.event_id)).all()
        return [_stored(row) for row in rows]


def _row(cluster: str, event_id: int, event: Event) -> dict[str, object]:
    return {
        "cluster_id": cluster_id_of(cluster),
        "event_id": event_id,
        "kind": event.kind.value,
        "subject": event.subject,
        "episode": event.episode,
        "link_key": link_key(event.link),
        "src_namespace": _namespace(event.link.src),
        "dst_namespace": _namespace(event.link.dst),
        "found_ms": milliseconds(event.found_at),
        "seen_ms": milliseconds(event.found_at),
        "ended": OPEN,
        "ended_ms": 0,
        "told_ms": 0,
        "body": _body(event),
    }


def _namespace(end: LinkEnd) -> str:
    return end.namespace if isinstance(end, Workload) else ""


def _body(event: Event) -> str:
    seen = event.evidence
    return json.dumps(
        {
            "text": event.text,
            "explanation": event.explanation,
            "cause": event.cause,
            "command": event.command,
            "processes": seen.processes,
            "src_pods": seen.src_pods,
            "dst_pods": seen.dst_pods,
            "services": seen.services,
            "nodes": seen.nodes,
            "connections": seen.connections,
            "first_seen_ms": milliseconds(seen.first_seen) if seen.first_seen else None,
            "last_seen_ms": milliseconds(seen.last_seen) if seen.last_seen else None,
        },
        ensure_ascii=True,
    )


def _stored(row: Row[Any]) -> StoredEvent:
    body = json.loads(row.body)
    evidence = EventEvidence(
        processes=tuple(body["processes"]),
        src_pods=tuple(body["src_pods"]),
        dst_pods=tuple(body["dst_pods"]),
        services=tuple(body["services"]),
        nodes=tuple(body["nodes"]),
        connections=body["connections"],
        first_seen=_moment(body["first_seen_ms"]),
        last_seen=_moment(body["last_seen_ms"]),
    )
    event = Event(
        kind=EventKind(row.kind),
        subject=row.subject,
        episode=row.episode,
        link=parse_link_key(row.link_key),
        found_at=moment(row.found_ms),
        text=body["text"],
        explanation=body["explanation"],
        cause=body["cause"],
        command=body["command"],
        evidence=evidence,
    )
    if row.ended:
        event = replace(event, ended=Ended(row.ended), ended_at=moment(row.ended_ms))
    return StoredEvent(event_id=row.event_id, event=event, seen_at=moment(row.seen_ms), told=row.told_ms > 0)


def _moment(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else moment(at_ms)
