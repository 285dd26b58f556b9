"""Printing: data as YAML or JSON, tables by rich, findings on standard error.

Enters: plain values. Leaves: text on standard output that a program can read, whatever the terminal is.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.cli.options import Output
from aggregator.model.finding import Finding, Severity

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def data(value: object, output: Output) -> None:
    """A value for programs."""
    if output is Output.JSON:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), end="")


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str = "") -> None:
    """Rows for a person; no word is ever cut, and no text is taken for markup."""
    if title:
        line(title, "bold")
    shown = Table(box=None, pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    _console().print(shown)


def line(text: str, style: str = "") -> None:
    _console().print(Text(text, style=style), soft_wrap=True)


def plain(text: str) -> None:
    """Text as it is."""
    sys.stdout.write(text)


def _console() -> Console:
    """Made anew: tests and pipes replace standard output. A pipe is wide enough for every row."""
    wide = None if sys.stdout.isatty() else 1000
    return Console(file=sys.stdout, highlight=False, width=wide)


def finding_rows(findings: Iterable[Finding]) -> list[Sequence[str | Text]]:
    return [
        (Text(f.severity.value, style=_STYLES[f.severity]), f.code, f.subject, f.message, f.way_out) for f in findings
    ]


def finding_data(finding: Finding) -> Mapping[str, Any]:
    return {
        "code": str(finding.code),
        "severity": finding.severity.value,
        "subject": finding.subject,
        "message": finding.message,
        "way_out": finding.way_out,
    }


def findings_aside(findings: Iterable[Finding]) -> None:
    """Findings beside a result that goes to a file or a pipe."""
    for f in findings:
        way_out = f" ({f.way_out})" if f.way_out else ""
        print(f"{f.severity.value}: {f.code}: {f.subject}: {f.message}{way_out}", file=sys.stderr)


def aside(lines: Iterable[str]) -> None:
    """Words beside a result that goes to a file or a pipe."""
    for text in lines:
        print(text, file=sys.stderr)


def error(message: str) -> None:
    print(f"wattle: {message}", file=sys.stderr)
