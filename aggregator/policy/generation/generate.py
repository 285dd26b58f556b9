"""From links and decisions to proposals: one for each workload, both ends of every link alike.

Enters: ObservedLinks in any order, Decisions, a ClusterSnapshot, Settings. Leaves: a Generation. Invariant: equal input
gives equal output, whatever its order; a direction in which nothing was seen is left open and said so; nothing is
written that would select or admit more than its rows, except what is returned as synthesised or as a Widening.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Choice, Decisions, GeneralRule
from aggregator.model.finding import Finding
from aggregator.model.link import Evidence, ObservedLink
from aggregator.model.networkpolicy import LabelSelector, NetworkPolicy, Rule
from aggregator.model.proposal import (
    DeclaredLink,
    Generation,
    IncludedLink,
    LeftOutLink,
    Proposal,
    Reason,
)
from aggregator.model.protocol import Direction
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, LinkEnd, Workload
from aggregator.policy.generation import notes
from aggregator.policy.generation.addresses import Addresses
from aggregator.policy.generation.declared import declared_links
from aggregator.policy.generation.direction import DirectionWriter, Written
from aggregator.policy.generation.dns import ClusterDNS, find_dns
from aggregator.policy.generation.facts import EndFacts, Facts, Judged
from aggregator.policy.generation.naming import Names
from aggregator.policy.generation.peers import Peers
from aggregator.policy.generation.ports import PORT_CODE_BITS, code
from aggregator.policy.generation.rows import Row, Rows
from aggregator.policy.generation.rules import sort_rules
from aggregator.policy.generation.selectors import Selected, Selectors
from aggregator.policy.manifest.split import split

MANAGED_BY = (("app.kubernetes.io/managed-by", "wattle"),)
BEYOND_POLICIES = frozenset({Reason.SAME_NODE_PROBE, Reason.LOOPBACK})  # no policy could deny these
DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)


def generate(
    links: Iterable[ObservedLink],
    decisions: Decisions,
    cluster: ClusterSnapshot,
    settings: Settings,
    *,
    selectors: Selectors | None = None,
    addresses: Addresses | None = None,
) -> Generation:
    """One proposal for each workload that was seen or that a person decided about.

    `selectors`, `addresses`: of this cluster and these decisions, where they are at hand.
    """
    known = selectors or Selectors(cluster, decisions.labels.workload_labels)
    owned = addresses or Addresses(cluster, decisions)
    with _collector_paused():
        return _Generator(list(links), decisions, cluster, settings, selectors=known, addresses=owned).run()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Hundreds of thousands of objects are made here and all of them stay: looking for garbage among them, over and
    over, was a third of the time. At the end they join the oldest generation as they are: frozen, then unfrozen.
    """
    resume = gc.enable if gc.isenabled() else gc.disable
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # what somebody else froze must stay frozen
            gc.freeze()
            gc.unfreeze()
        resume()


