"""Words for ends, verdicts and findings: how model values become the text of views."""

from collections.abc import Iterable

from aggregator.model.finding import Finding
from aggregator.model.verdict import DirectionExplanation, DirectionOutcome, PolicyReason, Verdict
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.generation.selectors import Selected
from aggregator.services.question import Question
from aggregator.services.verdicts import LinkVerdict
from aggregator.services.views import AddressView, AppliedVerdictView, FindingView, PeerView, SideVerdictView

MASKED = PeerView(kind="Masked", masked=True)

_OUTCOMES = {
    DirectionOutcome.DEFAULT_ALLOW: "no policy limits it",
    DirectionOutcome.ALLOWED: "allowed by {policies}",
    DirectionOutcome.DENIED: "blocked by {policies}",
    DirectionOutcome.NOT_A_POD: "no pod that policies act on",
    DirectionOutcome.NODE_OWN_POD: "a pod and its own node always reach each other",
    DirectionOutcome.SELF: "a pod always reaches itself",
    DirectionOutcome.UNKNOWN: "not known: {cause}",
}


def peer_view(question: Question, end: LinkEnd) -> PeerView:
    match end:
        case Workload():
            selection = question.selectors.select(end)
            labels = dict(selection.selector.match_labels) if isinstance(selection, Selected) else {}
            return PeerView(kind=end.kind, namespace=end.namespace, name=end.name, labels=labels)
        case Nodes():
            return PeerView(kind="Nodes", name="nodes")
        case ApiServer():
            return PeerView(kind="ApiServer", name="kubernetes API server")
        case Address(ip=ip):
            known = question.addresses.classify(ip)
            address = AddressView(
                ip=str(ip), address_class=known.address_class.value, reason=known.reason, alias=known.alias
            )
            return PeerView(kind="Address", name=known.alias or str(ip), address=address)


def verdict_view(question: Question, verdict: LinkVerdict) -> AppliedVerdictView:
    """A stale cluster view turns verdicts unknown."""
    if question.stale:
        return AppliedVerdictView(verdict=Verdict.UNKNOWN.value, text="the view of the cluster is too old to judge by")
    if verdict.explanation is None:
        return AppliedVerdictView(verdict=verdict.verdict.value, text=verdict.cause)
    sides = verdict.explanation.egress, verdict.explanation.ingress
    return AppliedVerdictView(
        verdict=verdict.verdict.value,
        text=_sentence(verdict, sides),
        egress=_side(sides[0]),
        ingress=_side(sides[1]),
    )


def _sentence(verdict: LinkVerdict, sides: tuple[DirectionExplanation, DirectionExplanation]) -> str:
    deciding = [side for side in sides if side.verdict is verdict.verdict]
    if verdict.verdict is Verdict.ALLOWED:
        named = [side for side in deciding if side.outcome is DirectionOutcome.ALLOWED]
        words = "; ".join(f"{side.direction.value.lower()} {_words(side)}" for side in named) or "nothing limits it"
    else:
        words = "; ".join(f"{side.direction.value.lower()} {_words(side)}" for side in deciding)
    return f"{words} (for some pods, such as {verdict.example})" if verdict.partly else words


def _side(side: DirectionExplanation) -> SideVerdictView:
    return SideVerdictView(
        outcome=side.outcome.value, policies=[finding.policy for finding in side.policies], text=_words(side)
    )


def _words(side: DirectionExplanation) -> str:
    decisive = {DirectionOutcome.ALLOWED: {PolicyReason.ALLOWED}}.get(side.outcome)
    policies = [f.policy for f in side.policies if decisive is None or f.reason in decisive]
    return _OUTCOMES[side.outcome].format(policies=", ".join(policies) or "a policy", cause=side.cause)


def finding_views(findings: Iterable[Finding]) -> list[FindingView]:
    return [
        FindingView(
            code=finding.code,
            severity=finding.severity.value,
            subject=finding.subject,
            message=finding.message,
            way_out=finding.way_out,
        )
        for finding in findings
    ]
