"""Templates and the words that pages put values in: numbers, sizes, times, YAML in colours.

Enters: plain values of views. Leaves: escaped text. Invariant: everything is escaped unless it was made here out of
escaped parts; a name from the cluster cannot become mark-up.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE = Path(__file__).parent
STATIC = HERE / "static"

_KEY = re.compile(r"^(\s*(?:- )?)([A-Za-z0-9_./-]+|\"[^\"]*\")(:)(.*)$")
_COMMAND = re.compile(r"`[^`]+`|kubectl [a-z][^;]*[^;.\s]")
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
    made.filters.update(segment=segment, service=service, sentence=sentence, around=around, command=command)
    made.filters.update(
        percent=percent, lasting=lasting, subject=subject, arrowless=arrowless, plain=plain, words=words_lines
    )
    return made


def number(value: float) -> str:
    return f"{value:,}"


def plural(count: int, word: str) -> str:
    """1 link, 2 links, 1 address, 2 addresses, 1 policy, 2 policies."""
    if count == 1:
        return f"1 {word}"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{count:,} {word[:-1]}ies"
    return f"{count:,} {word}{'es' if word.endswith(('s', 'ch')) else 's'}"


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


def service(name: str, namespace: str) -> str:
    """A Service's name, without its port and without the namespace that the page is about."""
    return name.removeprefix(f"{namespace}/").partition(":")[0]


def arrowless(text: str) -> str:
    """Links as a person says them: an arrow breaks at the end of a line, and reads badly aloud."""
    return text.replace(" -> ", " to ")


_LEADS = ((re.compile(r"[A-Z][a-z]+: +|  now: +| {12}"), "field"), (re.compile(r"  (- |\d+\. )"), "item"))


def words_lines(text: str) -> Markup:
    """A description, line by line, each with room to break below its own beginning."""
    lines = text.rstrip("\n").split("\n")
    kinds = (next((kind for lead, kind in _LEADS if lead.match(line)), "plain") for line in lines)
    return Markup("").join(
        Markup('<span class="{}">{}</span>').format(kind, line) for kind, line in zip(kinds, lines, strict=True)
    )


_PLAIN = {
    "peer-not-matched": "no rule of it means the other end",
    "port-not-matched": "a rule of it means the other end, none this port",
    "no-rules": "it has no rule",
    "egress default-allow": "egress not limited",
    "ingress default-allow": "ingress not limited",
    "egress not-a-pod": "egress not limited: no pod",
    "ingress not-a-pod": "ingress not limited: no pod",
    "egress node-own-pod": "egress not limited: a pod and its own node",
    "ingress node-own-pod": "ingress not limited: a pod and its own node",
}


def plain(text: str) -> str:
    """An evaluator's reasons in words."""
    for code, words in _PLAIN.items():
        text = text.replace(code, words)
    return text


def sentence(text: str) -> str:
    """With a capital and a full stop, as what stands alone has."""
    text = arrowless(text)
    return f"{text[:1].upper()}{text[1:]}{'' if text[-1:] in '.!?:' else '.'}"


def percent(part: float, whole: float) -> str:
    """Of nothing it is nothing; what is not whole is never rounded up to it."""
    if not whole:
        return "0"
    share = 100 * part / whole
    return f"{share:.0f}" if share in {0, 100} else f"{min(max(share, 0.1), 99.9):.2g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """An address as a CIDR of its own, and the range around it: the one that a person typed, or might mean."""

    own: str
    cidr: str
    others: int
    typed: bool


def around(ip: str, typed: Iterable[str] = ()) -> Around:
    own = ip_network(ip)
    known = (network for network in map(ip_network, typed) if network.version == own.version)
    held = next((network for network in known if own.network_address in network), None)
    near = held or own.supernet(prefixlen_diff=4)
    return Around(own=str(own), cidr=str(near), others=near.num_addresses - 1, typed=held is not None)


def command(text: str) -> Markup:
    """A way out, with the kubectl or wattle command in it set apart, to be copied."""
    found = _COMMAND.search(text)
    if found is None:
        return escape(text)
    before, after = text[: found.start()], text[found.end() :]
    return Markup('{}<span class="cmd"><code>{}</code></span>{}').format(before, found[0].strip("`"), after)


def lasting(seconds: float) -> str:
    """12 s, 5 min, 3 h, 2 days: as coarse as it may be told."""
    for unit, length in (("day", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' if unit == 'day' else ''}"
    return f"{seconds:.0f} s"


def subject(text: str) -> str:
    """What a finding is about, in words: "shop/guard:ingress:0:any-port" is the first ingress rule of shop/guard."""
    name, _, place = arrowless(text).partition(":")
    parts = place.split(":")
    if len(parts) > 1 and parts[1].isdecimal():
        return f"{name}, {parts[0]} rule {int(parts[1]) + 1}"
    return name if place else text


def segment(text: str) -> str:
    """As one part of a path."""
    return quote(text, safe="")


def yaml_lines(text: str) -> Markup:
    """Keys, text and punctuation in spans; every part is escaped."""
    return Markup("\n").join(_coloured(line) for line in text.rstrip("\n").split("\n"))


@lru_cache(maxsize=1 << 13)  # a decision changes few lines of a long policy
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
