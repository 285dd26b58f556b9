"""Templates and the words that pages put values in: numbers, sizes, times, YAML in colours.

Enters: plain values of views. Leaves: escaped text. Invariant: everything is escaped unless it was made here out of
escaped parts; a name from the cluster cannot become mark-up.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE = Path(__file__).parent
STATIC = HERE / "static"

_KEY = re.compile(r"^(\s*(?:- )?)([A-Za-z0-9_./-]+|\"[^\"]*\")(:)(.*)$")
_LEAD = re.compile(r"^(\s*- )(.*)$")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_KILO = 1000


def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=number, plural=plural, size=size, moment=moment, yaml=yaml_lines)
    made.filters.update(segment=segment, within=within)
    return made


def number(value: float) -> str:
    return f"{value:,}"


def plural(count: int, word: str) -> str:
    """1 link, 2 links, 1 address, 2 addresses, 1 policy, 2 policies."""
    if count == 1:
        return f"1 {word}"
    if word.endswith("y"):
        return f"{count:,} {word[:-1]}ies"
    return f"{count:,} {word}{'es' if word.endswith('s') else 's'}"


def size(bytes_: int) -> str:
    value, unit = float(bytes_), 0
    while value >= _KILO and unit < len(_UNITS) - 1:
        value, unit = value / _KILO, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 10 or unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def moment(at: datetime | None) -> Markup:
    """In UTC; the script puts the reader's own zone there and keeps UTC in the title."""
    if at is None:
        return Markup("never")
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC">{} UTC</time>').format(
        utc.isoformat(timespec="seconds"), utc.strftime("%Y-%m-%d %H:%M:%S"), utc.strftime("%-d %b, %H:%M:%S")
    )


def within(name: str, namespace: str) -> str:
    """Without the namespace that the page is about."""
    return name.removeprefix(f"{namespace}/")


def segment(text: str) -> str:
    """As one part of a path."""
    return quote(text, safe="")


def yaml_lines(text: str) -> Markup:
    """Keys, text and punctuation in spans; every part is escaped."""
    return Markup("\n").join(_coloured(line) for line in text.rstrip("\n").split("\n"))


def _coloured(line: str) -> Markup:
    if line.lstrip().startswith("#") or line == "---":
        return Markup('<span class="p">{}</span>').format(line)
    key = _KEY.match(line)
    if key:
        lead, name, colon, rest = key.groups()
        return Markup('{}<span class="k">{}</span><span class="p">{}</span>{}').format(
            _punctuated(lead), name, colon, _value(rest)
        )
    item = _LEAD.match(line)
    if item:
        return Markup("{}{}").format(_punctuated(item[1]), _value(item[2]))
    return _value(line)


def _punctuated(lead: str) -> Markup:
    return Markup('<span class="p">{}</span>').format(lead) if "-" in lead else escape(lead)


def _value(text: str) -> Markup:
    kind = "n" if text.strip().isdecimal() else "s"
    return Markup('<span class="{}">{}</span>').format(kind, text) if text.strip() else escape(text)


Values = dict[str, Any]
