"""`wattle simulate`: what would be cut, before anything is applied, and in which order to apply."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from aggregator.cli import show
from aggregator.cli.options import Format, Output, ProfileName, Scenarios, chosen_profile
from aggregator.cli.propose import DefaultDenies, Include, InNamespaces, Unseen, chosen
from aggregator.model.simulation import Bucket, Candidate, Replay, Step
from aggregator.services.offline.load import load_all
from aggregator.services.offline.simulate import Rehearsal, rehearse

_STYLES = {
    Bucket.WOULD_BE_CUT: "bold red",
    Bucket.NEWLY_ALLOWED: "yellow",
    Bucket.UNCHANGED: "green",
    Bucket.UNKNOWN: "magenta",
}


def register(app: typer.Typer) -> None:
    app.command("simulate")(simulate)


def simulate(  # noqa: PLR0917 - typer reads the command line from the signature
    scenarios: Scenarios,
    policies: Annotated[
        list[Path] | None,
        typer.Option("--policies", metavar="FILE", help="Try the NetworkPolicies of this page or these manifests."),
    ] = None,
    include: Include = None,
    namespace: InNamespaces = None,
    unseen: Unseen = None,
    default_deny: DefaultDenies = None,
    output: Format = Output.TABLE,
    profile: ProfileName = "generic",
) -> None:
    """Replay the flows: would be cut, newly allowed, unchanged, unknown. Without --policies: under the proposals."""
    judged_by = chosen_profile(profile)
    choices = chosen(include, namespace, unseen, default_deny)
    tried = [p for offline in load_all(policies) for p in offline.native] if policies else None
    found = [rehearse(offline, choices, judged_by, tried) for offline in load_all(scenarios)]
    if output is not Output.TABLE:
        show.data([_data(rehearsal) for rehearsal in found], output)
    else:
        for rehearsal in found:
            _show(rehearsal)
    raise typer.Exit(1 if any(rehearsal.cuts for rehearsal in found) else 0)


def _show(rehearsal: Rehearsal) -> None:
    simulation = rehearsal.simulation
    for candidate in Candidate:
        rows = [
            (Text(r.bucket.value, style=_STYLES[r.bucket]), str(r.observed.link), r.now.value, r.then.value, r.because)
            for r in simulation.replays[candidate]
        ]
        title = f"{rehearsal.scenario}: {candidate.value} ({simulation.profile})"
        show.table(("BUCKET", "LINK", "NOW", "THEN", "BECAUSE"), rows, title=title)
    for number, step in enumerate(rehearsal.plan.steps, start=1):
        show.line(f"{number}. {step.action.value} {step.policy} ({step.text})")
    for advice in rehearsal.plan.restarts:
        show.line(f"restart: {advice.text}")


def _data(rehearsal: Rehearsal) -> Mapping[str, Any]:
    return {
        "scenario": rehearsal.scenario,
        "profile": rehearsal.simulation.profile,
        "candidates": {
            candidate.value: {
                "counts": {bucket.value: n for bucket, n in rehearsal.simulation.counts(candidate).items()},
                "links": [_replay(replay) for replay in replays],
            }
            for candidate, replays in rehearsal.simulation.replays.items()
        },
        "steps": [_step(step) for step in rehearsal.plan.steps],
        "restarts": [
            {"workload": str(advice.workload), "command": advice.command, "text": advice.text}
            for advice in rehearsal.plan.restarts
        ],
    }


def _replay(replay: Replay) -> Mapping[str, Any]:
    return {
        "link": str(replay.observed.link),
        "bucket": replay.bucket.value,
        "now": replay.now.value,
        "then": replay.then.value,
        "weight": replay.weight,
        "synthetic": replay.synthetic,
        "example": replay.example,
        "because": replay.because,
    }


def _step(step: Step) -> Mapping[str, Any]:
    return {
        "action": step.action.value,
        "policy": str(step.policy),
        "temporary": step.temporary,
        "text": step.text,
    }
