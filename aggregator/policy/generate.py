"""From links and decisions to proposals: one for each workload, both ends of every link alike.

Enters: ObservedLinks in any order, Decisions, a ClusterSnapshot, Settings. Leaves: a Generation. Invariant: equal input
gives equal output, whatever its order; a direction in which nothing was seen is left open and said so; nothing is
written that would select or admit more than its rows, except what is returned as synthesised or as a Widening.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Choice, Decisions, GeneralRule
from aggregator.model.finding import Finding
from aggregator.model.link import Evidence, Link, ObservedLink
from aggregator.model.networkpolicy import LabelSelector, NetworkPolicy, Rule
from aggregator.model.proposal import (
    Generation,
    IncludedLink,
    LeftOutLink,
    Proposal,
    Reason,
    Synthesised,
    Widening,
)
from aggregator.model.protocol import Direction
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, LinkEnd, Workload
from aggregator.policy import notes
from aggregator.policy.addresses import Addresses
from aggregator.policy.declared import declared_links
from aggregator.policy.direction import DirectionWriter, Written
from aggregator.policy.dns import ClusterDNS, find_dns
from aggregator.policy.naming import Names
from aggregator.policy.peers import Peers
from aggregator.policy.rows import Judged, Rows, ends
from aggregator.policy.rules import sort_rules
from aggregator.policy.selectors import Selected, Selectors
from aggregator.policy.split import split

MANAGED_BY = (("app.kubernetes.io/managed-by", "wattle"),)
BEYOND_POLICIES = frozenset({Reason.SAME_NODE_PROBE, Reason.LOOPBACK})  # no policy could deny these
DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)


def generate(
    links: Iterable[ObservedLink], decisions: Decisions, cluster: ClusterSnapshot, settings: Settings
) -> Generation:
    """One proposal for each workload that was seen or that a person decided about."""
    seen = _merged(links)
    return _Generator(_with_decided(seen, decisions), decisions, cluster, settings).run(seen)


@dataclass(slots=True, kw_only=True)
class _Subject:
    """What was judged for one workload."""

    rows: dict[Direction, list[Judged]] = field(default_factory=lambda: {d: [] for d in DIRECTIONS})
    seen: set[Direction] = field(default_factory=set)


class _Generator:
    def __init__(
        self, links: Sequence[ObservedLink], decisions: Decisions, cluster: ClusterSnapshot, settings: Settings
    ) -> None:
        self._links = links
        self._decisions = decisions
        self._cluster = cluster
        self._settings = settings
        self._selectors = Selectors(cluster, decisions.labels.workload_labels)
        self._peers = Peers(cluster, self._selectors)
        self._addresses = Addresses(cluster, decisions)
        outside = (end.ip for row in links for end in (row.link.src, row.link.dst) if isinstance(end, Address))
        self._dns = find_dns(cluster, outside) if settings.synthesise_dns else ClusterDNS()
        self._rows = Rows(
            decisions=decisions, settings=settings, addresses=self._addresses, peers=self._peers, dns=self._dns
        )
        self._writer = DirectionWriter(
            decisions=decisions,
            settings=settings,
            peers=self._peers,
            dns=self._dns,
            cluster=cluster,
            addresses=self._addresses,
        )
        self._subjects: dict[Workload, _Subject] = {}
        self._findings: list[Finding] = []
        self._names = Names((), settings.name_prefix)

    def run(self, seen: Sequence[ObservedLink]) -> Generation:
        known = {row.link for row in seen}
        self._findings += [notes.decided_not_seen(row.link) for row in self._links if row.link not in known]
        judged = self._rows.judge_all(self._links)
        for row in judged:
            self._take(row)
        for workload in self._asked_for():
            self._subjects.setdefault(workload, _Subject())
        closed = {workload: self._closed(workload, subject) for workload, subject in self._subjects.items()}
        included: dict[Link, IncludedLink] = {}
        left_out: dict[Link, LeftOutLink] = {}
        for row in judged:
            if row.included:
                included[row.observed.link] = IncludedLink(observed=row.observed, reason=row.reason, text=row.text)
            else:
                denied = row.reason not in BEYOND_POLICIES and self._is_denied(row.observed.link, closed)
                left_out[row.observed.link] = LeftOutLink(
                    observed=row.observed, reason=row.reason, text=row.text, denied=denied
                )
        self._findings += notes.of_rows(judged, self._addresses)
        self._names = self._named()
        proposals = []
        for workload in sorted(self._subjects):
            if self._settings.covers(workload):
                proposal = self._propose(workload, closed[workload], included=included, left_out=left_out)
                if proposal is not None:
                    proposals.append(proposal)
        denies = self._default_denies()
        return Generation(
            proposals=tuple(proposals),
            default_denies=denies,
            findings=tuple(sorted(set(self._findings), key=Finding.sort_key)),
            left_out=tuple(left_out.values()),
            declared=declared_links(self._cluster, {row.link for row in seen}),
        )

    def _take(self, row: Judged) -> None:
        link = row.observed.link
        for end, direction in ((link.src, Direction.EGRESS), (link.dst, Direction.INGRESS)):
            if not isinstance(end, Workload) or self._peers.on_host_network(end):
                continue
            subject = self._subjects.get(end)
            if subject is None:
                subject = self._subjects[end] = _Subject()
            subject.rows[direction].append(row)
            if row.reason is not Reason.SAME_NODE_PROBE:
                subject.seen.add(direction)

    def _asked_for(self) -> list[Workload]:
        """Workloads that a person decided about, seen or not."""
        asked = {workload for workload, _, _ in self._decisions.directions}
        asked |= {typed.workload for typed in self._decisions.typed_cidrs}
        return sorted(workload for workload in asked if not self._peers.on_host_network(workload))

    def _closed(self, workload: Workload, subject: _Subject) -> frozenset[Direction]:
        """The directions that this workload's policy isolates; none when no policy can be written for it."""
        if not self._peers.selectable(workload):
            return frozenset()
        closed = set(subject.seen)
        for direction in DIRECTIONS:
            if self._rows.rule(workload, direction) is not None:
                closed.add(direction)
            if self._decisions.typed_cidrs_of(workload, direction):
                closed.add(direction)
        if closed:
            closed |= self._settings.close_unseen
        return frozenset(closed & self._settings.directions)

    def _is_denied(self, link: Link, closed: Mapping[Workload, frozenset[Direction]]) -> bool:
        """Will a proposal of this scope cut it?"""
        for direction in DIRECTIONS:
            own, other = ends(link, direction)
            if not isinstance(own, Workload) or not self._settings.covers(own):
                continue
            if direction in closed.get(own, ()) and not self._allows_broadly(own, direction, other):
                return True
        return False

    def _allows_broadly(self, own: Workload, direction: Direction, other: LinkEnd) -> bool:
        match self._rows.rule(own, direction):
            case GeneralRule.ALLOW_ALL:
                return True
            case GeneralRule.ALLOW_NAMESPACE:
                return isinstance(other, Workload) and other.namespace == own.namespace
            case _:
                return False

    def _named(self) -> Names:
        workloads = {record.workload for record in self._cluster.workloads} | set(self._cluster.pods_by_workload)
        return Names(workloads | set(self._subjects), self._settings.name_prefix)

    def _propose(
        self,
        workload: Workload,
        closed: frozenset[Direction],
        *,
        included: Mapping[Link, IncludedLink],
        left_out: Mapping[Link, LeftOutLink],
    ) -> Proposal | None:
        subject = self._subjects[workload]
        selection = self._selectors.select(workload)
        if not isinstance(selection, Selected):
            known = self._peers.known(workload)
            self._findings.append(notes.not_separable(workload, selection, known=known))
            return None
        if not closed:
            return None
        findings: list[Finding] = []
        written: dict[Direction, Written] = {}
        for direction in DIRECTIONS:
            if direction in closed:
                written[direction] = self._writer.write(workload, direction, subject.rows[direction])
                findings += written[direction].findings
        still_open = self._settings.directions - closed
        findings += [notes.left_open(workload, direction) for direction in DIRECTIONS if direction in still_open]
        if selection.volatile_keys:
            findings.append(notes.volatile_selector(workload, selection.volatile_keys))
        policy = NetworkPolicy(
            namespace=workload.namespace,
            name=self._names.of(workload),
            pod_selector=selection.selector,
            policy_types=tuple(direction for direction in DIRECTIONS if direction in closed),
            ingress=_rules(workload.namespace, written.get(Direction.INGRESS)),
            egress=_rules(workload.namespace, written.get(Direction.EGRESS)),
            labels=MANAGED_BY,
        )
        rows = [row for direction in DIRECTIONS for row in subject.rows[direction]]
        chosen = dict.fromkeys(row.observed.link for row in rows if row.included)
        omitted = dict.fromkeys(row.observed.link for row in rows if not row.included)
        taken = tuple(included[link] for link in chosen)
        if self._settings.annotate_evidence:
            policy = notes.annotated(policy, taken)
        synthesised: list[Synthesised] = []
        widenings: list[Widening] = []
        for part in written.values():
            synthesised += part.synthesised
            widenings += part.widenings
        self._findings += findings
        return Proposal(
            workload=workload,
            policies=split(policy, max_peers=self._settings.max_peers, max_bytes=self._settings.max_bytes),
            included=taken,
            left_out=tuple(left_out[link] for link in omitted),
            synthesised=tuple(synthesised),
            widenings=tuple(widenings),
            open_directions=frozenset(still_open),
            findings=tuple(sorted(set(findings), key=Finding.sort_key)),
        )

    def _default_denies(self) -> tuple[NetworkPolicy, ...]:
        """On request only, and applied last: it selects every pod of the namespace on purpose."""
        asked = sorted(self._decisions.default_denies, key=lambda item: (item[0], item[1].value))
        return tuple(
            NetworkPolicy(
                namespace=namespace,
                name=self._names.default_deny(direction),
                pod_selector=LabelSelector(),
                policy_types=(direction,),
                labels=MANAGED_BY,
            )
            for namespace, direction in asked
            if self._settings.namespaces is None or namespace in self._settings.namespaces
        )


