"""`wattle verify`: policies tried for real, by short-lived pods, under the rights of who runs it."""

from typing import Annotated

import typer
from rich.text import Text

from aggregator.cli import show
from aggregator.cli.online.access import access
from aggregator.cli.online.asking import Printed, Shape, for_programs, put
from aggregator.cli.options import ProfileName, chosen_profile
from aggregator.services.verifying.verify import Asked, Report, Tried, verify

Namespaces = Annotated[
    list[str] | None, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Try pairs in here; may be repeated.")
]
Limit = Annotated[int, typer.Option("--limit", metavar="PAIRS", help="At most so many pairs, 1 to 200.")]
Image = Annotated[str, typer.Option("--image", help="An image with python3, such as the aggregator's own.")]
Lifetime = Annotated[
    int, typer.Option("--lifetime", min=60, max=3600, help="Seconds after which Kubernetes clears up by itself.")
]
_WORDS = {True: ("agrees", "green"), False: ("DIFFERS", "red"), None: ("not tried", "yellow")}


def register(app: typer.Typer) -> None:
    app.command("verify")(run)


def run(
    context: typer.Context,
    *,
    namespaces: Namespaces = None,
    limit: Limit = 0,
    image: Image = "",
    lifetime: Lifetime = 300,
    profile: ProfileName = "generic",
    output: Printed = Shape.TABLE,
) -> None:
    """Start pods with the labels of workloads, let them try each other, compare with the evaluator; 1 = it differs."""
    asked = Asked(
        namespaces=tuple(dict.fromkeys(namespaces or ())),
        limit=limit,
        image=image,
        profile=chosen_profile(profile),
        lifetime_seconds=lifetime,
    )
    report = verify(access(context).reach().api, asked, say=_note)
    if for_programs(output):
        put(_data(report), output)
    else:
        columns = ("FROM -> TO", "EXPECTED", "HAPPENED", "", "WHY")
        show.table(columns, [_row(tried) for tried in report.tried])
        _sum_up(report)
    raise typer.Exit(int(any(tried.agrees is False for tried in report.tried)))


def _note(text: str) -> None:
    """Beside the report, which programs read."""
    typer.echo(text, err=True)


def _row(tried: Tried) -> list[str | Text]:
    word, style = _WORDS[tried.agrees]
    pair = tried.pair
    happened = f"{tried.outcome} over {tried.over}" if tried.over else tried.outcome or "-"
    return [str(pair), pair.expected.value, happened, Text(word, style=style), pair.because]


def _sum_up(report: Report) -> None:
    differs = sum(tried.agrees is False for tried in report.tried)
    agrees = sum(tried.agrees is True for tried in report.tried)
    show.line(
        f"{agrees} pairs agree, {differs} differ; not tried: {report.unknown} that nobody can tell, "
        f"{report.left_out} beyond the limit",
        "red" if differs else "green",
    )
    for note in report.notes:
        show.line(note, "dim")


def _data(report: Report) -> dict[str, object]:
    return {
        "pairs": [
            {
                "from": f"{t.pair.src.namespace}/{t.pair.src.name}",
                "to": f"{t.pair.dst.namespace}/{t.pair.dst.name}",
                "port": t.pair.port,
                "expected": t.pair.expected.value,
                "outcome": t.outcome,
                "over": t.over,
                "agrees": t.agrees,
                "because": t.pair.because,
            }
            for t in report.tried
        ],
        "unknown": report.unknown,
        "left_out": report.left_out,
        "notes": list(report.notes),
    }
