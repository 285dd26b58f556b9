"""`wattle policy` and `wattle policies`: what is proposed, and what is applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from aggregator.cli import show
from aggregator.cli.online import bundle
from aggregator.cli.online.access import connected
from aggregator.cli.online.asking import (
    Namespace,
    Printed,
    Reason,
    Scope,
    Shape,
    SpanText,
    age,
    findings,
    for_programs,
    put,
    scope_path,
    verdict,
)
from aggregator.cli.online.rest import Rest
from aggregator.errors import InputError


class Question(StrEnum):
    """What is asked of a proposal, besides itself."""

    DIFF = "diff"
    SIMULATION = "simulation"
    PLAN = "plan"
    DRY_RUN = "dry-run"
    SIGN_OFF = "sign-off"


class Form(StrEnum):
    KUSTOMIZE = "kustomize"
    CILIUM = "cilium"
    CALICO = "calico"
    ADMIN = "admin"


PolicyShape = Annotated[
    Shape,
    typer.Option("--output", "-o", help="yaml: the policies; json: everything; table: the rows in and out."),
]
Ask = Annotated[
    Question | None,
    typer.Option("--show", help="The difference, what would be cut, the order, what the API server says, who signed."),
]
Export = Annotated[Form | None, typer.Option("--export", help="In another form, certified or labelled.")]
To = Annotated[str, typer.Option("--to", metavar="DIRECTORY", help="Write files there instead of printing.")]
AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="A folder for each namespace, for GitOps; needs --to.")
]
Submit = Annotated[bool, typer.Option("--submit", help="Submit the proposal of now, for somebody else to approve.")]
Approve = Annotated[str, typer.Option("--approve", metavar="DIGEST", help="Approve exactly what was submitted.")]
Unused = Annotated[bool, typer.Option("--unused", help="Only policies that select nothing that runs.")]
Words = Annotated[bool, typer.Option("--words", help="What each allows, in words.")]


def register(app: typer.Typer) -> None:
    app.command("policy")(policy)
    app.command("policies")(policies)


def policy(
    context: typer.Context,
    scope: Scope = "",
    *,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    span: SpanText = "all",
    asked: Ask = None,
    export: Export = None,
    to: To = "",
    submit: Submit = False,
    approve: Approve = "",
    reason: Reason = "",
    output: PolicyShape = Shape.YAML,
) -> None:
    """The proposal and its proof: YAML on standard output, the rest beside it. 1 when it is not proved, or refused."""
    wanted = _Wanted(
        span=span, asked=asked, export=export, to=to, submit=submit, approve=approve, reason=reason, output=output
    )
    if sum((asked is not None, export is not None, submit, bool(approve))) > 1:
        raise InputError("--show, --export, --submit and --approve are four questions: ask one")
    if all_namespaces and (not to or scope or namespace or asked or submit or approve):
        raise InputError("--all-namespaces writes a folder for each namespace: it needs --to DIRECTORY, and no scope")
    with connected(context) as rest:
        if all_namespaces:
            raise typer.Exit(bundle.write(rest, Path(to), form=(export or Form.KUSTOMIZE).value, span=span))
        raise typer.Exit(_answer(rest, f"{scope_path(context, scope, namespace)}/policy", wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    span: str
    asked: Question | None
    export: Form | None
    to: str
    submit: bool
    approve: str
    reason: str
    output: Shape


def _answer(rest: Rest, path: str, wanted: _Wanted) -> int:
    span, output = {"span": wanted.span}, wanted.output
    if wanted.submit:
        return _sign_off(rest.send("POST", f"{path}/sign-off", {"reason": wanted.reason}), output)
    if wanted.approve:
        body = {"reason": wanted.reason, "digest": wanted.approve}
        return _sign_off(rest.send("PUT", f"{path}/sign-off", body), output)
    if wanted.export is not None:
        return _export(rest.get(f"{path}/exports/{wanted.export.value}", span), wanted.to, output)
    if wanted.asked is None:
        return _proposal(rest.get(path, span), wanted.to, output)
    shown = Shape.TABLE if output is Shape.YAML else output  # YAML is what is applied; these are for reading
    found = rest.get(f"{path}/{wanted.asked.value}", {} if wanted.asked is Question.SIGN_OFF else span)
    return _SHOWN[wanted.asked](found, shown)


def _proposal(found: Mapping[str, Any], to: str, output: Shape) -> int:
    certificate = found["certificate"]
    if to:
        bundle.written(Path(to), {f"{found['scope'].replace('/', '-').lower()}.yaml": found["yaml"]})
    elif output is Shape.YAML:
        show.plain(found["yaml"])
    elif output is Shape.JSON:
        put(found, output)
    else:
        rows = [(Text("in", style="green"), row) for row in found["included"]]
        rows += [(Text("out", style="red" if row["denied"] else "yellow"), row) for row in found["left_out"]]
        table = [
            (fate, row["src"], row["dst"], f"{row['protocol']} {row['port']}", row["reason"], row["text"])
            for fate, row in rows
        ]
        show.table(("", "FROM", "TO", "PORT", "REASON", "WHY"), table)
    show.aside([_proof(certificate), *(f"breach: {b['link']}: {b['because']}" for b in certificate["breaches"])])
    for left in found["open_directions"]:
        show.aside([f"left open: {left['direction'].lower()} of {left['workload']}: nothing was seen"])
    findings(found["findings"])
    return 0 if certificate["holds"] or not found["policies"] else 1


def _proof(certificate: Mapping[str, Any]) -> str:
    if not certificate["holds"]:
        return "not proved: do not apply this"
    opened = f", opens {len(certificate['opened'])} more pairs" if certificate["opened"] else ""
    return (
        f"proved by {' and '.join(certificate['evaluators'])} ({certificate['profile']}): "
        f"{certificate['included']} links allowed, {certificate['denied']} denied{opened}"
    )


def _export(found: Mapping[str, Any], to: str, output: Shape) -> int:
    if output is Shape.JSON:
        put(found, output)
    elif to:
        bundle.written(Path(to), {file["path"]: file["text"] for file in found["files"]})
    else:
        show.plain("---\n".join(file["text"] for file in found["files"]))
    show.aside([found["label"], *found["differences"], *found["notes"], *found["refused"]])
    return 0 if found["certified"] else 1


def _diff(found: Mapping[str, Any], output: Shape) -> int:
    if for_programs(output):
        put(found, output)
        return 0
    show.plain(found["text"])
    for word in ("opened", "closed"):
        for pair in found[word]:
            ports = f"{pair['protocol']}/{pair['first_port']}-{pair['last_port']}"
            show.line(f"{word}: {pair['src']} -> {pair['dst']} {ports}")
    for name in found["overwrites"]:
        show.line(f"overwrites {name}, which Wattle did not make", "bold yellow")
    return 0


def _simulation(found: Mapping[str, Any], output: Shape) -> int:
    if for_programs(output):
        put(found, output)
    else:
        show.line(", ".join(f"{count} {bucket}" for bucket, count in sorted(found["counts"].items())))
        rows = [
            (
                r["bucket"],
                r["link"],
                verdict(r["now"]),
                verdict(r["then"]),
                str(r["connections"]),
                age(r["last_seen"]),
                r["because"],
            )
            for r in found["replays"]
        ]
        show.table(("WHAT", "LINK", "NOW", "THEN", "CONNECTIONS", "LAST SEEN", "BECAUSE"), rows)
    return 1 if found["counts"].get("would-be-cut") else 0


def _plan(found: Mapping[str, Any], output: Shape) -> int:
    if for_programs(output):
        put(found, output)
        return 0
    for number, step in enumerate(found["steps"], start=1):
        for_now = " for the time being" if step["temporary"] else ""
        show.line(f"{number}. {step['action']} {step['policy']}{for_now}: {step['text']}")
    for restart in found["restarts"]:
        if restart["command"]:
            show.line(restart["command"], "bold")
        show.line(f"   {restart['text']}")
    return 0


def _dry_run(found: Mapping[str, Any], output: Shape) -> int:
    if for_programs(output):
        put(found, output)
    else:
        rows = [
            (p["policy"], p["outcome"], "one that Wattle did not make" if p["overwrites"] else "-", p["message"] or "-")
            for p in found["policies"]
        ]
        if rows:
            show.table(("POLICY", "OUTCOME", "OVERWRITES", "THE API SERVER SAYS"), rows)
        show.line(found["text"])
    refused = any(p["outcome"] == "refused" for p in found["policies"])
    return 1 if refused or not found["available"] else 0


def _sign_off(found: Mapping[str, Any], output: Shape) -> int:
    if for_programs(output) and output is not Shape.YAML:
        put(found, output)
    else:
        show.line(f"{found['scope']}: {found['state']}", "bold")
        show.line(f"The proposal of now has the digest {found['current_digest']}.")
        if found["submitted_by"]:
            why = found["reason"] or "(no reason)"
            show.line(f"Submitted by {found['submitted_by']} {age(found['submitted_at'])} ago: {why}")
        if found["approved_by"]:
            show.line(f"Approved by {found['approved_by']} {age(found['approved_at'])} ago.")
    return 0


_SHOWN = {
    Question.DIFF: _diff,
    Question.SIMULATION: _simulation,
    Question.PLAN: _plan,
    Question.DRY_RUN: _dry_run,
    Question.SIGN_OFF: _sign_off,
}


def policies(
    context: typer.Context,
    scope: Scope = "",
    *,
    namespace: Namespace = "",
    span: SpanText = "all",
    unused: Unused = False,
    words: Words = False,
    output: Printed = Shape.TABLE,
) -> None:
    """The applied policies that one may see, whom they select and what they did; or those of one workload."""
    with connected(context) as rest:
        path = scope_path(context, scope, namespace) if scope or namespace else ""
        found = rest.get(f"{path}/policies", {"span": span, "unused": "true" if unused else ""})
    if for_programs(output):
        put(found, output)
        return
    if words:
        for each in found["policies"]:
            show.line(f"{each['namespace']}/{each['name']}", "bold")
            show.plain(f"{each['words']}\n")
        return
    wide = output is Shape.WIDE
    columns = ["NAMESPACE", "NAME", "DIRECTIONS", "WORKLOADS", "ALLOWED", "DENIED", "BY"]
    show.table([*columns, *(("HITS BY RULE",) if wide else ())], [_applied(p, wide=wide) for p in found["policies"]])
    open_ones = found["uncovered"]
    if open_ones and not unused:
        shown = open_ones if wide else open_ones[:10]
        more = f" and {len(open_ones) - len(shown)} more (-o wide)" if len(open_ones) > len(shown) else ""
        named = ", ".join(f"{each['workload']} ({each['direction'].lower()})" for each in shown)
        show.line(f"No policy limits: {named}{more}.")


def _applied(each: Mapping[str, Any], *, wide: bool) -> list[str | Text]:
    use = each["use"]
    selects = ", ".join(each["selects"]) if wide else str(len(each["selects"]))
    cells: list[str | Text] = [
        each["namespace"],
        each["name"],
        ", ".join(each["directions"]).lower(),
        Text("nothing that runs", style="yellow") if each["unused"] else selects,
        f"{use['allowed_connections']} on {use['allowed_links']} links",
        f"{use['denied_attempts']} on {use['denied_links']} links",
        "Wattle" if each["made_by_wattle"] else "somebody else",
    ]
    return [*cells, " ".join(map(str, use["rules"])) or "-"] if wide else cells
