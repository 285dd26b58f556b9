"""The proof of proposals: what they promise, checked on what they say when written out.

Enters: a Generation, the cluster, and what a person will remove. Leaves: the Generation with a Certificate on every
proposal; a proposal whose Certificate does not hold is none: it becomes an error finding. Invariant: only rendered and
parsed-back YAML is judged, for the proposals alone and together with the applied policies that will remain.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy, Policy
from aggregator.model.certificate import Breach, Certificate, OpenedPair, Setting
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Decisions
from aggregator.model.endpoint import Connection
from aggregator.model.finding import Finding, Severity
from aggregator.model.link import Link
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.proposal import Generation, Proposal
from aggregator.model.verdict import Verdict
from aggregator.policy.evaluation.judging import Judge, example, words
from aggregator.policy.evaluation.live import Live, connect
from aggregator.policy.evaluation.opened import is_exempt, opened_by
from aggregator.policy.generation.dns import find_dns
from aggregator.policy.manifest.readback import read_back
from aggregator.policy.manifest.render import render
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Profile
from aggregator.policy.second import compiled_verdicts

CERTIFICATE_BROKEN = "certificate-broken"
EVALUATORS = ("plain", "compiled")
# A second evaluator, sharing no code with the first: the verdicts of many connections at once.
SecondEvaluator = Callable[[Sequence[Policy], ClusterSnapshot, Profile, Sequence[Connection]], Sequence[Verdict]]


def certify(
    generation: Generation,
    cluster: ClusterSnapshot,
    *,
    decisions: Decisions | None = None,
    profile: Profile = GENERIC,
    second: SecondEvaluator | None = None,
) -> Generation:
    """The proposals that can be proved, each with its proof; the rest as findings. `second` None = the compiled one."""
    remaining = _remaining(generation, cluster, decisions or Decisions())
    proposals = generation.proposals
    findings = list(generation.findings)
    while True:
        text = render((*(p for proposal in proposals for p in proposal.policies), *generation.default_denies))
        proof = _Proof(read_back(text), remaining, cluster, profile, second or compiled_verdicts)
        certified = proof.certified(proposals)
        broken = [p for p in certified if p.certificate is not None and not p.certificate.holds]
        if not broken:
            break
        # Without these policies others may no longer hold either: prove what is left anew.
        findings += [_broken(proposal) for proposal in broken]
        proposals = tuple(p for p in certified if p.certificate is not None and p.certificate.holds)
    return Generation(
        proposals=certified,
        default_denies=generation.default_denies,
        findings=tuple(sorted(set(findings), key=Finding.sort_key)),
        left_out=generation.left_out,
        declared=generation.declared,
    )


def _remaining(generation: Generation, cluster: ClusterSnapshot, decisions: Decisions) -> tuple[Policy, ...]:
    """The applied policies that a download neither replaces nor a person removes."""
    gone = {(policy.namespace, policy.name) for policy in generation.policies} | set(decisions.removed_policies)
    native = tuple(policy for policy in cluster.policies if (policy.namespace, policy.name) not in gone)
    others = tuple(policy for policy in cluster.extra_policies if isinstance(policy, AdminPolicy | ForeignPolicy))
    return (*native, *others)


@dataclass(frozen=True, slots=True)
class _Try:
    """One link under one setting: how many pairs were judged, and the first that is not as promised."""

    judged: int
    exempt: int  # pairs of a pod and itself, or of a node and its own pod: always allowed
    breach: Breach | None = None
    undecided: Breach | None = None

    def shows(self, expected: Verdict) -> bool:
        """Was there anything to judge, and was all of it as promised?"""
        judged = self.judged + (self.exempt if expected is Verdict.ALLOWED else 0)
        return judged > 0 and self.breach is None and self.undecided is None


class _Proof:
    """Proves proposals of one generation; evaluators are made once."""

    def __init__(
        self,
        proposed: tuple[NetworkPolicy, ...],
        remaining: tuple[Policy, ...],
        cluster: ClusterSnapshot,
        profile: Profile,
        second: SecondEvaluator,
    ) -> None:
        self._cluster = cluster
        self._profile = profile
        self._second = second
        self._proposed = {(policy.namespace, policy.name): policy for policy in proposed}
        native = [policy for policy in remaining if isinstance(policy, NetworkPolicy)]
        self._live = Live(cluster, (*proposed, *native))
        self._dns = find_dns(cluster)
        self._settings: list[tuple[Setting, tuple[Policy, ...]]] = [(Setting.ALONE, proposed)]
        if remaining:
            together: tuple[Policy, ...] = (*proposed, *remaining)
            self._settings.append((Setting.TOGETHER, together))

    def certified(self, proposals: Sequence[Proposal]) -> tuple[Proposal, ...]:
        """Each with its Certificate. The second evaluator is asked once for all of them."""
        drafts = [_Draft() for _ in proposals]
        for setting, policies in self._settings:
            judge = Judge(policies, self._cluster, self._profile)
            bounds = []
            for proposal, draft in zip(proposals, drafts, strict=True):
                start = len(judge.asked)
                self._judge(proposal, draft, judge, setting)
                bounds.append((start, len(judge.asked)))
            others = self._second(policies, self._cluster, self._profile, [asked for asked, _ in judge.asked])
            for draft, (start, end) in zip(drafts, bounds, strict=True):
                draft.connections += end - start
                for (connection, first), other in zip(judge.asked[start:end], others[start:end], strict=True):
                    if first is not other:
                        draft.disagreements.append(_disagreement(connection, first, other))
        return tuple(
            replace(proposal, certificate=self._certificate(proposal, draft))
            for proposal, draft in zip(proposals, drafts, strict=True)
        )

    def _own(self, proposal: Proposal) -> list[NetworkPolicy]:
        """The proposal's policies as they were read back."""
        return [self._proposed[policy.namespace, policy.name] for policy in proposal.policies]

    def _judge(self, proposal: Proposal, draft: "_Draft", judge: Judge, setting: Setting) -> None:
        included = [row.observed.link for row in proposal.included]
        denied = [row.observed.link for row in proposal.left_out if row.denied]
        for expected, links in ((Verdict.ALLOWED, included), (Verdict.DENIED, denied)):
            for link in links:
                found = self._try(judge, setting, link, expected)
                if found.breach is not None:
                    draft.breaches.append(found.breach)
                elif found.undecided is not None:
                    draft.undecided.append(found.undecided)
                if setting is Setting.ALONE and found.shows(expected):
                    draft.shown[expected] += 1
        for pair in opened_by(proposal, self._own(proposal), self._live, judge, self._dns):
            draft.opened[pair] = None

    def _certificate(self, proposal: Proposal, draft: "_Draft") -> Certificate:
        return Certificate(
            profile=self._profile.name,
            digest=hashlib.sha256(render(self._own(proposal)).encode()).hexdigest(),
            included=draft.shown[Verdict.ALLOWED],
            denied=draft.shown[Verdict.DENIED],
            undecided=tuple(draft.undecided),
            breaches=tuple(draft.breaches),
            opened=tuple(draft.opened),
            evaluators=EVALUATORS,
            connections=draft.connections,
            disagreements=tuple(draft.disagreements),
        )

    def _try(self, judge: Judge, setting: Setting, link: Link, expected: Verdict) -> _Try:
        """Every pair of pods, nodes and addresses behind the link, at every port that it stands for."""
        judged = exempt = 0
        undecided: Breach | None = None
        for src in self._live.endpoints(link.src):
            for dst in self._live.endpoints(link.dst):
                for protocol, port in self._live.ports_of(link.dst, link.protocol, link.port):
                    connection = connect(src, dst, protocol, port)
                    said = judge.explain(connection)
                    if is_exempt(said):
                        exempt += 1
                        continue
                    judged += 1
                    if said.verdict is expected:
                        continue
                    breach = Breach(
                        setting=setting,
                        link=link,
                        expected=expected,
                        found=said.verdict,
                        example=example(connection),
                        because=words(said),
                    )
                    if said.verdict is not Verdict.UNKNOWN:
                        return _Try(judged, exempt, breach)
                    undecided = undecided or breach
        return _Try(judged, exempt, None, undecided)


