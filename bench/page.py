"""Writes docs/performance.md from build/bench/*.jsonl: `make bench-page`, after `make bench`.

Enters: the lines that the benches kept. Leaves: the page, a table an area. Invariant: no number is typed by hand, and a
bar that was missed is shown as missed.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

from bench.report import OUTPUT

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
AREAS = {
    "capture": "Capture: the kernel side and the agent",
    "ingest": "Delivery and store",
    "cluster": "The cluster view",
    "policy": "The policy engine",
    "review": "Review",
    "web": "The web page",
}


def page() -> str:
    """The whole page."""
    lines = [
        "# Performance",
        "",
        "Written by `make bench-page` from what `make bench` measured; an area's script is `bench/<area>.py`.",
        "Figures are CPU per item, or ratios against a peer or a limit measured in the same run.",
        "A bar that was missed says so.",
        "",
        f"Measured on Linux {platform.release()}, {platform.machine()}, two shared cores: trust ratios, not the clock.",
    ]
    for area, title in AREAS.items():
        kept = OUTPUT / f"{area}.jsonl"
        if not kept.exists():
            continue
        lines += [
            "",
            f"## {title}",
            "",
            f"`make bench-{area}`",
            "",
            "| figure | measured | beside | bar | holds |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(json.loads(line)) for line in kept.read_text().splitlines()]
    return "\n".join(lines) + "\n"


def _row(figure: dict[str, Any]) -> str:
    ratio = f" (ratio {figure['ratio']:g})" if figure["ratio"] is not None else ""
    holds = {True: "yes", False: "**no**", None: ""}[figure["holds"]]
    return (
        f"| {figure['figure']} | {figure['value']:g} {figure['unit']}{ratio} | {figure['against']} "
        f"| {figure['bar'] or ''} | {holds} |"
    )


def main() -> int:
    """Write the page; 1 when nothing has been measured."""
    if not list(OUTPUT.glob("*.jsonl")):
        sys.stderr.write("nothing has been measured yet: run `make bench` first\n")
        return 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
