"""`wattle lint`, `wattle describe` and `wattle diff`: what policies do, in findings, in words, and against others."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aggregator.cli import show
from aggregator.cli.options import Format, OneScenario, Output, ProfileName, Scenarios, chosen_profile
from aggregator.errors import InputError
from aggregator.model.finding import Finding, Severity
from aggregator.policy.describing.words import DescribedRule, Description, text
from aggregator.policy.diff import Change, PolicyDiff
from aggregator.policy.lint.broad import BroadRule
from aggregator.services.offline.judge import compare, describe_all, lint_report
from aggregator.services.offline.load import Offline, load, load_all


class FailOn(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    NEVER = "never"


_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.ERROR: 2}
_BAR = {FailOn.INFO: 0, FailOn.WARNING: 1, FailOn.ERROR: 2, FailOn.NEVER: 3}


def register(app: typer.Typer) -> None:
    app.command("lint")(lint)
    app.command("describe")(describe)
    app.command("diff")(diff)


def lint(
    scenarios: Scenarios,
    output: Format = Output.TABLE,
    profile: ProfileName = "generic",
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="Exit with 1 when there is a finding at least this grave.")
    ] = FailOn.WARNING,
) -> None:
    """What a person should know about the policies, each with the way out."""
    judged_by = chosen_profile(profile)
    reports = [lint_report(offline, judged_by) for offline in load_all(scenarios)]
    findings: list[Finding] = [finding for report in reports for finding in report.findings]
    if output is not Output.TABLE:
        show.data(
            [
                {
                    "scenario": report.scenario,
                    "findings": [show.finding_data(finding) for finding in report.findings],
                    "broad_rules": [_broad(b) for b in report.broad],
                    "summary": report.summary,
                }
                for report in reports
            ],
            output,
        )
    else:
        for report in reports:
            if report.findings:
                columns = ("SEVERITY", "CODE", "SUBJECT", "WHAT", "WAY OUT")
                show.table(columns, show.finding_rows(report.findings), title=report.scenario)
        show.line(f"{_counted(len(findings), 'finding')} in {_counted(len(reports), 'scenario')}")
    raise typer.Exit(int(any(_RANK[finding.severity] >= _BAR[fail_on] for finding in findings)))


def _broad(b: BroadRule) -> dict[str, object]:
    return {
        "rule": b.rule,
        "aspects": list(b.aspects),
        "score": b.score,
        "permitted": b.permitted,
        "observed": b.observed,
        "blast_radius": b.blast_radius,
    }


def describe(
    scenarios: Scenarios,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="NAME", help="This policy alone: NAMESPACE/NAME, KIND/NAME or NAME."),
    ] = None,
    output: Format = Output.TABLE,
) -> None:
    """Policies of every kind in plain words: what is isolated, what may come, what may go, what they do not do."""
    described = [d for offline in load_all(scenarios) for d in describe_all(offline, policy)]
    if output is not Output.TABLE:
        show.data([_description(d) for d in described], output)
    else:
        show.plain("\n".join(text(d) for d in described))


def _description(d: Description) -> dict[str, object]:
    return {
        "kind": d.kind,
        "name": d.name,
        "namespace": d.namespace,
        "selects": d.selects,
        "workloads": list(d.workloads),
        **{
            part.direction.value.lower(): {
                "isolated": part.isolated,
                "says": part.says,
                "rules": [_rule(rule) for rule in part.rules],
            }
            for part in d.directions
        },
        "does_not": list(d.does_not),
    }


def _rule(rule: DescribedRule) -> dict[str, object]:
    said: dict[str, object] = {"peers": list(rule.peers), "ports": list(rule.ports)}
    return {"action": rule.action, **said} if rule.action else said


def diff(
    before: OneScenario,
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="A page, or manifests.", show_default=False)],
    output: Format = Output.TABLE,
    profile: ProfileName = "generic",
) -> None:
    """What changes from the policies of SCENARIO to those of AFTER: in effect, and in canonical text."""
    judged_by = chosen_profile(profile)
    found = compare(_single(before), _single(after), judged_by)
    if output is not Output.TABLE:
        show.data(_diff(found), output)
    else:
        for word, changes in (("opened", found.opened), ("closed", found.closed)):
            for change in changes:
                show.line(f"{word}: {change}", "yellow" if word == "opened" else "red")
        if found.same_effect:
            show.line("no connection is opened or closed", "green")
        show.plain(found.text)
    raise typer.Exit(0 if found.is_empty else 1)


def _single(path: Path) -> Offline:
    found = load(path)
    if len(found) != 1:
        raise InputError(f"holds {len(found)} scenarios, and one is compared with one", file=str(path))
    return found[0]


def _diff(found: PolicyDiff) -> dict[str, object]:
    return {
        "added": list(found.added),
        "removed": list(found.removed),
        "changed": list(found.changed),
        "opened": [_change(change) for change in found.opened],
        "closed": [_change(change) for change in found.closed],
        "same_effect": found.same_effect,
        "text": found.text,
    }


def _change(change: Change) -> dict[str, object]:
    return {
        "from": change.src,
        "to": change.dst,
        "protocol": change.protocol.value,
        "first_port": change.first_port,
        "last_port": change.last_port,
    }


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
