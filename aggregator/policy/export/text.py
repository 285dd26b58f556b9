"""Objects of any kind as canonical YAML, and back.

Enters: JSON-shaped values. Leaves: block YAML in the order of the keys given, every string quoted (what may be taken
for a number or a date is data here, too). Invariant: read(write(x)) == x.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from aggregator.policy.manifest.render import quote

_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9]*")
# A YAML 1.1 reader takes these for booleans or null, also as keys.
_NOT_PLAIN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def write(documents: Iterable[Mapping[str, Any]]) -> str:
    """A multi-document text."""
    return "---\n".join("".join(f"{line}\n" for line in _lines(d, 0)) for d in documents)


def read(text: str) -> tuple[Any, ...]:
    """Every document of a text."""
    return tuple(document for document in yaml.safe_load_all(text) if document is not None)


def _lines(mapping: Mapping[str, Any], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for key, value in mapping.items():
        name = key if _PLAIN_KEY.fullmatch(key) and key.lower() not in _NOT_PLAIN else quote(key)
        if isinstance(value, Mapping) and value:
            yield f"{pad}{name}:"
            yield from _lines(value, depth + 1)
        elif isinstance(value, list | tuple) and value:
            yield f"{pad}{name}:"
            for item in value:
                yield from _item(item, depth)
        else:
            yield f"{pad}{name}: {_scalar(value)}"


def _item(item: object, depth: int) -> Iterator[str]:
    pad = "  " * depth
    if isinstance(item, Mapping) and item:
        first, *rest = _lines(item, depth + 1)
        yield f"{pad}- {first.lstrip()}"
        yield from rest
    else:
        yield f"{pad}- {_scalar(item)}"


def _scalar(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return quote(value)
        case Mapping():
            return "{}"
        case _:
            return "[]"
