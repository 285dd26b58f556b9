"""`wattle evaluate` and `wattle explain`: may this connection be opened, and why?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from aggregator.cli import show
from aggregator.cli.options import (
    Format,
    From,
    Output,
    PortNumber,
    ProfileName,
    ProtocolName,
    Scenarios,
    To,
    chosen_profile,
    chosen_protocol,
)
from aggregator.cluster.scenario import Traffic
from aggregator.errors import InputError
from aggregator.model.verdict import DirectionExplanation, Verdict
from aggregator.policy.describing.native import peer_words
from aggregator.policy.describing.words import port_words
from aggregator.policy.fix import Fix
from aggregator.services.offline.judge import Judgement, judge, questions, traffic_of
from aggregator.services.offline.load import Offline, load_all

_STYLES = {Verdict.ALLOWED: "green", Verdict.DENIED: "bold red", Verdict.UNKNOWN: "yellow"}


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)
    app.command("explain")(explain)


def evaluate(  # noqa: PLR0917 - typer reads the command line from the signature
    scenarios: Scenarios,
    src: From = None,
    dst: To = None,
    port: PortNumber = None,
    protocol: ProtocolName = "TCP",
    output: Format = Output.TABLE,
    profile: ProfileName = "generic",
) -> None:
    """May these connections be opened? Without --from and --to: all flows and expectations of the page."""
    judged = _judged(scenarios, (src, dst, port, protocol), profile)
    if output is not Output.TABLE:
        show.data([_data(j) for j in judged], output)
    else:
        rows = [(j.scenario, str(j.traffic), _verdict(j), _because(j)) for j in judged]
        show.table(("SCENARIO", "CONNECTION", "VERDICT", "BECAUSE"), rows)
    raise typer.Exit(_exit_code(judged))


def explain(  # noqa: PLR0917 - typer reads the command line from the signature
    scenarios: Scenarios,
    src: From = None,
    dst: To = None,
    port: PortNumber = None,
    protocol: ProtocolName = "TCP",
    output: Format = Output.TABLE,
    profile: ProfileName = "generic",
) -> None:
    """Why: both sides, every policy that selects them, the rules, and the smallest rule that would open it."""
    judged = _judged(scenarios, (src, dst, port, protocol), profile)
    if output is not Output.TABLE:
        show.data([_data(j) for j in judged], output)
    else:
        for j in judged:
            show.line(f"{j.scenario}: {j.traffic}: {j.explanation.verdict.value}", _STYLES[j.explanation.verdict])
            for side in (j.explanation.egress, j.explanation.ingress):
                for text in _side_lines(side):
                    show.line(text)
            for fix in j.fixes:
                show.line(f"  to open it: {_fix_words(fix)}")
    raise typer.Exit(_exit_code(judged))


def _judged(paths: list[Path], asked: tuple[str | None, str | None, int | None, str], profile: str) -> list[Judgement]:
    judged_by = chosen_profile(profile)
    src, dst, port, protocol = asked
    wanted: Traffic | None = None
    if src is not None or dst is not None or port is not None:
        if src is None or dst is None or port is None:
            raise InputError("--from, --to and --port belong together")
        wanted = traffic_of(src, dst, port, chosen_protocol(protocol))
    found: list[Judgement] = []
    for offline in load_all(paths):
        found += judge(offline, _questions(offline) if wanted is None else (wanted,), judged_by)
    if not found:
        raise InputError("nothing to judge: the pages have no flows or expectations; give --from, --to and --port")
    return found


def _questions(offline: Offline) -> tuple[Traffic, ...]:
    """A page's own questions, without those that speak of pods that are gone."""
    assert offline.scenario is not None or not questions(offline)
    pods = {str(pod) for pod in offline.cluster.pods}
    return tuple(q for q in questions(offline) if all(e.startswith("ip:") or e in pods for e in (q.src, q.dst)))


def _exit_code(judged: list[Judgement]) -> int:
    return 0 if all(j.explanation.verdict is Verdict.ALLOWED for j in judged) else 1


def _verdict(judgement: Judgement) -> Text:
    verdict = judgement.explanation.verdict
    return Text(verdict.value, style=_STYLES[verdict])


def _because(judgement: Judgement) -> str:
    sides = (judgement.explanation.egress, judgement.explanation.ingress)
    return "; ".join(f"{side.direction.value.lower()} {side.outcome}" for side in sides)


def _side_lines(side: DirectionExplanation) -> list[str]:
    lines = [f"  {side.direction.value.lower()}: {side.outcome}" + (f" ({side.cause})" if side.cause else "")]
    for finding in side.policies:
        rules = f", rule {', '.join(map(str, finding.rules))}" if finding.rules else ""
        lines.append(f"    {finding.policy}: {finding.reason}{rules}")
    return lines


def _fix_words(fix: Fix) -> str:
    namespace = fix.policy.partition("/")[0]
    word = "from" if fix.direction.value == "Ingress" else "to"
    (peer,), (port,) = fix.rule.peers, fix.rule.ports
    direction = fix.direction.value.lower()
    return f"add to {fix.policy} an {direction} rule {word} {peer_words(peer, namespace)} on {port_words(port)}"


def _data(judgement: Judgement) -> Mapping[str, Any]:
    explanation = judgement.explanation
    return {
        "scenario": judgement.scenario,
        "from": judgement.traffic.src,
        "to": judgement.traffic.dst,
        "port": judgement.traffic.port,
        "protocol": judgement.traffic.protocol.value,
        "verdict": explanation.verdict.value,
        "allowed": explanation.verdict is Verdict.ALLOWED,
        "egress": _side_data(explanation.egress),
        "ingress": _side_data(explanation.ingress),
        "fixes": [_fix_words(fix) for fix in judgement.fixes],
    }


def _side_data(side: DirectionExplanation) -> Mapping[str, Any]:
    found: dict[str, Any] = {
        "outcome": side.outcome.value,
        "policies": [{"policy": f.policy, "reason": f.reason.value, "rules": list(f.rules)} for f in side.policies],
    }
    return found | ({"cause": side.cause} if side.cause else {})
