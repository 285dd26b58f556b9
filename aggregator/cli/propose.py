"""`wattle generate`: policies from what was seen, each with its proof."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from aggregator.cli import show
from aggregator.cli.options import Format, Output, ProfileName, Scenarios, chosen_profile
from aggregator.errors import InputError
from aggregator.model.certificate import Certificate
from aggregator.model.finding import Finding
from aggregator.model.proposal import Generation, Proposal
from aggregator.model.protocol import Direction
from aggregator.policy.certify import CERTIFICATE_BROKEN
from aggregator.policy.manifest.render import render, to_object
from aggregator.services.offline.load import Offline, load_all
from aggregator.services.offline.propose import Choices, propose

Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include", metavar="external", help="external: a person has said yes to every outside address seen."
    ),
]
InNamespaces = Annotated[
    list[str] | None, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Propose for these alone.")
]
Unseen = Annotated[
    str | None,
    typer.Option(
        "--unseen",
        metavar="open|closed|ingress|egress",
        help="Directions in which nothing was seen: leave open, close both, close one. Default: as the page says.",
    ),
]
DefaultDenies = Annotated[
    list[str] | None,
    typer.Option("--default-deny", metavar="NAMESPACE[:ingress|:egress]", help="Deny by default there, applied last."),
]
Compact = Annotated[bool, typer.Option("--compact", help="Overlapping rules where they save many lines.")]
WithEvidence = Annotated[bool, typer.Option("--evidence", help="What was seen, as an annotation.")]

_UNSEEN = {
    "open": frozenset[Direction](),
    "closed": frozenset(Direction),
    "ingress": frozenset({Direction.INGRESS}),
    "egress": frozenset({Direction.EGRESS}),
}


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)


def chosen(
    include: list[str] | None,
    namespaces: list[str] | None,
    unseen: str | None,
    default_denies: list[str] | None,
    *,
    compact: bool = False,
    evidence: bool = False,
) -> Choices:
    """The options as Choices. Raises InputError."""
    if unknown := set(include or ()) - {"external"}:
        raise InputError(f"--include {min(unknown)!r} is not external")
    if unseen is not None and unseen not in _UNSEEN:
        raise InputError(f"--unseen {unseen!r} is not {', '.join(_UNSEEN)}")
    return Choices(
        include_external=bool(include),
        namespaces=frozenset(namespaces or ()),
        close_unseen=None if unseen is None else _UNSEEN[unseen],
        default_denies=tuple(deny for text in default_denies or () for deny in _denies(text)),
        compact=compact,
        annotate_evidence=evidence,
    )


def _denies(text: str) -> list[tuple[str, Direction]]:
    namespace, _, direction = text.partition(":")
    both = {"": tuple(Direction), "ingress": (Direction.INGRESS,), "egress": (Direction.EGRESS,)}
    if not namespace or direction not in both:
        raise InputError(f"--default-deny {text!r} is not NAMESPACE, NAMESPACE:ingress or NAMESPACE:egress")
    return [(namespace, d) for d in both[direction]]


def generate(  # noqa: PLR0917 - typer reads the command line from the signature
    scenarios: Scenarios,
    include: Include = None,
    namespace: InNamespaces = None,
    unseen: Unseen = None,
    default_deny: DefaultDenies = None,
    compact: Compact = False,
    evidence: WithEvidence = False,
    output: Format = Output.YAML,
    profile: ProfileName = "generic",
) -> None:
    """Propose policies for the flows of the pages: YAML on standard output, findings on standard error."""
    judged_by = chosen_profile(profile)
    choices = chosen(include, namespace, unseen, default_deny, compact=compact, evidence=evidence)
    found = [(offline, propose(offline, choices, judged_by)) for offline in load_all(scenarios)]
    match output:
        case Output.YAML:
            for offline, generation in found:
                show.findings_aside(_findings(offline, generation))
                _declared_aside(generation)
            show.plain(render([policy for _, generation in found for policy in generation.policies]))
        case Output.JSON:
            show.data([_data(offline, generation) for offline, generation in found], output)
        case Output.TABLE:
            rows = [_row(offline, p) for offline, generation in found for p in generation.proposals]
            columns = ("SCENARIO", "WORKLOAD", "POLICIES", "RULES", "INCLUDED", "LEFT OUT", "PROOF")
            show.table(columns, rows)
            for offline, generation in found:
                show.findings_aside(_findings(offline, generation))
                _declared_aside(generation)
    broken = any(f.code == CERTIFICATE_BROKEN for _, generation in found for f in generation.findings)
    raise typer.Exit(1 if broken else 0)


def _declared_aside(generation: Generation) -> None:
    """What the cluster's own objects announce and nobody has seen: in no policy until somebody says so."""
    show.aside(f"declared, not in the policies: {row.link} ({row.text})" for row in generation.declared)


def _findings(offline: Offline, generation: Generation) -> list[Finding]:
    return [*offline.findings, *generation.findings]


def _row(offline: Offline, proposal: Proposal) -> tuple[str, ...]:
    rules = sum(len(p.ingress) + len(p.egress) for p in proposal.policies)
    return (
        offline.name,
        str(proposal.workload),
        ", ".join(p.name for p in proposal.policies),
        str(rules),
        str(len(proposal.included)),
        str(len(proposal.left_out)),
        _proof(proposal.certificate),
    )


def _proof(certificate: Certificate | None) -> str:
    if certificate is None:
        return "not certified"
    opened = f", opens {len(certificate.opened)} more" if certificate.opened else ""
    return f"{certificate.included} allowed, {certificate.denied} denied{opened} ({certificate.profile})"


def _data(offline: Offline, generation: Generation) -> Mapping[str, Any]:
    return {
        "scenario": offline.name,
        "policies": [to_object(policy) for policy in generation.policies],
        "proposals": [_proposal(p) for p in generation.proposals],
        "declared": [{"link": str(row.link), "source": row.source, "text": row.text} for row in generation.declared],
        "findings": [show.finding_data(f) for f in _findings(offline, generation)],
    }


def _proposal(proposal: Proposal) -> Mapping[str, Any]:
    return {
        "workload": str(proposal.workload),
        "policies": [str(policy) for policy in proposal.policies],
        "included": [{"link": str(row.observed.link), "reason": row.reason.value} for row in proposal.included],
        "left_out": [
            {"link": str(row.observed.link), "reason": row.reason.value, "denied": row.denied, "text": row.text}
            for row in proposal.left_out
        ],
        "synthesised": [
            {"direction": s.direction.value, "origin": s.origin.value, "text": s.text} for s in proposal.synthesised
        ],
        "open_directions": sorted(d.value for d in proposal.open_directions),
        "certificate": None if proposal.certificate is None else _certificate(proposal.certificate),
    }


def _certificate(certificate: Certificate) -> Mapping[str, Any]:
    return {
        "holds": certificate.holds,
        "profile": certificate.profile,
        "digest": certificate.digest,
        "included": certificate.included,
        "denied": certificate.denied,
        "evaluators": list(certificate.evaluators),
        "connections": certificate.connections,
        "opened": [
            {
                "from": str(pair.src),
                "to": str(pair.dst),
                "protocol": pair.protocol.value,
                "first_port": pair.first_port,
                "last_port": pair.last_port,
                "because": pair.because,
            }
            for pair in certificate.opened
        ],
        "undecided": [f"{breach.link}: {breach.because}" for breach in certificate.undecided],
    }
