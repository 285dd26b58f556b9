"""YAML text as the API server would read it: no timestamps, no repeated keys, every document of the stream.

JSON is read as JSON (it is faster and stricter). Leaves: plain Python values, or InputError with line and column.
"""

import json
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from aggregator.errors import InputError


class _Loader(yaml.CSafeLoader):
    """kubectl's YAML: dates stay strings, a key that stands twice is refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_documents(text: str, *, file: str = "") -> Iterator[Any]:
    """Every document of `text`, in order."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield json.loads(text)
        except ValueError:
            pass  # flow-style YAML begins alike
        else:
            return
    loader = _Loader(text)
    document = 0
    try:
        while loader.check_data():  # type: ignore[no-untyped-call] # types-PyYAML leaves it bare
            document += 1
            yield loader.get_data()
    except yaml.YAMLError as exc:
        raise InputError(f"reading YAML: {_one_line(exc)}", file=file, document=max(document, 1)) from exc
    finally:
        loader.dispose()


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    says = getattr(error, "problem", None) or str(error)
    return f"{says} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else says
