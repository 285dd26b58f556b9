"""Enforcing: connections that were opened, or are held open, although the applied policies deny them, become events.

Enters: openings of this process's recorder, the cluster view. Leaves: events. Invariant: links are judged when the
policies change and new ones as they come, so many a step; only openings of links that are denied for some pair of pods
are looked at one by one, pod by pod. What nobody can tell is counted as unknown and raises nothing.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from aggregator.metrics import ENFORCEMENT_JUDGED, ENFORCEMENT_LINKS, EVENTS_FOUND, OPENINGS_LEFT_OUT
from aggregator.model.address import AddressClass
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.decision import Decisions
from aggregator.model.endpoint import AddressEndpoint, Connection, PodEndpoint
from aggregator.model.event import Ended, Event, EventEvidence, EventKind
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction
from aggregator.model.resolution import Resolved
from aggregator.model.verdict import Explanation, Verdict
from aggregator.model.workload import Address, Workload
from aggregator.policy.enforcement import (
    MARGIN,
    Circumstances,
    Say,
    Sighting,
    VerdictNow,
    likely_cause,
    restart_command,
    say,
)
from aggregator.policy.evaluation.endpoints import pod_endpoint
from aggregator.policy.evaluation.judging import Judge, words
from aggregator.policy.generation.addresses import Addresses
from aggregator.policy.profiles.profile import Profile
from aggregator.services.recording.openings import MOST, Opening, Openings
from aggregator.services.verdicts import Verdicts
from aggregator.store.events import EventLog
from aggregator.store.keys import moment

if TYPE_CHECKING:
    from aggregator.model.link import Link

KINDS = (EventKind.NOT_ENFORCED, EventKind.HELD_OPEN)
LINKS_AT_ONCE = 500  # judged in one step
JUDGED_AGAIN = timedelta(minutes=5)  # pods with other labels may have come
FORGOTTEN = {EventKind.NOT_ENFORCED: timedelta(minutes=15), EventKind.HELD_OPEN: timedelta(minutes=11)}
"""A violation ends when none was seen for so long; a held connection when two looks at open sockets did not find it."""
TOUCHED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginState:
    """The network plug-in that was recognised. `enforces` None: none was."""

    name: str = "the network plug-in"
    enforces: bool | None = None
    why_not: str = ""


class StandingView(Protocol):
    """What is asked of the cluster view beside its snapshot."""

    @property
    def generation(self) -> int: ...

    def since(self, pods: Iterable[tuple[str, str]]) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcingSources:
    """Where it looks. `age_seconds` is the view's; `skews_ms` the clocks of agents, by name."""

    snapshot: Callable[[], ClusterSnapshot]
    standing: StandingView
    age_seconds: Callable[[], float]
    skews_ms: Callable[[], dict[str, int]]
    profile: Callable[[], Profile]
    plugin: Callable[[], PluginState]


