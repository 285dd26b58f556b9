"""The case files, read once."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from aggregator.cluster.scenario import Scenario, Traffic, scenario_of
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict

FOLDER = Path(__file__).parent / "cases"
EVALUATED = ("k8s_e2e", "k8s_e2e_full_matrix", "curated", "grid")


@cache
def raw_cases(name: str) -> list[dict[str, Any]]:
    plain = FOLDER / f"{name}.json"
    if plain.exists():
        return json.loads(plain.read_bytes())
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


@cache
def scenarios(name: str) -> tuple[Scenario, ...]:
    return parsed(name)


def parsed(name: str) -> tuple[Scenario, ...]:
    return tuple(scenario_of(case, file=name, document=n) for n, case in enumerate(raw_cases(name), start=1))


def facts(scenario: Scenario, *, ipblock_matches_pods: bool = True) -> list[tuple[Traffic, Verdict]]:
    """Everything that the scenario states: its expectations and its matrix."""
    stated = [(e.traffic, e.allowed != (e.ipblock_pod and not ipblock_matches_pods)) for e in scenario.expectations]
    stated += [
        (Traffic(src=src, dst=dst, port=port, protocol=Protocol(protocol)), cell == "1")
        for (protocol, port), rows in scenario.matrix.items()
        for src, row in zip(scenario.order, rows, strict=True)
        for dst, cell in zip(scenario.order, row, strict=True)
        if cell != "-"
    ]
    return [(traffic, Verdict.ALLOWED if allowed else Verdict.DENIED) for traffic, allowed in stated]
