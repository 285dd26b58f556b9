"""What online commands share: options, scopes, and how values are put.

Enters: words of the command line. Leaves: paths of the REST API, and cells of tables.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from aggregator.cli import show
from aggregator.cli.online.access import access
from aggregator.cli.online.rest import place
from aggregator.cli.options import Output
from aggregator.errors import InputError
from aggregator.services.spans import USUAL


class Shape(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"


SHORT_KINDS: Mapping[str, str] = {
    "deploy": "Deployment",
    "deployment": "Deployment",
    "sts": "StatefulSet",
    "statefulset": "StatefulSet",
    "ds": "DaemonSet",
    "daemonset": "DaemonSet",
    "cj": "CronJob",
    "cronjob": "CronJob",
    "job": "Job",
    "rs": "ReplicaSet",
    "replicaset": "ReplicaSet",
    "po": "Pod",
    "pod": "Pod",
    "svc": "Service",
    "service": "Service",
}

Printed = Annotated[Shape, typer.Option("--output", "-o", help="How to print.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="In this namespace.")]
SpanText = Annotated[
    str, typer.Option("--span", metavar="SPAN", help=f"{', '.join(USUAL)}, another number of m, h or d, or FROM..TO.")
]
Search = Annotated[str, typer.Option("--search", "-s", metavar="WORDS", help="Only rows that have these words.")]
Reason = Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; kept with the decision.")]

_COLOURS = {"allowed": "green", "denied": "red", "unknown": "yellow"}


def complete_scope(context: typer.Context, incomplete: str) -> list[str]:
    """Workloads for the shell, as KIND/NAME; nothing where the server cannot be asked: a shell shows no error."""
    from aggregator.cli.online.access import connected  # noqa: PLC0415  # asked for by the shell alone
    from aggregator.errors import WattleError  # noqa: PLC0415

    try:
        with connected(context) as rest:
            query = {"namespace": context.params.get("namespace") or "", "limit": PAGE_OF_WORDS}
            rows = rest.get("/workloads", query)["items"]
    except (WattleError, typer.Exit):
        return []
    whole = (f"{row['namespace']}/{row['kind']}/{row['name']}" for row in rows)
    short = (f"{row['kind']}/{row['name']}" for row in rows)
    named = whole if not context.params.get("namespace") else short
    return [word for word in named if word.startswith(incomplete)]


PAGE_OF_WORDS = 1000

Scope = Annotated[
    str,
    typer.Argument(
        metavar="[[NAMESPACE/]KIND/NAME]",
        help="A workload or Service, such as deploy/web; without it, the whole namespace.",
        show_default=False,
        autocompletion=complete_scope,
    ),
]
WorkloadScope = Annotated[
    str,
    typer.Argument(
        metavar="[NAMESPACE/]KIND/NAME",
        help="A workload, such as deploy/web.",
        show_default=False,
        autocompletion=complete_scope,
    ),
]


def scope_path(context: typer.Context, scope: str, namespace: str) -> str:
    """/workloads/... or /namespaces/...; without a namespace that of the kubeconfig's context. Raises InputError."""
    if not scope:
        return place("namespaces", namespace or access(context).namespace())
    parts = scope.split("/")
    if len(parts) == 2:
        parts = [namespace or access(context).namespace(), *parts]
    if len(parts) != 3 or not all(parts):
        raise InputError(f"{scope!r} is no workload: write KIND/NAME, such as deploy/web, or NAMESPACE/KIND/NAME")
    if namespace not in {"", parts[0]}:
        raise InputError(f"{scope!r} is not in the namespace {namespace}")
    return place("workloads", parts[0], SHORT_KINDS.get(parts[1].lower(), parts[1]), parts[2])


def put(value: object, shape: Shape) -> None:
    """For programs: exactly what the server answered."""
    show.data(value, Output.YAML if shape is Shape.YAML else Output.JSON)


def for_programs(shape: Shape) -> bool:
    return shape in {Shape.YAML, Shape.JSON}


def peer(end: Mapping[str, Any]) -> str:
    """One end of a link, as short as it is clear."""
    if end["masked"]:
        return "(a namespace you may not see)"
    if end["address"]:
        address = end["address"]
        return f"{address['alias']} ({address['ip']})" if address["alias"] else address["ip"]
    return f"{end['namespace']}/{end['kind']}/{end['name']}" if end["namespace"] else end["name"]


def verdict(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, ""))


def age(text: str | None, now: datetime | None = None) -> str:
    """As kubectl puts it: 45s, 12m, 3h, 5d."""
    if not text:
        return "-"
    seconds = int(((now or datetime.now(tz=UTC)) - datetime.fromisoformat(text)).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def size(count: int) -> str:
    """Bytes, to three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def findings(found: Sequence[Mapping[str, Any]]) -> None:
    """On standard error, beside what goes to a file."""
    for f in found:
        way_out = f" ({f['way_out']})" if f["way_out"] else ""
        show.aside([f"{f['severity']}: {f['code']}: {f['subject']}: {f['message']}{way_out}"])
