"""Drifting: new and gone links of frozen baselines become events, one a link and freezing.

Enters: what people froze, what is recorded. Leaves: events in the log. Invariant: what should hold is computed anew in
every step and compared with what holds, so a step that was cut short, or done twice, leaves the same events.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from aggregator.baseline.drift import GONE_AFTER, Drift, GoneLink, NewLink, covers, drift
from aggregator.metrics import EVENTS_FOUND
from aggregator.model.decision import BaselineDecision, Choice
from aggregator.model.event import Ended, Event, EventEvidence, EventKind
from aggregator.model.link import Evidence, Link, ObservedLink, link_id
from aggregator.model.workload import Workload
from aggregator.store import Store
from aggregator.store.decisions import DecisionLog, DecisionState
from aggregator.store.events import EventLog, StoredEvent
from aggregator.store.keys import milliseconds, moment, parse_link_key
from aggregator.store.links import Scope
from aggregator.store.sightings import SeenLink, established_links

KINDS = (EventKind.NEW_LINK, EventKind.GONE_LINK)
YOUNG = timedelta(minutes=2)
"""So long after it was found an event still takes evidence on: the other end's node reports in its own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenBaseline:
    """`version` is the decision that froze it: taking links in later makes no new episode."""

    workload: Workload
    links: tuple[Link, ...]
    ids: frozenset[int]
    version: int


def frozen_baselines(state: DecisionState) -> dict[Workload, FrozenBaseline]:
    since: dict[Workload, int] = {}
    for version, record in state.in_force:
        match record.decision:
            case BaselineDecision(workload=workload, links=None):
                since.pop(workload, None)
            case BaselineDecision(workload=workload):
                since.setdefault(workload, version)
            case _:
                pass
    return {
        workload: FrozenBaseline(
            workload=workload,
            links=links,
            ids=frozenset(map(link_id, links)),
            version=since[workload],
        )
        for workload, links in state.decisions.frozen_baselines
    }


class Drifting:
    """One cluster's; only the leader steps."""

    def __init__(self, store: Store, decisions: DecisionLog, events: EventLog, cluster: str) -> None:
        self._store = store
        self._decisions = decisions
        self._events = events
        self._cluster = cluster
        self._state: DecisionState | None = None
        self._frozen: dict[Workload, FrozenBaseline] = {}
        self._lock = threading.Lock()

    def step(self, now: datetime) -> None:
        """Raises StoreError with nothing lost: the next step does the same again."""
        with self._lock:
            self._step(now)

    def _step(self, now: datetime) -> None:
        state = self._decisions.state(self._cluster)
        if state is not self._state:
            self._state, self._frozen = state, frozen_baselines(state)
        holding = {stored.event_id: stored for stored in self._events.holding(self._cluster, KINDS)}
        if not self._frozen and not holding:
            return
        seen = established_links(self._store.engine, self._cluster, self._frozen)
        wanted = self._wanted(seen, state.decisions.choice_by_link, holding.values(), now)
        self._begin([event for event in wanted.values() if event.event_id not in holding], now)
        young = [s for i, s in holding.items() if i in wanted and now - s.event.found_at < YOUNG]
        self._add_evidence(young, now)
        for stored in holding.values():
            if stored.event_id not in wanted:
                ended = self._why_ended(stored.event, state.decisions.choice_by_link)
                self._events.end(self._cluster, [stored.event_id], ended, at=now)

    # ---- what should hold -------------------------------------------------------------------------------------------

    def _wanted(
        self,
        seen: Mapping[Workload, Sequence[SeenLink]],
        choices: Mapping[Link, Choice],
        holding: Iterable[StoredEvent],
        now: datetime,
    ) -> dict[int, Event]:
        """By id. A link that drifts at both of its ends is one event: where it was found first, else the server's."""
        subjects = {(stored.event.kind, stored.event.link): stored.event.subject for stored in holding}
        found: dict[tuple[EventKind, Link], tuple[tuple[bool, bool], Event]] = {}
        for baseline in self._frozen.values():
            for change in _drift(baseline, seen[baseline.workload], now):
                event = _event(change, baseline, now)
                if choices.get(event.link) is Choice.EXCLUDE and event.kind is EventKind.NEW_LINK:
                    continue
                key = (event.kind, event.link)
                rank = (subjects.get(key) != event.subject, event.link.dst != baseline.workload)
                if key not in found or rank < found[key][0]:
                    found[key] = (rank, event)
        return {event.event_id: event for _, event in found.values()}

    def _begin(self, events: Sequence[Event], now: datetime) -> None:
        if not events:
            return
        known = {
            stored.event_id: stored.event for stored in self._events.known(self._cluster, [e.event_id for e in events])
        }
        self._events.refresh(self._cluster, known.values(), at=now)  # it had ended, and holds again
        fresh = self._with_evidence([event for event in events if event.event_id not in known])
        for event in self._events.note(self._cluster, fresh):
            EVENTS_FOUND.labels(event.kind.value).inc()

    def _add_evidence(self, young: Sequence[StoredEvent], now: datetime) -> None:
        before = [stored.event for stored in young if stored.event.kind is EventKind.NEW_LINK]
        changed = [event for event, old in zip(self._with_evidence(before), before, strict=True) if event != old]
        if changed:
            self._events.refresh(self._cluster, changed, at=now)

    def _with_evidence(self, events: Sequence[Event]) -> list[Event]:
        rows: dict[Link, ObservedLink] = {}
        workloads = {e for event in events for e in (event.link.src, event.link.dst) if e in self._frozen}
        for workload in workloads:
            assert isinstance(workload, Workload)
            rows.update((row.link, row) for row in self._store.links(Scope(cluster=self._cluster, workload=workload)))
        return [
            replace(event, evidence=evidence_of(rows[event.link].evidence)) if event.link in rows else event
            for event in events
        ]

    def _why_ended(self, event: Event, choices: Mapping[Link, Choice]) -> Ended:
        baseline = next((b for b in self._frozen.values() if str(b.workload) == event.subject), None)
        if baseline is None:
            return Ended.BASELINE_RELEASED
        held = event.link in baseline.links or any(covers(wide, event.link) for wide in baseline.links)
        if event.kind is EventKind.GONE_LINK:
            return Ended.SEEN_AGAIN if held else Ended.ACCEPTED
        if choices.get(event.link) is Choice.EXCLUDE:
            return Ended.LEFT_OUT
        return Ended.ACCEPTED if held else Ended.NOT_SEEN_ANY_MORE


