"""`wattle decide` and `wattle alias`: what people say, and how they take it back.

Every change is made against what was read a moment before: when somebody else decides in between, it is refused.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import typer

from aggregator.cli import show
from aggregator.cli.online.access import connected
from aggregator.cli.online.asking import (
    Namespace,
    Printed,
    Reason,
    Search,
    Shape,
    WorkloadScope,
    age,
    for_programs,
    peer,
    put,
    scope_path,
)
from aggregator.cli.online.rest import Rest, place
from aggregator.errors import InputError

decide = typer.Typer(no_args_is_help=True, help="Say what belongs into a proposal, freeze a baseline, take it back.")
alias = typer.Typer(no_args_is_help=True, help="Names for addresses, CIDRs and domains.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Rows by the ids that `wattle links` shows.")]
Matching = Annotated[
    str, typer.Option("--matching", "-m", metavar="WORDS", help="Every row that has these words, after a question.")
]
WITH_IDS = {"ignore_unknown_options": True}  # an id may begin with a minus sign
_ID = re.compile(r"-?[0-9]{1,20}")
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask no question.")]
_CIDR = re.compile(r"(?P<cidr>[0-9a-fA-F.:/]+?)(?:@(?P<port>\d+)(?:-(?P<end>\d+))?(?:/(?P<protocol>[A-Za-z]+))?)?")


def register(app: typer.Typer) -> None:
    app.add_typer(decide, name="decide")
    app.add_typer(alias, name="alias")


@decide.command("show")
def decide_show(
    context: typer.Context, scope: WorkloadScope, *, namespace: Namespace = "", output: Printed = Shape.TABLE
) -> None:
    """What holds for a workload, and who said it."""
    with connected(context) as rest:
        _holds(rest.get(f"{scope_path(context, scope, namespace)}/decisions"), output)


@decide.command("list")
def decide_list(
    context: typer.Context, *, namespace: Namespace = "", search: Search = "", output: Printed = Shape.TABLE
) -> None:
    """Everything that was said, newest first."""
    with connected(context) as rest:
        rows = rest.items("/decisions", {"namespace": namespace, "q": search}, doing="decisions")
    if for_programs(output):
        put(rows, output)
    else:
        _records(rows)


def _about_rows(choice: str | None, about: str) -> Callable[..., None]:
    """One command of the three that say the same sort of thing of rows."""

    def command(
        context: typer.Context,
        scope: WorkloadScope,
        ids: Ids = None,
        *,
        matching: Matching = "",
        yes: Yes = False,
        namespace: Namespace = "",
        reason: Reason = "",
    ) -> None:
        if bool(ids) == bool(matching):
            raise InputError("name rows by their ids, or by --matching WORDS")
        for each in ids or ():
            if not _ID.fullmatch(each):
                raise InputError(f"{each!r} is no id of a row: see the last column of `wattle links`")
        with connected(context) as rest:
            path = scope_path(context, scope, namespace)
            chosen = list(ids or ()) or _matched(rest, path, matching, yes=yes)
            body = {"ids": chosen, "choice": choice, "reason": reason}
            _holds(_said(rest, path, "POST", "/decisions/links", body), Shape.TABLE)

    command.__doc__ = about
    return command


decide.command("include", context_settings=WITH_IDS)(_about_rows("include", "Rows that belong into the proposal."))
decide.command("exclude", context_settings=WITH_IDS)(_about_rows("exclude", "Rows that do not."))
decide.command("forget", context_settings=WITH_IDS)(_about_rows(None, "Rows of which nothing is said any more."))


@decide.command("rule")
def decide_rule(
    context: typer.Context,
    scope: WorkloadScope,
    direction: Annotated[Literal["ingress", "egress"], typer.Argument(help="Of this direction.")],
    rule: Annotated[
        Literal["observed", "block-all", "allow-namespace", "allow-all", "none"],
        typer.Argument(help="none takes it back."),
    ],
    *,
    namespace: Namespace = "",
    reason: Reason = "",
) -> None:
    """The general rule of one direction, in the place of its rows."""
    with connected(context) as rest:
        path = scope_path(context, scope, namespace)
        body = {"rule": None if rule == "none" else rule, "reason": reason}
        _holds(_said(rest, path, "PUT", f"/decisions/rules/{direction}", body), Shape.TABLE)


@decide.command("cidr")
def decide_cidr(
    context: typer.Context,
    scope: WorkloadScope,
    direction: Annotated[Literal["ingress", "egress"], typer.Argument(help="In this direction.")],
    target: Annotated[str, typer.Argument(metavar="CIDR[@PORT[-PORT][/PROTOCOL]]", help="Such as 203.0.113.8/29@443.")],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out again.")] = False,
    namespace: Namespace = "",
    reason: Reason = "",
) -> None:
    """A CIDR and port that nobody was seen using."""
    found = _CIDR.fullmatch(target)
    if found is None:
        raise InputError(f"{target!r} is not CIDR, CIDR@PORT or CIDR@PORT-PORT/PROTOCOL")
    port, end = found["port"], found["end"]
    protocol = (found["protocol"] or "TCP").upper() if port else None
    body: Mapping[str, Any] = {
        "direction": direction,
        "cidr": found["cidr"],
        "protocol": protocol,
        "port": int(port) if port else None,
        "end_port": int(end) if end else None,
        "choice": "exclude" if remove else "include",
        "reason": reason,
    }
    with connected(context) as rest:
        _holds(_said(rest, scope_path(context, scope, namespace), "POST", "/decisions/cidrs", body), Shape.TABLE)


@decide.command("default-deny")
def decide_default_deny(
    context: typer.Context,
    direction: Annotated[Literal["ingress", "egress"], typer.Argument(help="Of this direction.")],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out again.")] = False,
    namespace: Namespace = "",
    reason: Reason = "",
) -> None:
    """Deny by default in a namespace what no policy allows; it is applied last."""
    with connected(context) as rest:
        path = scope_path(context, "", namespace)
        body = {"direction": direction, "choice": "exclude" if remove else "include", "reason": reason}
        found = _said(rest, path, "PUT", "/default-deny", body)
    denied = ", ".join(word.lower() for word in found["default_deny"]) or "nothing"
    show.line(f"{found['scope']}: denied by default: {denied}", "bold")
    _records(found["decisions"])


@decide.command("freeze")
def decide_freeze(
    context: typer.Context,
    scope: WorkloadScope,
    *,
    thaw: Annotated[bool, typer.Option("--thaw", help="Let it learn again.")] = False,
    namespace: Namespace = "",
    reason: Reason = "",
) -> None:
    """Freeze the baseline at what is recorded now; what comes then is drift."""
    with connected(context) as rest:
        path = scope_path(context, scope, namespace)
        etag = rest.get(f"{path}/decisions")["etag"]
        body = {"frozen": not thaw, "reason": reason}
        rest.send("PUT", f"{path}/baseline", body, if_match=f'"{etag}"')
        found = rest.get(f"{path}/baseline")
    show.line(f"{found['scope']}: {found['state']}", "bold")
    show.line(found["text"])


@decide.command("undo")
def decide_undo(
    context: typer.Context,
    record: Annotated[str, typer.Argument(metavar="RECORD", help="As `wattle decide list` shows it.")],
    *,
    reason: Reason = "",
) -> None:
    """As if it had never been said; the log keeps both."""
    with connected(context) as rest:
        found = rest.send("POST", f"/decisions/{record}/undo", {"reason": reason})
    show.line(f"{found['text']} ({found['record']})")


@alias.command("list")
def alias_list(context: typer.Context, *, output: Printed = Shape.TABLE) -> None:
    """Every alias."""
    with connected(context) as rest:
        _aliases(rest.get("/aliases"), output)


@alias.command("set")
def alias_set(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    targets: Annotated[list[str], typer.Argument(metavar="CIDR|DOMAIN...", help="What it stands for.")],
    *,
    allowed: Annotated[bool, typer.Option("--allowed", help="Include its rows, for every workload.")] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Keep what an alias of this name already covers.")] = False,
    reason: Reason = "",
) -> None:
    """Set an alias, or extend one."""
    networks = [text for text in targets if re.fullmatch(r"[0-9a-fA-F:.]*[:.][0-9a-fA-F:.]*(/\d+)?", text)]
    domains = [text for text in targets if text not in networks]
    body = {"networks": networks, "domains": domains, "allowed": allowed, "extend": extend, "reason": reason}
    with connected(context) as rest:
        etag = rest.get("/aliases")["etag"]
        _aliases(rest.send("PUT", place("aliases", name), body, if_match=f'"{etag}"'), Shape.TABLE)


@alias.command("remove")
def alias_remove(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")], *, reason: Reason = ""
) -> None:
    """Take an alias away; `wattle decide undo` brings it back."""
    with connected(context) as rest:
        etag = rest.get("/aliases")["etag"]
        found = rest.send("DELETE", place("aliases", name), {}, query={"reason": reason}, if_match=f'"{etag}"')
        _aliases(found, Shape.TABLE)


def _matched(rest: Rest, path: str, words: str, *, yes: bool) -> list[str]:
    rows = rest.items(f"{path}/links", {"q": words}, doing="links")
    if not rows:
        raise InputError(f"no row has the words {words!r}")
    if not yes:
        table = [(r["direction"].lower(), peer(r["peer"]), f"{r['protocol']} {r['port']}") for r in rows]
        show.table(("", "PEER", "PORT"), table)
        typer.confirm(f"These {len(rows)} rows?", abort=True, err=True)
    return [row["id"] for row in rows]


def _said(rest: Rest, path: str, method: str, what: str, body: Mapping[str, Any]) -> Any:
    etag = rest.get(f"{path}/decisions")["etag"]
    return rest.send(method, f"{path}{what}", body, if_match=f'"{etag}"')


def _holds(found: Mapping[str, Any], output: Shape) -> None:
    if for_programs(output):
        put(found, output)
        return
    show.line(found["scope"], "bold")
    for each in found["rules"]:
        show.line(f"{each['direction'].lower()}: {each['rule'] or 'as observed (nobody has said anything)'}")
    for each in found["cidrs"]:
        ports = f"{each['port']}-{each['end_port']}" if each["end_port"] else str(each["port"] or "every port")
        show.line(f"{each['direction'].lower()}: {each['cidr']}, {each['protocol'] or 'every protocol'} {ports}")
    _records(found["decisions"])


def _records(rows: list[Mapping[str, Any]]) -> None:
    table = [
        (age(row["at"]), row["author"], row["text"], _standing(row), row["reason"] or "-", row["record"])
        for row in rows
    ]
    if table:
        show.table(("AGO", "WHO", "SAID", "HOLDS", "REASON", "RECORD"), table)


def _standing(row: Mapping[str, Any]) -> str:
    known = "in force" if row["in_force"] else "taken back"
    return f"{known}, not seen for long" if row["not_seen_for_long"] else known


def _aliases(found: Mapping[str, Any], output: Shape) -> None:
    if for_programs(output):
        put(found, output)
        return
    rows = [
        (a["name"], ", ".join([*a["networks"], *a["domains"]]), "yes, for every workload" if a["allowed"] else "no")
        for a in found["aliases"]
    ]
    show.table(("NAME", "COVERS", "ALLOWED"), rows)
