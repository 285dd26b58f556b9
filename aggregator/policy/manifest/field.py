"""Field: a value inside a raw object together with its path, so that every refusal names the field.

Enters: JSON-shaped objects as the API (or YAML) gives them. Leaves: typed values, or InputError with the path.
Null and absent are the same thing everywhere, as they are to the API.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aggregator.errors import InputError
from aggregator.model.cluster import Labels


@dataclass(frozen=True, slots=True)
class Field:
    """One value and where it stands, as `spec.ingress[0].from[1]`."""

    value: Any
    path: str = ""

    def refuse(self, message: str) -> InputError:
        return InputError(message, field=self.path)

    @property
    def absent(self) -> bool:
        return self.value is None

    def __getitem__(self, key: str) -> "Field":
        """The member `key`; absent when this object is absent or lacks it."""
        return Field(self.mapping().get(key), f"{self.path}.{key}" if self.path else key)

    def mapping(self) -> Mapping[str, Any]:
        if self.value is None:
            return {}
        if not isinstance(self.value, Mapping):
            raise self.refuse(f"must be an object, is {kind_name(self.value)}")
        return self.value

    def items(self) -> Iterator["Field"]:
        if self.value is None:
            return
        if not isinstance(self.value, list | tuple):
            raise self.refuse(f"must be a list, is {kind_name(self.value)}")
        for index, item in enumerate(self.value):
            yield Field(item, f"{self.path}[{index}]")

    def text(self, default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str):
            raise self.refuse(f"must be a string, is {kind_name(self.value)}")
        return self.value

    def number(self) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.refuse(f"must be a whole number, is {kind_name(self.value)}")
        return self.value

    def labels(self) -> Labels:
        """A map of strings, sorted. A null value is the empty string, as JSON decoding in Go has it."""
        found = {}
        for key, value in self.mapping().items():
            if not isinstance(key, str):
                raise self.refuse(f"the key {key!r} must be a string")
            found[key] = Field(value, f"{self.path}.{key}").text(default="")
        return tuple(sorted(found.items()))


def kind_name(value: object) -> str:
    match value:
        case None:
            return "missing"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"
