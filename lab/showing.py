"""The demo's words and tables: what a person sees of the tables, the policy, and what it leaves out.

Enters: views of the REST API. Leaves: lines on a rich Console.
"""

import re
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table


def show_links(console: Console, selected: str, rows: list[dict[str, Any]]) -> None:
    """The ingress and the egress table of the selected workload."""
    console.print(f"\n[bold]{selected}[/bold]: who talks to it, and whom it talks to")
    home = selected.split("/", maxsplit=1)[0]
    for direction, heading in (("Ingress", "from"), ("Egress", "to")):
        table = Table(title=direction, title_justify="left", title_style="bold", header_style="dim", expand=True)
        table.add_column(heading, ratio=4)
        table.add_column("port", no_wrap=True)
        table.add_column("process", ratio=2)
        table.add_column("via Service", ratio=3)
        table.add_column("seen by", no_wrap=True)
        table.add_column("in the policy?", ratio=5)
        for row in sorted((r for r in rows if r["direction"] == direction), key=_order):
            included = row["proposal"]["included"]
            table.add_row(
                _peer(row["peer"]),
                f"{row['protocol']} {row['port']}",
                ", ".join(row["processes"]),
                ", ".join(service.removeprefix(f"{home}/") for service in row["services"]),
                "+".join(row["seen_by"]),
                ("[green]yes[/green]: " if included else "[red]no[/red]: ") + row["proposal"]["text"],
            )
        console.print(table)


def show_policy(console: Console, proposal: dict[str, Any]) -> None:
    """The proposed NetworkPolicy of the selected workload."""
    console.print("\n[bold]The proposed NetworkPolicy[/bold]")
    console.print(Syntax(proposal["yaml"].rstrip(), "yaml", background_color="default"))


def show_left_out(console: Console, proposal: dict[str, Any]) -> None:
    """What the namespace's policies leave out and why, what else they say, and the proof."""
    console.print("\n[bold]Left out of the namespace's policies[/bold]")
    for row in proposal["left_out"]:
        console.print(f"  [red]-[/red] {row['src']} -> {row['dst']} {row['protocol']} {row['port']}: {row['text']}")
    if not proposal["left_out"]:
        console.print("  nothing")
    console.print("\n[bold]Added without being a row[/bold]")
    for row in proposal["synthesised"]:
        console.print(f"  [blue]+[/blue] {row['workload']}: {row['text']}")
    console.print("\n[bold]Worth knowing[/bold]")
    for finding in proposal["findings"]:
        way_out = f" [dim]Way out: {finding['way_out']}.[/dim]" if finding["way_out"] else ""
        console.print(f"  [yellow]![/yellow] {finding['subject']}: {finding['message']}.{way_out}")


def show_certificate(console: Console, certificate: dict[str, Any]) -> None:
    """The proof in one sentence."""
    verdict = "[green]holds[/green]" if certificate["holds"] else "[red]does not hold[/red]"
    console.print(
        Panel(
            f"The certificate {verdict}: {certificate['included']} included links allowed at both ends, "
            f"{certificate['denied']} left-out links denied, {len(certificate['opened'])} live pairs opened besides; "
            f"{certificate['connections']} connections tried on the YAML parsed back, "
            f"by {' and '.join(certificate['evaluators'])}.",
            expand=False,
        )
    )


def show_where_next(console: Console, address: str, output: Path) -> None:
    """Where the rest is."""
    console.print(f"Web page: {address.rsplit('/api', 1)[0]}/")
    console.print(f"REST API: {address} (OpenAPI at {address}/openapi.json)")
    console.print(f"Files: {output}/policy.yaml, links.json, certificate.json")


def draw(path: Path, selected: str, rows: list[dict[str, Any]], certificate: dict[str, Any]) -> None:
    """The tables and the proof as an SVG for README; nothing in it is fetched from anywhere."""
    console = Console(record=True, file=StringIO(), width=132, highlight=False, force_terminal=True)
    show_links(console, selected, rows)
    show_certificate(console, certificate)
    drawing = console.export_svg(title="make demo", unique_id="wattle")
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL))


def _peer(peer: dict[str, Any]) -> str:
    address = peer.get("address")
    if address:
        return f"{address['alias'] or address['ip']} ({address['address_class']})"
    return f"{peer['kind']} {peer['namespace']}/{peer['name']}" if peer["namespace"] else peer["name"] or peer["kind"]


def _order(row: dict[str, Any]) -> tuple[str, str, str, int]:
    peer = row["peer"]
    return (peer["namespace"], peer["kind"], peer["name"] or str(peer.get("address")), row["port"])