@dataclass(slots=True)
class _Draft:
    """What is known of one proposal while it is proved."""

    breaches: list[Breach] = field(default_factory=list)
    undecided: list[Breach] = field(default_factory=list)
    opened: dict[OpenedPair, None] = field(default_factory=dict)
    shown: Counter[Verdict] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)
    connections: int = 0


def _disagreement(connection: Connection, first: Verdict, other: Verdict) -> str:
    return (
        f"{example(connection)} {connection.protocol}/{connection.port}: plain says {first.value}, "
        f"compiled says {other.value}"
    )


def _broken(proposal: Proposal) -> Finding:
    certificate = proposal.certificate
    breaches: Iterable[Breach] = certificate.breaches if certificate is not None else ()
    first = next(iter(breaches), None)
    if first is None:
        detail = "the two evaluators disagree"
        way_out = "report this: it is a defect in Wattle"
    else:
        detail = (
            f"{first.link} should be {first.expected.value} and is {first.found.value} for {first.example}: "
            f"{first.because}"
        )
        way_out = "decide about this row, or remove the applied policy that is named"
        if first.setting is Setting.ALONE:
            way_out = "decide about this row"
    return Finding(
        code=CERTIFICATE_BROKEN,
        severity=Severity.ERROR,
        subject=str(proposal.workload),
        message=f"no proposal, because it could not be proved: {detail}",
        way_out=way_out,
    )