class _Generator:
    def __init__(
        self,
        links: Sequence[ObservedLink],
        decisions: Decisions,
        cluster: ClusterSnapshot,
        settings: Settings,
        *,
        selectors: Selectors,
        addresses: Addresses,
    ) -> None:
        known = {row.link for row in links} if decisions.links else set()
        unseen = [link for link, choice in decisions.links if choice is Choice.INCLUDE and link not in known]
        self._seen = links
        self._findings: list[Finding] = [notes.decided_not_seen(link) for link in unseen]
        self._links = [*links, *(ObservedLink(link=link, evidence=Evidence(), established=False) for link in unseen)]
        self._decisions = decisions
        self._cluster = cluster
        self._settings = settings
        self._selectors = selectors
        self._peers = Peers(cluster, self._selectors)
        self._addresses = addresses
        outside = [end.ip for row in self._links for end in (row.link.src, row.link.dst) if isinstance(end, Address)]
        self._dns = find_dns(cluster, outside) if settings.synthesise_dns else ClusterDNS()
        self._facts = Facts(decisions=decisions, settings=settings, peers=self._peers, dns=self._dns, cluster=cluster)
        self._rows = Rows(
            decisions=decisions,
            settings=settings,
            addresses=self._addresses,
            peers=self._peers,
            dns=self._dns,
            facts=self._facts,
        )
        self._writer = DirectionWriter(
            decisions=decisions,
            settings=settings,
            peers=self._peers,
            dns=self._dns,
            cluster=cluster,
            addresses=self._addresses,
        )

    def run(self) -> Generation:
        judged = self._rows.judge_all(_merged(self._links, self._facts))
        for row in judged:
            row.src.egress.append(row)
            row.dst.ingress.append(row)
        subjects = self._subjects()
        closed = {facts: self._closed(facts) for facts in subjects}
        left_out: list[LeftOutLink] = []
        for row in judged:
            if row.included:
                row.entry = IncludedLink(observed=row.observed, reason=row.reason, text=row.text)
            else:
                denied = row.reason not in BEYOND_POLICIES and self._is_denied(row, closed)
                row.entry = LeftOutLink(observed=row.observed, reason=row.reason, text=row.text, denied=denied)
                left_out.append(row.entry)
        self._findings += notes.of_rows(judged, self._addresses)
        names = self._names([facts.end for facts in subjects])
        proposals = []
        for facts in subjects:
            proposal = self._propose(facts, closed[facts], names) if self._is_asked(facts) else None
            if proposal is not None:
                proposals.append(proposal)
        self._facts.let_go()
        return Generation(
            proposals=tuple(proposals),
            default_denies=self._default_denies(names),
            findings=tuple(sorted(set(self._findings), key=Finding.sort_key)),
            left_out=tuple(left_out),
            declared=self._declared(),
        )

    def _declared(self) -> tuple[DeclaredLink, ...]:
        if not self._cluster.declared_callers:
            return ()
        decided = {link for link, _ in self._decisions.links}
        return declared_links(self._cluster, decided.union(row.link for row in self._seen))

    def _subjects(self) -> list[EndFacts]:
        """Workloads that were seen or decided about, by name; those on the host's network are no subjects (NP-28)."""
        for workload, _, _ in self._decisions.directions:
            self._facts.of(workload)
        for typed in self._decisions.typed_cidrs:
            self._facts.of(typed.workload)
        return [facts for facts in self._facts.workloads() if not facts.on_host]

    def _is_asked(self, facts: EndFacts) -> bool:
        return isinstance(facts.end, Workload) and self._settings.covers(facts.end)

    def _closed(self, facts: EndFacts) -> frozenset[Direction]:
        """The directions that this workload's policy isolates; none when no policy can be written for it."""
        closed = {
            direction
            for direction, rule in facts.rules.items()
            if rule is not None
            or facts.typed[direction]
            or any(row.reason is not Reason.SAME_NODE_PROBE for row in facts.rows(direction))
        }
        return frozenset((closed | self._settings.close_unseen) & facts.rules.keys()) if closed else frozenset()

    def _is_denied(self, row: Judged, closed: Mapping[EndFacts, frozenset[Direction]]) -> bool:
        """Will a proposal of this scope cut it?"""
        for direction, own, other in ((Direction.EGRESS, row.src, row.dst), (Direction.INGRESS, row.dst, row.src)):
            if direction in closed.get(own, ()) and self._is_asked(own) and not _allows_broadly(own, direction, other):
                return True
        return False

    def _names(self, subjects: Iterable[LinkEnd]) -> Names:
        workloads = {record.workload for record in self._cluster.workloads} | set(self._cluster.pods_by_workload)
        workloads |= {end for end in subjects if isinstance(end, Workload)}
        return Names(workloads, self._settings.name_prefix)

    def _propose(self, facts: EndFacts, closed: frozenset[Direction], names: Names) -> Proposal | None:
        workload = facts.end
        assert isinstance(workload, Workload)
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
                written[direction] = self._writer.write(facts, direction)
                findings += written[direction].findings
        still_open = self._settings.directions - closed
        findings += [notes.left_open(workload, direction) for direction in DIRECTIONS if direction in still_open]
        if selection.volatile_keys:
            findings.append(notes.volatile_selector(workload, selection.volatile_keys))
        policy = NetworkPolicy(
            namespace=workload.namespace,
            name=names.of(workload),
            pod_selector=selection.selector,
            policy_types=tuple(direction for direction in DIRECTIONS if direction in closed),
            ingress=_rules(workload.namespace, written.get(Direction.INGRESS)),
            egress=_rules(workload.namespace, written.get(Direction.EGRESS)),
            labels=MANAGED_BY,
        )
        # A link to itself stands in both directions.
        rows = facts.ingress + [row for row in facts.egress if row.dst is not facts]
        taken = tuple([row.entry for row in rows if isinstance(row.entry, IncludedLink)])
        if self._settings.annotate_evidence:
            policy = notes.annotated(policy, taken)
        self._findings += findings
        return Proposal(
            workload=workload,
            policies=split(policy, max_peers=self._settings.max_peers, max_bytes=self._settings.max_bytes),
            included=taken,
            left_out=tuple([row.entry for row in rows if isinstance(row.entry, LeftOutLink)]),
            synthesised=tuple(item for part in written.values() for item in part.synthesised),
            widenings=tuple(item for part in written.values() for item in part.widenings),
            open_directions=frozenset(still_open),
            findings=tuple(sorted(set(findings), key=Finding.sort_key)),
        )

    def _default_denies(self, names: Names) -> tuple[NetworkPolicy, ...]:
        """On request only, and applied last: it selects every pod of the namespace on purpose."""
        asked = sorted(self._decisions.default_denies, key=lambda item: (item[0], item[1].value))
        return tuple(
            NetworkPolicy(
                namespace=namespace,
                name=names.default_deny(direction),
                pod_selector=LabelSelector(),
                policy_types=(direction,),
                labels=MANAGED_BY,
            )
            for namespace, direction in asked
            if self._settings.namespaces is None or namespace in self._settings.namespaces
        )


