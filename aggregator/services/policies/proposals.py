"""Proposals as a caller is shown them: canonical YAML, what it rests on, what it leaves out, and its proof.

Enters: a Question, a scope. Leaves: a ProposalView. Invariant: the digest is that of the YAML shown; a certificate
holds for a scope when it holds for every proposal of it and no proposal had to be withdrawn.
"""

import hashlib
from collections.abc import Iterable, Sequence

from aggregator.model.certificate import Breach, Certificate
from aggregator.model.finding import Finding, Severity
from aggregator.model.link import ObservedLink, link_id
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.proposal import DeclaredLink, Generation, Proposal, Widening
from aggregator.policy.certify import CERTIFICATE_BROKEN
from aggregator.policy.generation.generate import MANAGED_BY
from aggregator.policy.manifest.render import render
from aggregator.services.policies.policy_views import (
    BreachView,
    CertificateView,
    ChosenLinkView,
    DeclaredLinkView,
    OpenDirectionView,
    OpenedView,
    ProposalView,
    SynthesisedView,
    WideningView,
)
from aggregator.services.question import Question, Rows
from aggregator.services.wording import finding_views

MASKED_PEERS = "masked-peers"
OVERWRITES = "overwrites-policy"


def proposal_view(question: Question, rows: Rows, generation: Generation, *, scope: str, span: str) -> ProposalView:
    """A certified Generation of some rows, as a caller is shown it."""
    foreign = overwritten(question, generation)
    text = file_of(question, generation)
    findings = [*generation.findings, *_masked(scope, rows.masked), *map(_overwrites, foreign)]
    return ProposalView(
        scope=scope,
        span=span,
        yaml=text,
        digest=digest_of(text),
        policies=[str(policy) for policy in generation.policies],
        overwrites=[str(policy) for policy in foreign],
        included=_included(generation.proposals),
        left_out=_left_out(generation),
        declared=[_declared(row) for row in generation.declared],
        synthesised=[
            SynthesisedView(workload=str(p.workload), direction=s.direction.value, origin=s.origin.value, text=s.text)
            for p in generation.proposals
            for s in p.synthesised
        ],
        widenings=[_widening(p, w) for p in generation.proposals for w in p.widenings],
        open_directions=[
            OpenDirectionView(workload=str(p.workload), direction=direction.value)
            for p in generation.proposals
            for direction in sorted(p.open_directions, key=lambda d: d.value)
        ],
        findings=finding_views(findings),
        certificate=certificate_view(question, generation, text),
        masked_links=len(rows.masked),
        decisions_version=question.state.version if question.sight.everything else 0,
    )


def overwritten(question: Question, generation: Generation) -> list[NetworkPolicy]:
    """Applied policies that a download would replace, and that Wattle did not make."""
    names = {(policy.namespace, policy.name) for policy in generation.policies}
    return [
        policy
        for policy in question.cluster.policies
        if (policy.namespace, policy.name) in names and not set(MANAGED_BY) <= set(policy.labels)
    ]


def file_of(question: Question, generation: Generation) -> str:
    """The YAML for download; says on top what it overwrites: who applies it may never have seen the page."""
    said = (
        f"# Overwrites the NetworkPolicy {policy}, which Wattle did not make: see `kubectl diff -f` first.\n"
        for policy in overwritten(question, generation)
    )
    return "".join(said) + render(generation.policies)


def _overwrites(policy: NetworkPolicy) -> Finding:
    return Finding(
        code=OVERWRITES,
        severity=Severity.WARNING,
        subject=str(policy),
        message="there is a policy of this name that Wattle did not make: applying the file overwrites it",
        way_out="compare them first (the difference, or `kubectl diff -f FILE`), or rename the one that is there",
    )


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _masked(scope: str, masked: Sequence[ObservedLink]) -> Iterable[Finding]:
    if masked:
        count = len(masked)
        yield Finding(
            code=MASKED_PEERS,
            severity=Severity.WARNING,
            subject=scope,
            message=f"{count} link{'s' if count > 1 else ''} with namespaces that you may not see: "
            "the proposal does not allow them",
            way_out="let somebody who may see both namespaces download the proposal",
        )


