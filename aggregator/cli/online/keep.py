"""`wattle drift`, `wattle watch` and `wattle shadow`: what keeps policies right, asked of a running aggregator."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from aggregator.cli import show
from aggregator.cli.online.access import connected
from aggregator.cli.online.asking import Namespace, Printed, Reason, Scope, Shape, age, for_programs, put, scope_path
from aggregator.cli.online.rest import Rest, place
from aggregator.errors import InputError

DRIFT = ("new-link", "gone-link")
LOOK_SECONDS = 2.0
SEVERE = {"not-enforced": "red", "new-link": "yellow"}
Accept = Annotated[
    list[str] | None, typer.Option("--accept", metavar="ID", help="Take it into the baseline and the next proposal.")
]
LeaveOut = Annotated[
    list[str] | None, typer.Option("--leave-out", metavar="ID", help="Keep it out of the next proposal, for good.")
]
Everything = Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")]
KindName = Annotated[
    str, typer.Option("--kind", metavar="KIND", help="new-link, gone-link, would-be-denied, not-enforced or held-open.")
]
OnlyNew = Annotated[bool, typer.Option("--only-new", help="Leave out what holds already.")]
PolicyFile = Annotated[Path | None, typer.Option("--file", "-f", metavar="FILE", help="NetworkPolicies, - is stdin.")]
Days = Annotated[int, typer.Option("--days", min=1, max=31, help="It ends by itself after so many days.")]
Stop = Annotated[str, typer.Option("--stop", metavar="ID", help="Stop this watch.")]


def register(app: typer.Typer) -> None:
    app.command("drift")(drift)
    app.command("watch")(watch)
    app.command("shadow")(shadow)


def drift(
    context: typer.Context,
    scope: Scope = "",
    *,
    accept: Accept = None,
    leave_out: LeaveOut = None,
    everything: Everything = False,
    namespace: Namespace = "",
    reason: Reason = "",
    output: Printed = Shape.TABLE,
) -> None:
    """What differs from frozen baselines; take it in, or leave it out. Exit code 1 when something does."""
    with connected(context) as rest:
        if accept or leave_out:
            answered: list[Any] = []
            for ids, answer in ((accept, "accept"), (leave_out, "leave-out")):
                if ids:
                    body = {"ids": ids, "answer": answer, "reason": reason}
                    answered += rest.send("POST", "/events/answers", body)
            _put(answered, output)
            return
        rows = [r for r in _events(rest, context, scope, namespace, everything=everything) if r["kind"] in DRIFT]
    _put(rows, output)
    raise typer.Exit(int(any(not row["ended"] for row in rows)))


def watch(
    context: typer.Context,
    scope: Scope = "",
    *,
    kind: KindName = "",
    only_new: OnlyNew = False,
    namespace: Namespace = "",
    output: Printed = Shape.TABLE,
) -> None:
    """Follow events of every kind as they are found and as they end, until Ctrl-C."""
    shown: dict[str, Any] = {}
    first = True
    with connected(context) as rest:
        while True:
            for row in reversed(_events(rest, context, scope, namespace, everything=True)):
                before, shown[row["id"]] = shown.get(row["id"]), row
                if before == row or (kind and row["kind"] != kind) or (first and (row["ended"] or only_new)):
                    continue
                if for_programs(output):
                    put(row, Shape.JSON if output is Shape.JSON else Shape.YAML)
                else:
                    for text, style in _lines(row):
                        show.line(text, style)
            first = False
            time.sleep(LOOK_SECONDS)


def shadow(
    context: typer.Context,
    scope: Scope = "",
    *,
    file: PolicyFile = None,
    days: Days = 7,
    stop: Stop = "",
    namespace: Namespace = "",
    reason: Reason = "",
    output: Printed = Shape.TABLE,
) -> None:
    """Put the proposal of a scope, or policies of a file, on watch: what they would deny becomes events. Without any
    of these, the watches there are.
    """
    with connected(context) as rest:
        if stop:
            found = [rest.send("DELETE", place("watches", stop), {})]
        elif file is not None:
            text = typer.get_text_stream("stdin").read() if str(file) == "-" else _read(file)
            body = {"yaml": text, "title": file.name, "days": days, "reason": reason}
            found = [rest.send("POST", "/watches", body)]
        elif scope or namespace:
            where = scope_path(context, scope, namespace).split("/")[2:]
            named = dict(zip(("namespace", "kind", "name"), where, strict=False))
            found = [rest.send("POST", "/watches", {**named, "days": days, "reason": reason})]
        else:
            found = rest.get("/watches")
    if for_programs(output):
        put(found, output)
        return
    columns = ("ID", "NAME", "POLICIES", "BY", "BEGAN", "ENDS", "STATE")
    show.table(columns, [_watch_row(row) for row in found])


def _events(
    rest: Rest, context: typer.Context, scope: str, namespace: str, *, everything: bool
) -> Sequence[Mapping[str, Any]]:
    query = {"namespace": namespace, "state": "all" if everything else "holding"}
    if scope:
        query["subject"] = "/".join(scope_path(context, scope, namespace).split("/")[2:])
    return rest.items("/events", query, doing="events")


def _put(rows: Sequence[Mapping[str, Any]], output: Shape) -> None:
    if for_programs(output):
        put(rows, output)
        return
    if not rows:
        show.line("nothing differs from the frozen baselines", "green")
        return
    columns = ("ID", "KIND", "FROM", "TO", "PORT", "PROCESS", "PODS", "FOUND", "STATE")
    show.table(columns, [_row(row) for row in rows])


def _row(row: Mapping[str, Any]) -> list[str | Text]:
    return [
        row["id"],
        Text(row["kind"], style=SEVERE.get(row["kind"], "")),
        row["src"],
        row["dst"],
        f"{row['protocol']}/{row['port']}",
        ", ".join(row["processes"]),
        ", ".join((*row["src_pods"], *row["dst_pods"])),
        age(row["found_at"]),
        row["ended"] or "holds",
    ]


def _lines(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    said = f"{row['ended']}: " if row["ended"] else ""
    yield f"{row['ended_at'] or row['found_at']} {row['kind']} {said}{row['text']}", SEVERE.get(row["kind"], "")
    if not row["ended"]:
        seen = ", ".join((*row["processes"], *row["src_pods"], *row["dst_pods"], *row["nodes"]))
        for word, text in (
            ("seen", seen),
            ("why", row["explanation"]),
            ("cause", row["cause"]),
            ("do", row["command"]),
        ):
            if text:
                yield f"  {word}: {text}", ""
        yield f"  id: {row['id']}", "dim"


def _watch_row(row: Mapping[str, Any]) -> list[str | Text]:
    return [
        row["id"],
        row["name"],
        ", ".join(row["policies"]),
        row["author"],
        age(row["began_at"]),
        row["ends_at"][:16],
        row["ended"] or "runs",
    ]


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"cannot be read: {exc}", file=str(file)) from exc
