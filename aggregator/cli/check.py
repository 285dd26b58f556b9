"""`wattle test`: unit tests for policies."""

from pathlib import Path
from typing import Annotated

import typer

from aggregator.cli import show
from aggregator.cli.options import Format, Output, ProfileName, chosen_profile
from aggregator.services.offline.checking import check_scenarios
from aggregator.services.offline.load import load_pages


def register(app: typer.Typer) -> None:
    app.command("test")(run_tests)


def run_tests(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pages with expectations.", show_default=False)
    ],
    output: Format = Output.TABLE,
    profile: ProfileName = "generic",
) -> None:
    """Check what pages expect of their own policies: expectations, matrix, explanations, unprotected workloads."""
    judged_by = chosen_profile(profile)
    scenarios = [scenario for file in files for scenario in load_pages(file)]
    report = check_scenarios(scenarios, judged_by)
    if output is not Output.TABLE:
        show.data(report.as_dict(), output)
    else:
        rows = [
            (
                f.scenario,
                f.check,
                f"{f.src} -> {f.dst} {f.protocol}/{f.port}" if f.src else "",
                f.expected,
                f.actual,
                f.reason,
            )
            for f in report.failed
        ]
        if rows:
            show.table(("SCENARIO", "CHECK", "CONNECTION", "EXPECTED", "FOUND", "WHY"), rows)
        show.line(f"{report.checked} checked, {len(report.failed)} failed", "green" if report.holds else "bold red")
    raise typer.Exit(0 if report.holds else 1)
