"""Writes docs/configuration.md and docs/metrics.md from the code: `make docs`. A test holds them to what this writes.

Enters: the settings and the metrics that the programs declare. Leaves: the two pages as text.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from agent import metrics as agent_metrics
from agent.config import PREFIX, AgentConfig
from aggregator import metrics as aggregator_metrics
from aggregator.config import Settings

FOLDER = Path(__file__).parent


def configuration() -> str:
    """Every setting of both programs."""
    lines = [
        "# Configuration",
        "",
        "Both programs read environment variables; everything that is wrong is reported at once, with the way out.",
        "",
        "## The agent",
        "",
        "Every variable is a flag, too (`WATTLE_POD_LOGS` is `--pod-logs`); the flag wins. `--check` loads, attaches,",
        "tests itself and exits; `--health` asks the running agent whether it is ready; `--doctor` looks at everything",
        "that can keep it from its work.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
        *(
            f"| `{PREFIX}{field.name.upper()}` | {_default(field)} | {field.metadata['description']} |"
            for field in dataclasses.fields(AgentConfig)
        ),
        "",
        "## The aggregator",
        "",
        "`--health` asks the running aggregator whether it is ready, `--migrate` brings the database's schema up to",
        "date; both exit. `wattle doctor` reads the same variables.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
        *(
            f"| `{PREFIX}{name.upper()}` | {_value(field.default)} | {' '.join((field.description or '').split())} |"
            for name, field in Settings.model_fields.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """Every metric of both programs."""
    lines = [
        "# Metrics",
        "",
        "Both programs serve Prometheus' text format on `/metrics`. Every drop, refusal and retry has a counter with a",
        "reason; none has a label per link. Only with `WATTLE_PAIR_SERIES` have pairs of workloads counters.",
    ]
    for title, module in (("The agent", agent_metrics), ("The aggregator", aggregator_metrics)):
        lines += ["", f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{name}` | {metric._type} | {', '.join(f'`{label}`' for label in metric._labelnames)} "
            f"| {metric._documentation} |"
            for name, metric in sorted(_metrics(module))
        ]
    return "\n".join(lines) + "\n"


def _metrics(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            suffix = "_total" if metric._type == "counter" else ""
            yield f"{metric._name}{suffix}", metric


def _default(field: "dataclasses.Field[Any]") -> str:
    return "the host's name" if field.default is dataclasses.MISSING else _value(field.default)


def _value(value: object) -> str:
    match value:
        case None | "":
            return "unset"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`{','.join(str(part) for part in value)}`"
        case _:
            return f"`{value}`"


PAGES = {"configuration.md": configuration, "metrics.md": metrics}


def main() -> int:
    """Write the pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