class Enforcing:
    """One process's. `step` belongs to every process that records, `upkeep` to the leader."""

    def __init__(self, sources: EnforcingSources, openings: Openings, events: EventLog, cluster: str) -> None:
        self._sources = sources
        self._openings = openings
        self._events = events
        self._cluster = cluster
        self._generation = -1
        self._judged_at: datetime | None = None
        self._judged = 0  # links of `openings.links()` that are judged
        self._counts: dict[Verdict, int] = {}
        self._waiting: list[Opening] = []
        self._touched: dict[int, datetime] = {}
        self._violating: dict[str, datetime] = {}  # nodes, and when a violation was last seen there

    def step(self, now: datetime) -> None:
        """Raises StoreError; openings that were taken wait for the next step."""
        snapshot = self._sources.snapshot()
        anything = bool(snapshot.policies or snapshot.extra_policies)
        self._openings.listen(self._cluster, listening=anything)
        if not anything:
            self._waiting.clear()
            return
        self._judge_links(snapshot, now)
        self._waiting += self._openings.take(self._cluster)
        if self._waiting:
            self._look(snapshot, now)

    # ---- links ------------------------------------------------------------------------------------------------------

    def _judge_links(self, snapshot: ClusterSnapshot, now: datetime) -> None:
        generation = self._sources.standing.generation
        again = self._judged_at is None or now - self._judged_at >= JUDGED_AGAIN
        if generation != self._generation or again:
            self._generation, self._judged_at, self._judged, self._counts = generation, now, 0, {}
        links = self._openings.links()[self._judged :][:LINKS_AT_ONCE]
        if not links:
            return
        verdicts = Verdicts(snapshot, _policies(snapshot), self._sources.profile())
        quiet: list[Link] = []
        loud: list[Link] = []
        for link in links:
            if link.src.cluster != self._cluster:
                continue
            verdict = verdicts.of(link).verdict
            self._counts[verdict] = self._counts.get(verdict, 0) + 1
            (quiet if verdict is Verdict.ALLOWED else loud).append(link)
        self._openings.judged(quiet, quiet=True)
        self._openings.judged(loud, quiet=False)
        self._judged += len(links)
        if self._judged == len(self._openings.links()):
            for verdict in Verdict:
                ENFORCEMENT_LINKS.labels(self._cluster, verdict.value).set(self._counts.get(verdict, 0))

    # ---- openings ---------------------------------------------------------------------------------------------------

    def _look(self, snapshot: ClusterSnapshot, now: datetime) -> None:
        judge = Judge(_policies(snapshot), snapshot, self._sources.profile())
        pods = {(pod.namespace, pod.name): pod for pod in snapshot.pods if not pod.ended}
        outside = Addresses(snapshot, Decisions())
        skews = self._sources.skews_ms()
        confirmed = now - timedelta(seconds=self._sources.age_seconds())
        waiting: list[Opening] = []
        found: list[Event] = []
        for opening in self._waiting:
            connection = _connection(opening, pods, outside)
            if connection is None or abs(skews.get(opening.answer.identity.node, 0)) > MARGIN.total_seconds() * 500:
                ENFORCEMENT_JUDGED.labels(Say.UNKNOWN.value).inc()
                continue
            explanation = judge.explain(connection)
            verdict = VerdictNow(
                verdict=explanation.verdict,
                since=datetime.fromtimestamp(max(self._sources.standing.since(_names(connection)), 0.0), tz=UTC),
                confirmed=confirmed,
            )
            said = say(_sighting(opening), verdict)
            if said is Say.WAIT:
                waiting.append(opening)
                continue
            ENFORCEMENT_JUDGED.labels(said.value).inc()
            if said is Say.NOT_ENFORCED:
                found.append(self._violation(opening, connection, explanation, snapshot, now))
            elif said is Say.HELD_OPEN:
                found.append(_held_open(opening, connection, explanation, snapshot, now))
        judge.asked.clear()
        self._note(found, now)
        OPENINGS_LEFT_OUT.inc(max(len(waiting) - MOST, 0))
        self._waiting = waiting[-MOST:]

    def _note(self, found: Sequence[Event], now: datetime) -> None:
        """A link that is violated anew is not told of as held open besides."""
        violated = {event.link for event in found if event.kind is EventKind.NOT_ENFORCED}
        events = [e for e in found if e.kind is EventKind.NOT_ENFORCED or e.link not in violated]
        untouched = now - TOUCHED
        due = {e.event_id: e for e in events if self._touched.get(e.event_id, untouched) <= untouched}
        if not due:
            return
        new = {event.event_id for event in self._events.note(self._cluster, due.values())}
        for event_id, event in due.items():
            if event_id in new:
                EVENTS_FOUND.labels(event.kind.value).inc()
        self._events.refresh(self._cluster, [e for i, e in due.items() if i not in new], at=now)
        self._touched |= dict.fromkeys(due, now)
        self._touched = {i: at for i, at in self._touched.items() if now - at < timedelta(hours=1)}

    def _violation(
        self,
        opening: Opening,
        connection: Connection,
        explanation: Explanation,
        snapshot: ClusterSnapshot,
        now: datetime,
    ) -> Event:
        denying = _denying_pod(connection, explanation)
        deciding = _deciding(explanation, snapshot)
        self._violating[denying.node_name] = now
        plugin = self._sources.plugin()
        circumstances = Circumstances(
            plugin=plugin.name,
            enforces=plugin.enforces,
            why_not=plugin.why_not,
            node=denying.node_name,
            other_violating_nodes=[
                node
                for node, at in self._violating.items()
                if node != denying.node_name and now - at < FORGOTTEN[EventKind.NOT_ENFORCED]
            ],
            nodes=len(snapshot.nodes),
            deciding=deciding,
        )
        return Event(
            kind=EventKind.NOT_ENFORCED,
            subject=str(denying.workload),
            episode=_episode(deciding),
            link=opening.link,
            found_at=now,
            text=f"{opening.link} was opened although the applied policies deny it",
            evidence=_evidence(opening, connection, nodes=(denying.node_name,) if denying.node_name else ()),
            explanation=words(explanation),
            cause=likely_cause(circumstances),
        )

    # ---- the leader's -----------------------------------------------------------------------------------------------

    def upkeep(self, now: datetime) -> None:
        """End what is not seen any more, and what nothing denies any more."""
        holding = self._events.holding(self._cluster, KINDS)
        if not holding:
            return
        snapshot = self._sources.snapshot()
        verdicts = Verdicts(snapshot, _policies(snapshot), self._sources.profile())
        for stored in holding:
            if verdicts.of(stored.event.link).verdict is Verdict.ALLOWED:
                self._events.end(self._cluster, [stored.event_id], Ended.POLICIES_CHANGED, at=now)
            elif now - stored.seen_at >= FORGOTTEN[stored.event.kind]:
                self._events.end(self._cluster, [stored.event_id], Ended.NOT_SEEN_ANY_MORE, at=now)