def _drift(baseline: FrozenBaseline, seen: Sequence[SeenLink], now: datetime) -> Iterable[Drift]:
    """Nearly always nothing: that is told by numbers alone, before any link is made into a value."""
    oldest = milliseconds(now - GONE_AFTER)
    lately = {row.link_id for row in seen if row.last_seen_ms >= oldest}
    if baseline.ids == lately:
        return ()
    return drift(baseline.links, [_observed(row) for row in seen], now)


def _observed(row: SeenLink) -> ObservedLink:
    evidence = Evidence(first_seen=moment(row.first_seen_ms), last_seen=moment(row.last_seen_ms))
    return ObservedLink(link=parse_link_key(row.key), evidence=evidence)


def _event(change: Drift, baseline: FrozenBaseline, now: datetime) -> Event:
    match change:
        case NewLink(observed=row):
            return Event(
                kind=EventKind.NEW_LINK,
                subject=str(baseline.workload),
                episode=str(baseline.version),
                link=row.link,
                found_at=now,
                text=f"{row.link} is not in the baseline of {baseline.workload}",
                evidence=evidence_of(row.evidence),
            )
        case GoneLink(link=link, last_seen=last):
            when = f"since {last:%Y-%m-%d}" if last is not None else "any more, and no record of it is left"
            return Event(
                kind=EventKind.GONE_LINK,
                subject=str(baseline.workload),
                episode=f"{baseline.version}@{milliseconds(last) if last is not None else 0}",
                link=link,
                found_at=now,
                text=f"{link} is in the baseline of {baseline.workload} and was not seen {when}",
                evidence=EventEvidence(last_seen=last),
            )


def evidence_of(seen: Evidence) -> EventEvidence:
    return EventEvidence(
        processes=seen.processes,
        src_pods=seen.src_pods,
        dst_pods=seen.dst_pods,
        services=seen.services,
        connections=seen.connections,
        first_seen=seen.first_seen,
        last_seen=seen.last_seen,
    )
