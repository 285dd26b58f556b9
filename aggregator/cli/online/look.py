"""`wattle workloads`, `links`, `topology` and `agents`: what there is and what was seen."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

import typer
from rich.text import Text

from aggregator.cli import show
from aggregator.cli.online.access import connected
from aggregator.cli.online.asking import (
    Namespace,
    Printed,
    Scope,
    Search,
    Shape,
    SpanText,
    age,
    for_programs,
    peer,
    put,
    scope_path,
    size,
    verdict,
)
from aggregator.errors import InputError

ClassName = Annotated[
    str, typer.Option("--class", metavar="CLASS", help="internal, external, aliased or unknown peers alone.")
]
DirectionName = Annotated[str, typer.Option("--direction", metavar="ingress|egress", help="One table, or both.")]
Sort = Annotated[
    str, typer.Option("--sort", metavar="COLUMN", help="By peer, port, connections, bytes, last_seen, ...; -COLUMN.")
]
Explain = Annotated[
    str, typer.Option("--explain", metavar="ID", help="Why this row is allowed or blocked now, and what would help.")
]
Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Go on: every row that comes or changes, until Ctrl-C; not for --csv.")
]
WATCH_SECONDS = 2.0
Csv = Annotated[bool, typer.Option("--csv", help="Every row as CSV.")]
Dot = Annotated[bool, typer.Option("--dot", help="The map in Graphviz' language.")]


def register(app: typer.Typer) -> None:
    app.command("workloads")(workloads)
    app.command("links")(links)
    app.command("topology")(topology)
    app.command("agents")(agents)


def workloads(
    context: typer.Context,
    scope: Scope = "",
    *,
    namespace: Namespace = "",
    span: SpanText = "all",
    search: Search = "",
    output: Printed = Shape.TABLE,
) -> None:
    """The workloads that one may see, also silent ones; one alone with how ready its baseline is."""
    with connected(context) as rest:
        if scope:
            _one(rest.get(f"{scope_path(context, scope, namespace)}/baseline"), output)
            return
        query = {"namespace": namespace, "span": span, "q": search}
        rows = rest.items("/workloads", query, doing="workloads")
    if for_programs(output):
        put(rows, output)
        return
    wide = output is Shape.WIDE
    columns = ["NAMESPACE", "KIND", "NAME", "PODS", "IN", "OUT", "FAILED", "LAST SEEN", "ISOLATED"]
    show.table([*columns, *(("FIRST SEEN", "POLICIES") if wide else ())], [_workload(row, wide=wide) for row in rows])


def _workload(row: Mapping[str, Any], *, wide: bool) -> list[str | Text]:
    seen = age(row["last_seen"]) if row["observed"] else Text("never", style="yellow")
    cells: list[str | Text] = [
        row["namespace"],
        row["kind"],
        row["name"],
        str(row["pods"]) if row["in_cluster"] else "gone",
        str(row["ingress_links"]),
        str(row["egress_links"]),
        str(row["failed_links"]),
        seen,
        ", ".join(row["isolated"]).lower() or "-",
    ]
    return [*cells, age(row["first_seen"]), ", ".join(row["policies"]) or "-"] if wide else cells


def _one(found: Mapping[str, Any], output: Shape) -> None:
    if for_programs(output):
        put(found, output)
        return
    show.line(f"{found['scope']}: {found['state']}", "bold")
    show.line(found["text"])
    show.table(
        ("CRITERION", "MET", "WHY"),
        [(c["criterion"], "yes" if c["met"] else f"{c['share']:.0%}", c["text"]) for c in found["criteria"]],
    )
    drift = [(d["kind"], d["link"], age(d["first_seen"]), age(d["last_seen"]), d["id"]) for d in found["drift"]]
    if drift:
        show.table(("DRIFT", "LINK", "FIRST SEEN", "LAST SEEN", "ID"), drift)


def links(
    context: typer.Context,
    scope: Scope = "",
    *,
    namespace: Namespace = "",
    direction: DirectionName = "",
    span: SpanText = "all",
    search: Search = "",
    class_name: ClassName = "",
    sort: Sort = "",
    explain: Explain = "",
    csv: Csv = False,
    watch: Watch = False,
    output: Printed = Shape.TABLE,
) -> None:
    """The INGRESS and EGRESS rows of a workload or a namespace; 1 when the explained row is blocked."""
    path = scope_path(context, scope, namespace)
    with connected(context) as rest:
        if explain:
            if not scope:
                raise InputError("--explain needs the workload of the row: KIND/NAME")
            raise typer.Exit(_explained(rest.get(f"{path}/links/{explain}/explanation"), output))
        query = {"direction": direction, "span": span, "q": search, "class": class_name, "sort": sort}
        if csv:
            show.plain(rest.text(f"{path}/links", {**query, "format": "csv"}))
            return
        if watch:
            _follow(lambda: rest.items(f"{path}/links", query, doing="links"), output, whole=not scope)
        rows = rest.items(f"{path}/links", query, doing="links")
    _show_links(rows, output, whole=not scope)


def _follow(read: Callable[[], list[dict[str, Any]]], output: Shape, *, whole: bool) -> NoReturn:
    """Until Ctrl-C: what is there, then what comes or changes, each as it is then; for programs one document each."""
    shown: dict[str, dict[str, Any]] = {}
    while True:
        rows = [row for row in read() if shown.get(row["id"]) != row]
        if for_programs(output):
            for row in rows:
                put(row, output)
        elif rows:
            _show_links(rows, output, whole=whole)
        sys.stdout.flush()
        shown |= {row["id"]: row for row in rows}
        time.sleep(WATCH_SECONDS)


def _show_links(rows: list[dict[str, Any]], output: Shape, *, whole: bool) -> None:
    if for_programs(output):
        put(rows, output)
        return
    wide = output is Shape.WIDE
    columns = ["", "WORKLOAD", "PEER", "PORT", "CONNECTIONS", "LAST SEEN", "NOW", "IN PROPOSAL"]
    more = ["PROCESS", "VIA", "BYTES", "FAILED", "FIRST SEEN", "PODS", "SEEN BY", "CLASS", "LABELS"] if wide else []
    show.table([*columns, *more, "ID"], [_link(row, wide=wide, whole=whole) for row in rows])


def _link(row: Mapping[str, Any], *, wide: bool, whole: bool) -> list[str | Text]:
    outward = row["direction"] == "Egress"
    proposal = row["proposal"]
    own = f"{row['workload']['kind']}/{row['workload']['name']}" if whole else row["workload"]["name"]
    cells: list[str | Text] = [
        "out" if outward else "in",
        own,
        peer(row["peer"]),
        f"{row['protocol']} {row['port']}",
        str(row["connections"]) if row["established"] else f"none, {row['failed_attempts']} failed",
        age(row["last_seen"]),
        verdict(row["applied"]["verdict"]),
        Text("yes", style="green") if proposal["included"] else Text(f"no: {proposal['reason']}", style="yellow"),
    ]
    if wide:
        cells += [
            ", ".join(row["processes"]) or "-",
            ", ".join(row["services"]) or "-",
            size(row["tx_bytes"] + row["rx_bytes"]),
            str(row["failed_attempts"]),
            age(row["first_seen"]),
            f"{len(row['workload_pods'])}:{len(row['peer_pods'])}",
            "+".join(row["seen_by"]) or "-",
            row["peer"]["address"]["address_class"] if row["peer"]["address"] else "internal",
            ",".join(f"{key}={value}" for key, value in row["peer"]["labels"].items()) or "-",
        ]
    return [*cells, row["id"]]


def _explained(found: Mapping[str, Any], output: Shape) -> int:
    if for_programs(output):
        put(found, output)
    else:
        show.line(found["link"], "bold")
        show.line(f"{found['applied']['verdict']}: {found['applied']['text']}")
        for fix in found["fixes"]:
            show.line(f"\nThe smallest change that would let it through, in {fix['policy']}:")
            show.plain(fix["yaml"])
    return 1 if found["applied"]["verdict"] == "denied" else 0


def topology(
    context: typer.Context,
    scope: Scope = "",
    *,
    namespace: Namespace = "",
    span: SpanText = "all",
    dot: Dot = False,
    output: Printed = Shape.TABLE,
) -> None:
    """The map of a workload or a namespace, line by line."""
    with connected(context) as rest:
        found = rest.get(f"{scope_path(context, scope, namespace)}/topology", {"span": span})
    if dot:
        show.plain(found["dot"])
        return
    if for_programs(output):
        put(found, output)
        return
    names = {card["key"]: _card(card) for card in found["cards"]}
    rows = [
        (names[e["src"]], names[e["dst"]], e["port"], verdict(e["fate"]), str(len(e["links"]))) for e in found["lines"]
    ]
    show.table(("FROM", "TO", "PORT", "IN PROPOSAL", "LINKS"), rows)
    linked = {end for line in found["lines"] for end in (line["src"], line["dst"])}
    silent = [names[card["key"]] for card in found["cards"] if card["key"] not in linked]
    if silent:
        show.line(f"Never seen talking: {', '.join(silent)}.")
    if found["left_out"]:
        show.line(f"{found['left_out']} links more than a map can show.")


def _card(card: Mapping[str, Any]) -> str:
    if card["namespace"]:
        return f"{card['namespace']}/{card['kind']}/{card['name']}"
    return f"{card['name']} ({card['note']})"


def agents(context: typer.Context, *, output: Printed = Shape.TABLE) -> None:
    """Every node's agent: how it feels, what it lost, and how old the data is."""
    with connected(context) as rest:
        rows, status = rest.get("/agents"), rest.get("/status")
    if for_programs(output):
        put({"agents": rows, "status": status}, output)
        return
    wide = output is Shape.WIDE
    columns = ["NAME", "VERSION", "BACKEND", "LAST BATCH", "RECORDS", "LOST", "MAP", "SPOOL"]
    more = ["KERNEL", "CLOCK", "WHAT WAS LOST"] if wide else []
    show.table([*columns, *more], [_agent(row, wide=wide) for row in rows])
    lost = ", ".join(f"{count} {reason}" for reason, count in status["lost"].items() if count) or "nothing"
    view = "too old to judge by" if status["view_stale"] else f"{status['view_age_seconds']:.0f} s old"
    show.line(f"Cluster {status['cluster']}: the view is {view}; lost: {lost}; {status['pending_flows']} waiting.")
    for finding in status["findings"]:
        show.line(f"{finding['severity']}: {finding['message']} ({finding['way_out']})", "yellow")


def _agent(row: Mapping[str, Any], *, wide: bool) -> list[str | Text]:
    lost = sum(row["losses"].values()) + row["gap_flow_records"]
    cells: list[str | Text] = [
        row["name"],
        row["version"] or "-",
        row["backend"] or "-",
        age(row["last_batch"]),
        str(row["flow_records"]),
        Text(str(lost), style="red" if lost else ""),
        f"{row['map_fill_permille'] / 10:.0f}%",
        size(row["spool_bytes"]),
    ]
    if wide:
        said = ", ".join(f"{count} {reason}" for reason, count in row["losses"].items() if count)
        cells += [row["kernel"] or "-", f"{row['clock_skew_ms']} ms", said or "-"]
    return cells