def _policies(snapshot: ClusterSnapshot) -> tuple[NetworkPolicy | AdminPolicy | ForeignPolicy, ...]:
    extra = (p for p in snapshot.extra_policies if isinstance(p, AdminPolicy | ForeignPolicy))
    return (*snapshot.policies, *extra)


def _connection(opening: Opening, pods: dict[tuple[str, str], Pod], outside: Addresses) -> Connection | None:
    """Between two pods, or from a pod to an address outside. Others may have been translated on their way: None."""
    resolved = opening.answer.resolution
    if not isinstance(resolved, Resolved) or resolved.same_node_probe:
        return None
    src, link = pods.get(_pod_name(resolved.src_pod)), resolved.link
    if src is None or src.host_network:
        return None
    if isinstance(link.dst, Address):
        known = outside.classify(link.dst.ip).address_class
        if link.dst.prefix_length is not None or known is not AddressClass.EXTERNAL:
            return None
        address = AddressEndpoint(ip=link.dst.ip)
        source = pod_endpoint(src, family_of=(link.dst.ip,))
        return Connection(src=source, dst=address, protocol=link.protocol, port=link.port)
    dst = pods.get(_pod_name(resolved.dst_pod))
    if dst is None or dst.host_network or dst == src:
        return None
    target = pod_endpoint(dst, family_of=src.ips)
    return Connection(src=pod_endpoint(src, family_of=(target.ip,)), dst=target, protocol=link.protocol, port=link.port)


def _pod_name(name: str) -> tuple[str, str]:
    namespace, _, pod = name.partition("/")
    return (namespace, pod)


def _names(connection: Connection) -> list[tuple[str, str]]:
    ends = (connection.src, connection.dst)
    return [(end.pod.namespace, end.pod.name) for end in ends if isinstance(end, PodEndpoint)]


def _sighting(opening: Opening) -> Sighting:
    opened = moment(opening.opened_ms) if opening.opened_ms is not None else None
    return Sighting(opened=opened, seen=moment(opening.seen_ms))


def _denying_pod(connection: Connection, explanation: Explanation) -> Pod:
    """Of the side that denies: its node should have."""
    side = connection.dst if explanation.ingress.verdict is Verdict.DENIED else connection.src
    other = connection.src if side is connection.dst else connection.dst
    end = side if isinstance(side, PodEndpoint) else other
    assert isinstance(end, PodEndpoint)
    return end.pod


def _deciding(explanation: Explanation, snapshot: ClusterSnapshot) -> list[NetworkPolicy]:
    named = {
        finding.policy
        for side in (explanation.egress, explanation.ingress)
        if side.verdict is Verdict.DENIED
        for finding in side.policies
    }
    return [policy for policy in snapshot.policies if str(policy) in named]


def _episode(deciding: Sequence[NetworkPolicy]) -> str:
    """The policies as they are: changed ones, or others, are another episode; a restart is not."""
    text = "\n".join(sorted(repr(policy) for policy in deciding))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _evidence(opening: Opening, connection: Connection, *, nodes: tuple[str, ...]) -> EventEvidence:
    answer = opening.answer
    src, dst = (str(e.pod) if isinstance(e, PodEndpoint) else "" for e in (connection.src, connection.dst))
    service = answer.resolution.service if isinstance(answer.resolution, Resolved) else ""
    return EventEvidence(
        processes=(answer.process,) if answer.process else (),
        src_pods=(src,) if src else (),
        dst_pods=(dst,) if dst else (),
        services=(service,) if service else (),
        nodes=nodes or (answer.identity.node,),
        connections=1,
        first_seen=moment(opening.opened_ms if opening.opened_ms is not None else opening.seen_ms),
        last_seen=moment(opening.seen_ms),
    )


def _held_open(
    opening: Opening, connection: Connection, explanation: Explanation, snapshot: ClusterSnapshot, now: datetime
) -> Event:
    client = opening.link.src
    side = "client" if opening.answer.identity.direction is Direction.EGRESS else "server"
    return Event(
        kind=EventKind.HELD_OPEN,
        subject=str(client),
        episode=_episode(_deciding(explanation, snapshot)),
        link=opening.link,
        found_at=now,
        text=f"{client} holds a connection open that the applied policies would deny now: {opening.link}",
        evidence=_evidence(opening, connection, nodes=()),
        explanation=words(explanation),
        cause=f"it is older than the policies, and policies need not cut what is open (found at the {side})",
        command=restart_command(client) if isinstance(client, Workload) else "",
    )
