"""Figures of a bench, one JSON object a line.

Enters: `Figure` values that a bench script measured. Leaves: the same line on stdout and in build/bench/<area>.jsonl.
Invariant: a figure always says what it is compared to, and `holds` is computed from its bar here, never by the script.
`ratio` is value / against.value when the thing compared to was measured in the same run.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OUTPUT = Path(__file__).resolve().parent.parent / "build" / "bench"

Comparison = Literal["<=", ">="]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a figure must reach: `of` says whether its value or its ratio is held against the limit."""

    comparison: Comparison
    limit: float
    of: Literal["value", "ratio"] = "value"

    def holds(self, *, value: float, ratio: float | None) -> bool:
        measured = value if self.of == "value" else ratio
        if measured is None:
            return False
        return measured <= self.limit if self.comparison == "<=" else measured >= self.limit

    def __str__(self) -> str:
        return f"{self.of} {self.comparison} {self.limit:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number beside the peer or limit it is compared to."""

    figure: str
    value: float
    unit: str
    against: str  # the peer or limit, with its own number: "BCC items(): 3.9 us"
    ratio: float | None = None
    bar: Bar | None = None
    spread: float | None = None  # (max - min) / median over the repetitions

    @property
    def holds(self) -> bool | None:
        return None if self.bar is None else self.bar.holds(value=self.value, ratio=self.ratio)

    def line(self) -> str:
        row = asdict(self) | {"bar": None if self.bar is None else str(self.bar), "holds": self.holds}
        return json.dumps({key: _rounded(value) for key, value in row.items()}, ensure_ascii=False)


def emit(area: str, figures: Iterable[Figure], *, fresh: bool = True) -> bool:
    """Print every figure and keep it in build/bench/<area>.jsonl; True when every bar holds."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    every_bar_holds = True
    with (OUTPUT / f"{area}.jsonl").open("w" if fresh else "a", encoding="utf-8") as kept:
        for figure in figures:
            line = figure.line()
            print(line, flush=True)
            kept.write(line + "\n")
            every_bar_holds = every_bar_holds and figure.holds is not False
    return every_bar_holds


def median_and_spread(samples: Sequence[float]) -> tuple[float, float]:
    """Median, and (max - min) / median."""
    middle = statistics.median(samples)
    return middle, (max(samples) - min(samples)) / middle if middle else 0.0


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