def _rules(namespace: str, written: Written | None) -> tuple[Rule, ...]:
    return () if written is None else sort_rules(namespace, written.rules)


def _merged(links: Iterable[ObservedLink]) -> list[ObservedLink]:
    """Each link once, in the one order; where one comes twice, the established one with more connections stays."""
    best: dict[Link, ObservedLink] = {}
    for row in links:
        known = best.get(row.link)
        if known is None or _weight(row) > _weight(known):
            best[row.link] = row
    return [best[link] for link in sorted(best, key=Link.sort_key)]


def _with_decided(seen: Sequence[ObservedLink], decisions: Decisions) -> list[ObservedLink]:
    """The rows seen, and those that a person included without their having been seen."""
    known = {row.link for row in seen}
    unseen = [link for link, choice in decisions.links if choice is Choice.INCLUDE and link not in known]
    rows = [*seen, *(ObservedLink(link=link, evidence=Evidence(), established=False) for link in unseen)]
    return sorted(rows, key=lambda row: row.link.sort_key()) if unseen else rows


def _weight(row: ObservedLink) -> tuple[bool, bool, bool, int, str]:
    evidence = row.evidence
    return (
        row.established,
        not evidence.same_node_probe,
        evidence.confidence.value == "high",
        evidence.connections,
        repr(evidence),
    )
