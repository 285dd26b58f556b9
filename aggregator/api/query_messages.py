"""Views as messages of wattle.v1 query: field by field, by name.

Invariant: a view's field that the protocol does not have is an error, not silence, so the two cannot drift apart.
"""

from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from pydantic import TypeAdapter

Made = TypeVar("Made", bound=Message)


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def message_of(view: Any, made: Made) -> Made:
    """`made`, filled from a view."""
    kind = type(view)
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    plain = _adapters[kind].dump_python(view, mode="json", exclude_none=True)
    json_format.ParseDict(plain, made, ignore_unknown_fields=False)
    return made
