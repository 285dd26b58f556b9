"""Proofs kept by what they are about: the same policies, promises and cluster are not proved twice.

Enters: a Question and a Generation. Leaves: the Generation as certify returns it. Invariant: a kept proof is used again
only where the YAML, each link's promise, the cluster and what a person removes are the same; evidence and counts of the
links may differ, for no proof rests on them. A failed proof is kept like any other.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from aggregator.model.certificate import Certificate
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.finding import Finding
from aggregator.model.proposal import Generation, Proposal
from aggregator.model.workload import Workload
from aggregator.policy.certify import SecondEvaluator, certify
from aggregator.services.question import Question

MOST_KEPT = 256
QUICK_LINKS = 100  # a proof of so many links takes less time than a person notices


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    cluster: ClusterSnapshot
    certificates: dict[Workload, Certificate | None]  # of the proposals that were not withdrawn
    added: tuple[Finding, ...]


@dataclass(slots=True)
class Proofs:
    """Thread-safe; the least recently used is forgotten first."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[Hashable, _Proof] = field(default_factory=OrderedDict)

    def of(self, question: Question, generation: Generation, second: SecondEvaluator | None) -> Generation:
        """Proved now, unless it was before."""
        key = _key(question, generation)
        kept = self._find(key, question.cluster)
        if kept is not None:
            return _with(generation, kept)
        cluster, profile = question.cluster, question.profile
        proved = certify(generation, cluster, decisions=question.decisions, profile=profile, second=second)
        proof = _Proof(
            cluster=cluster,
            certificates={proposal.workload: proposal.certificate for proposal in proved.proposals},
            added=tuple(found for found in proved.findings if found not in set(generation.findings)),
        )
        with self._lock:
            self._kept[key] = proof
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return proved

    def at_hand(self, question: Question, generation: Generation, second: SecondEvaluator | None) -> Generation | None:
        """None where it is not kept and would take long."""
        links = sum(len(proposal.included) + len(proposal.left_out) for proposal in generation.proposals)
        if links <= QUICK_LINKS:
            return self.of(question, generation, second)
        kept = self._find(_key(question, generation), question.cluster)
        return None if kept is None else _with(generation, kept)

    def _find(self, key: Hashable, cluster: ClusterSnapshot) -> _Proof | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.cluster is not cluster:
                return None
            self._kept.move_to_end(key)
            return kept


def _key(question: Question, generation: Generation) -> Hashable:
    decisions = question.decisions
    return (
        question.profile.name,
        generation.policies,
        tuple(_promises(proposal) for proposal in generation.proposals),
        tuple(decisions.removed_policies),
    )


def _promises(proposal: Proposal) -> Hashable:
    return (
        proposal.workload,
        tuple(row.observed.link for row in proposal.included),
        tuple((row.observed.link, row.denied) for row in proposal.left_out),
        proposal.synthesised,
        proposal.widenings,
        proposal.open_directions,
    )


def _with(generation: Generation, proof: _Proof) -> Generation:
    held: Sequence[Proposal] = [
        replace(proposal, certificate=proof.certificates[proposal.workload])
        for proposal in generation.proposals
        if proposal.workload in proof.certificates
    ]
    findings = sorted({*generation.findings, *proof.added}, key=Finding.sort_key)
    return replace(generation, proposals=tuple(held), findings=tuple(findings))