def _included(proposals: Iterable[Proposal]) -> list[ChosenLinkView]:
    chosen = {row.observed.link: row for proposal in proposals for row in proposal.included}
    return [
        _chosen(chosen[link].observed, chosen[link].reason.value, chosen[link].text)
        for link in sorted(chosen, key=lambda link: link.sort_key())
    ]


def _left_out(generation: Generation) -> list[ChosenLinkView]:
    return [
        _chosen(row.observed, row.reason.value, row.text, denied=row.denied)
        for row in sorted(generation.left_out, key=lambda row: row.observed.link.sort_key())
    ]


def _chosen(row: ObservedLink, reason: str, text: str, *, denied: bool = False) -> ChosenLinkView:
    link = row.link
    return ChosenLinkView(
        id=str(link_id(link)),
        src=str(link.src),
        dst=str(link.dst),
        protocol=link.protocol.value,
        port=link.port,
        reason=reason,
        text=text,
        denied=denied,
    )


def _declared(row: DeclaredLink) -> DeclaredLinkView:
    link = row.link
    return DeclaredLinkView(
        id=str(link_id(link)),
        src=str(link.src),
        dst=str(link.dst),
        protocol=link.protocol.value,
        port=link.port,
        source=row.source,
        text=row.text,
    )


def _widening(proposal: Proposal, widening: Widening) -> WideningView:
    if widening.network is not None:
        what = str(widening.network)
    else:
        ports = f"{widening.first_port}-{widening.last_port}"
        what = f"{widening.src} -> {widening.dst} {widening.protocol}/{ports}"
    return WideningView(
        workload=str(proposal.workload),
        direction=widening.direction.value,
        origin=widening.origin.value,
        what=what,
        extra=widening.extra,
    )


def certificate_view(question: Question, generation: Generation, text: str) -> CertificateView:
    """One certificate for the whole scope, each link counted once."""
    certificates = [p.certificate for p in generation.proposals if p.certificate is not None]
    withdrawn = any(finding.code == CERTIFICATE_BROKEN for finding in generation.findings)
    included = {row.observed.link for p in generation.proposals for row in p.included}
    denied = {row.observed.link for p in generation.proposals for row in p.left_out if row.denied}
    undecided = _each_once(b for c in certificates for b in c.undecided)
    unsure = {breach.link for breach in undecided}
    return CertificateView(
        holds=bool(certificates) and all(c.holds for c in certificates) and not withdrawn,
        profile=question.profile.name,
        digest=digest_of(text),
        included=len(included - unsure),
        denied=len(denied - unsure),
        undecided=[_breach(breach) for breach in undecided],
        breaches=[_breach(breach) for breach in _each_once(b for c in certificates for b in c.breaches)],
        opened=_opened(certificates),
        evaluators=sorted({name for c in certificates for name in c.evaluators}),
        connections=sum(c.connections for c in certificates),
        disagreements=sorted({words for c in certificates for words in c.disagreements}),
    )


def _each_once(breaches: Iterable[Breach]) -> list[Breach]:
    return sorted(dict.fromkeys(breaches), key=lambda b: (*map(str, b.link.sort_key()), b.setting.value))


def _breach(breach: Breach) -> BreachView:
    return BreachView(
        setting=breach.setting.value,
        link=str(breach.link),
        id=str(link_id(breach.link)),
        expected=breach.expected.value,
        found=breach.found.value,
        example=breach.example,
        because=breach.because,
    )


def _opened(certificates: Iterable[Certificate]) -> list[OpenedView]:
    return [
        OpenedView(
            src=str(pair.src),
            dst=str(pair.dst),
            protocol=pair.protocol.value,
            first_port=pair.first_port,
            last_port=pair.last_port,
            because=pair.because,
        )
        for pair in dict.fromkeys(pair for c in certificates for pair in c.opened)
    ]
