"""The INGRESS and EGRESS tables: one row per link, aggregated by workload.

Enters: a Question, a scope. Leaves: LinkRow views in the one order of links. Invariant: a row whose other end is hidden
keeps what its own end saw (port, protocol, counts) and says nothing of the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from aggregator.model.decision import LinkDecision
from aggregator.model.link import Link, ObservedLink, link_id
from aggregator.model.proposal import DeclaredLink, Generation
from aggregator.model.protocol import Direction
from aggregator.model.settings import Settings
from aggregator.model.workload import LinkEnd, Workload
from aggregator.policy.generation.generate import generate
from aggregator.services.deciding.subjects import record_of
from aggregator.services.question import Question, Rows
from aggregator.services.views import AppliedVerdictView, InProposalView, LinkRow, RowDecisionView
from aggregator.services.wording import MASKED, peer_view, verdict_view

_HIDDEN = "the other end is in a namespace that you may not see"


def link_rows(
    question: Question, rows: Rows, *, namespace: str, workloads: Sequence[Workload] = (), direction: Direction | None
) -> list[LinkRow]:
    """The rows of some workloads, or of a namespace; one inside the scope is an EGRESS row, unless INGRESS is asked."""
    proposed = _proposed(generate_for(question, rows, namespace=namespace, workloads=workloads))
    table = _Table(question, proposed, namespace, frozenset(workloads))
    found = []
    for row in rows.clear:
        own = table.direction_of(row.link, direction)
        if own is not None:
            found.append(table.row(row, own))
    for identity, row in question.sight.named(rows.masked):
        own = table.direction_of(row.link, direction)
        if own is not None:
            found.append(table.masked_row(identity, row, own))
    return found


def generate_for(question: Question, rows: Rows, *, namespace: str, workloads: Sequence[Workload] = ()) -> Generation:
    """Once for all parts of one request that ask about the same rows under the same decisions."""
    key = (namespace, tuple(workloads), question.state.version, id(rows))
    kept = question.cut.generations.get(key)
    if kept is None:
        settings = Settings(
            namespaces=frozenset({namespace}),
            workloads=frozenset(workloads) if workloads else None,
            profile=question.profile.name,
        )
        whole = generate(
            rows.clear,
            question.decisions,
            question.cluster,
            settings,
            selectors=question.selectors,
            addresses=question.addresses,
        )
        declared = (row for row in whole.declared if _in_scope(row, namespace, workloads))
        kept = question.cut.generations[key] = (rows, replace(whole, declared=tuple(declared)))
    return kept[1]


def _in_scope(row: DeclaredLink, namespace: str, workloads: Sequence[Workload]) -> bool:
    """Whether a declared row has an end in the workloads, else in the namespace; "" is everything."""
    ends = [end for end in (row.link.src, row.link.dst) if isinstance(end, Workload)]
    if workloads:
        return any(end in workloads for end in ends)
    return not namespace or any(end.namespace == namespace for end in ends)


def _proposed(generation: Generation) -> Mapping[Link, InProposalView]:
    found = {
        row.observed.link: InProposalView(included=False, reason=row.reason.value, text=row.text, denied=row.denied)
        for row in generation.left_out
    }
    for proposal in generation.proposals:
        for chosen in proposal.included:
            found[chosen.observed.link] = InProposalView(included=True, reason=chosen.reason.value, text=chosen.text)
    return found


@dataclass(frozen=True, slots=True)
class _Table:
    question: Question
    proposed: Mapping[Link, InProposalView]
    namespace: str
    workloads: frozenset[Workload]

    def direction_of(self, link: Link, asked: Direction | None) -> Direction | None:
        """Seen from the scope's end; None when the link has no such end in the direction asked for."""
        for direction, end in ((Direction.EGRESS, link.src), (Direction.INGRESS, link.dst)):
            if self._own(end) and asked in {None, direction}:
                return direction
        return None

    def _own(self, end: LinkEnd) -> bool:
        if not isinstance(end, Workload):
            return False
        return end in self.workloads if self.workloads else end.namespace == self.namespace

    def row(self, row: ObservedLink, direction: Direction) -> LinkRow:
        link, seen = row.link, row.evidence
        outward = direction is Direction.EGRESS
        own, other = (link.src, link.dst) if outward else (link.dst, link.src)
        pods = (seen.src_pods, seen.dst_pods) if outward else (seen.dst_pods, seen.src_pods)
        return LinkRow(
            id=str(link_id(link)),
            direction=direction.value,
            workload=peer_view(self.question, own),
            peer=peer_view(self.question, other),
            protocol=link.protocol.value,
            port=link.port,
            processes=list(seen.processes),
            services=list(seen.services),
            connections=seen.connections,
            tx_bytes=seen.tx_bytes,
            rx_bytes=seen.rx_bytes,
            failed_attempts=seen.failed_attempts,
            established=row.established,
            confidence=seen.confidence.value,
            first_seen=seen.first_seen,
            last_seen=seen.last_seen,
            workload_pods=list(pods[0]),
            peer_pods=list(pods[1]),
            seen_by=sorted(side.value for side in seen.sides),
            applied=verdict_view(self.question, self.question.applied.of(link)),
            proposal=self.proposed.get(link, _NOT_PROPOSED),
            decision=decision_on(self.question, link),
        )

    def masked_row(self, identity: str, row: ObservedLink, direction: Direction) -> LinkRow:
        link, seen = row.link, row.evidence
        outward = direction is Direction.EGRESS
        return LinkRow(
            id=identity,
            direction=direction.value,
            workload=peer_view(self.question, link.src if outward else link.dst),
            peer=MASKED,
            protocol=link.protocol.value,
            port=link.port,
            processes=[],
            services=[],
            connections=seen.connections,
            tx_bytes=seen.tx_bytes,
            rx_bytes=seen.rx_bytes,
            failed_attempts=seen.failed_attempts,
            established=row.established,
            confidence=seen.confidence.value,
            first_seen=seen.first_seen,
            last_seen=seen.last_seen,
            workload_pods=list(seen.src_pods if outward else seen.dst_pods),
            peer_pods=[],
            seen_by=[],
            applied=AppliedVerdictView(verdict="unknown", text=_HIDDEN),
            proposal=InProposalView(included=False, reason="masked", text=_HIDDEN),
            decision=None,
        )


_NOT_PROPOSED = InProposalView(
    included=False, reason="no-proposal", text="no policy can be written for this workload: see the findings"
)


def decision_on(question: Question, link: Link) -> RowDecisionView | None:
    """The last word about this row, if it still holds."""
    choice = question.decisions.choice_by_link.get(link)
    if choice is None:
        return None
    for version, record in reversed(question.state.in_force):
        if isinstance(record.decision, LinkDecision) and record.decision.link == link:
            return RowDecisionView(
                choice=choice.value,
                author=record.author,
                at=record.at,
                reason=record.reason,
                record=record_of(question.sight, version),
            )
    return None


def rows_by_id(rows: Iterable[ObservedLink]) -> Mapping[str, Link]:
    """Links by the ids that the caller was shown."""
    return {str(link_id(row.link)): row.link for row in rows}


def masked_ids(question: Question, rows: Iterable[ObservedLink]) -> frozenset[str]:
    return frozenset(identity for identity, _ in question.sight.named(rows))
