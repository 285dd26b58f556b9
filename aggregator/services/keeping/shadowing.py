"""Shadowing: policies on watch are lived with before they are applied; what they would deny becomes events.

Enters: policies that somebody put on watch, links in use since then. Leaves: events. Invariant: a link is judged when
it is new, and again every few minutes, never for each flow; a watch ends by itself, and with it its events; nothing is
ever applied from here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from aggregator.errors import InputError
from aggregator.metrics import EVENTS_FOUND, WATCHES_RUNNING
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.event import Ended, Event, EventEvidence, EventKind
from aggregator.model.link import Link
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.verdict import Verdict
from aggregator.model.workload import Workload
from aggregator.policy.evaluation.judging import words
from aggregator.policy.manifest.parse import parse_policy
from aggregator.policy.profiles.profile import Profile
from aggregator.services.keeping.drifting import evidence_of
from aggregator.services.verdicts import LinkVerdict, Verdicts
from aggregator.store import Store
from aggregator.store.events import EventLog
from aggregator.store.keys import milliseconds, parse_link_key
from aggregator.store.links import Scope
from aggregator.store.sightings import SeenLink, live_links
from aggregator.store.watches import PolicyWatch, PolicyWatches

LINKS_AT_ONCE = 500
JUDGED_AGAIN = timedelta(minutes=5)


@dataclass(slots=True)
class _Judged:
    """Of one watch: which links were judged, and since when anew."""

    policies: tuple[NetworkPolicy, ...]
    since: datetime
    links: set[int] = field(default_factory=set)


class Shadowing:
    """One cluster's; only the leader steps. `read` makes the documents of a text."""

    def __init__(
        self,
        store: Store,
        events: EventLog,
        cluster: str,
        *,
        snapshot: Callable[[], ClusterSnapshot],
        profile: Callable[[], Profile],
        read: Callable[[str], Iterable[object]],
    ) -> None:
        self._store = store
        self._events = events
        self._cluster = cluster
        self._watches = PolicyWatches(store.engine)
        self._snapshot = snapshot
        self._profile = profile
        self._read = read
        self._judged: dict[str, _Judged] = {}

    def step(self, now: datetime) -> None:
        """Raises StoreError with nothing lost."""
        running = {watch.watch_id: watch for watch in self._watches.all(self._cluster) if watch.runs(now)}
        WATCHES_RUNNING.labels(self._cluster).set(len(running))
        for watch_id in self._judged.keys() - running.keys():
            del self._judged[watch_id]
        self._end(running, now)
        for watch in running.values():
            self._watch(watch, now)

    def _end(self, running: Mapping[str, PolicyWatch], now: datetime) -> None:
        over = [
            stored.event_id
            for stored in self._events.holding(self._cluster, [EventKind.WOULD_BE_DENIED])
            if stored.event.subject not in running
        ]
        self._events.end(self._cluster, over, Ended.WATCH_ENDED, at=now)

    def _watch(self, watch: PolicyWatch, now: datetime) -> None:
        judged = self._judged.get(watch.watch_id)
        if judged is None or now - judged.since >= JUDGED_AGAIN:
            policies = judged.policies if judged is not None else policies_in(self._read(watch.yaml))
            judged = self._judged[watch.watch_id] = _Judged(policies, now)
        namespaces = {policy.namespace for policy in judged.policies}
        live = live_links(self._store.engine, self._cluster, namespaces, since_ms=milliseconds(watch.began_at))
        unjudged = [row for row in live if row.link_id not in judged.links][:LINKS_AT_ONCE]
        if not unjudged:
            return
        verdicts = would_be(self._snapshot(), judged.policies, self._profile())
        denied = [found for row in unjudged if (found := _denied(verdicts, row)) is not None]
        self._raise(watch, denied, now)
        judged.links |= {row.link_id for row in unjudged}

    def _raise(self, watch: PolicyWatch, denied: Sequence[tuple[Link, LinkVerdict]], now: datetime) -> None:
        events = [_event(watch, link, verdict, now) for link, verdict in denied]
        known = {stored.event_id for stored in self._events.known(self._cluster, [e.event_id for e in events])}
        fresh = [event for event in events if event.event_id not in known]
        for event in self._events.note(self._cluster, self._with_evidence(fresh)):
            EVENTS_FOUND.labels(event.kind.value).inc()

    def _with_evidence(self, events: Sequence[Event]) -> list[Event]:
        found: dict[Link, EventEvidence] = {}
        ends = {event.link.src if isinstance(event.link.src, Workload) else event.link.dst for event in events}
        for end in ends:
            if isinstance(end, Workload):
                for row in self._store.links(Scope(cluster=self._cluster, workload=end)):
                    found[row.link] = evidence_of(row.evidence)
        return [replace(event, evidence=found.get(event.link, event.evidence)) for event in events]


def policies_in(documents: Iterable[object]) -> tuple[NetworkPolicy, ...]:
    """Of a text, or a List in it. Raises InputError: nothing but NetworkPolicies is watched."""
    found: list[NetworkPolicy] = []
    for number, document in enumerate(documents, start=1):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise InputError("is no Kubernetes object", document=number)
        items = document.get("items") if str(document.get("kind", "")).endswith("List") else [document]
        for item in items if isinstance(items, list) else []:
            if not isinstance(item, dict):
                raise InputError("is no Kubernetes object", document=number)
            found.append(parse_policy(item))
    if not found:
        raise InputError("there is no NetworkPolicy in it", field="yaml")
    return tuple(found)


def would_be(snapshot: ClusterSnapshot, policies: Sequence[NetworkPolicy], profile: Profile) -> Verdicts:
    """As if they were applied: beside the applied ones, in the place of those of the same name."""
    replaced = {(policy.namespace, policy.name) for policy in policies}
    remaining = (p for p in snapshot.policies if (p.namespace, p.name) not in replaced)
    extra = (p for p in snapshot.extra_policies if isinstance(p, AdminPolicy | ForeignPolicy))
    return Verdicts(snapshot, (*remaining, *policies, *extra), profile)


def _denied(verdicts: Verdicts, row: SeenLink) -> tuple[Link, LinkVerdict] | None:
    link = parse_link_key(row.key)
    found = verdicts.of(link)
    return (link, found) if found.verdict is Verdict.DENIED else None


def _event(watch: PolicyWatch, link: Link, found: LinkVerdict, now: datetime) -> Event:
    partly = f", for some pods such as {found.example}" if found.partly else ""
    return Event(
        kind=EventKind.WOULD_BE_DENIED,
        subject=watch.watch_id,
        episode=watch.watch_id,
        link=link,
        found_at=now,
        text=f"{link} is in use, and {watch.name} would deny it{partly}",
        explanation=words(found.explanation) if found.explanation is not None else "",
    )
