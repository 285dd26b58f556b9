"""What a check of the doctor found, and how it is told.

Leaves: Finding values and their lines. Invariant: whatever is not well comes with what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class State(StrEnum):
    WELL = "well"
    POOR = "poor"  # it works, but not as well as it could
    ILL = "ill"  # it does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    subject: str
    state: State
    text: str
    way_out: str = ""


def well(subject: str, text: str) -> Finding:
    return Finding(subject=subject, state=State.WELL, text=text)


def poor(subject: str, text: str, way_out: str) -> Finding:
    return Finding(subject=subject, state=State.POOR, text=text, way_out=way_out)


def ill(subject: str, text: str, way_out: str) -> Finding:
    return Finding(subject=subject, state=State.ILL, text=text, way_out=way_out)


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    for found in findings:
        yield f"{found.state.value:<5} {found.subject}: {found.text}"
        if found.way_out:
            yield f"      -> {found.way_out}"