def _rules(namespace: str, written: Written | None) -> tuple[Rule, ...]:
    if written is None:
        return ()
    return sort_rules(namespace, (*written.rules, *written.observed)) if written.rules else tuple(written.observed)


def _allows_broadly(own: EndFacts, direction: Direction, other: EndFacts) -> bool:
    match own.rules.get(direction):
        case GeneralRule.ALLOW_ALL:
            return True
        case GeneralRule.ALLOW_NAMESPACE:
            return isinstance(other.end, Workload) and other.namespace == own.namespace
        case _:
            return False


def _merged(rows: Sequence[ObservedLink], facts: Facts) -> Iterator[Row]:
    """Each link once, in the one order; where one comes twice, the established one with more connections stays."""
    ends = facts.of_rows(rows)
    count = facts.number()
    keys = [
        (src.rank * count + dst.rank) << PORT_CODE_BITS | code(row.link.protocol, row.link.port)
        for row, (src, dst) in zip(rows, ends, strict=True)
    ]
    ports = (1 << PORT_CODE_BITS) - 1
    last, best = -1, -1
    for number in np.argsort(np.array(keys, dtype=np.int64), kind="stable").tolist():
        if keys[number] != last:
            if best >= 0:
                yield rows[best], *ends[best], last & ports
            last, best = keys[number], number
        elif _weight(rows[number]) > _weight(rows[best]):
            best = number
    if best >= 0:
        yield rows[best], *ends[best], last & ports


def _weight(row: ObservedLink) -> tuple[bool, bool, bool, int, str]:
    evidence = row.evidence
    return (
        row.established,
        not evidence.same_node_probe,
        evidence.confidence.value == "high",
        evidence.connections,
        repr(evidence),
    )
