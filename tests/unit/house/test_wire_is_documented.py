"""Every field of FlowLink says what it is and where it is from; every number says its unit or range."""

import re

import pytest

from tests.demo import ROOT
from wattle.v1 import flowlink_pb2

FIELD = re.compile(r"^\s+(?:repeated )?(?P<type>\w+) (?P<name>\w+) = (?P<number>\d+);\s*//\s*(?P<said>.+)$")
NUMBERS = {"uint32", "uint64", "fixed32", "fixed64", "bool"}
UNIT_OR_RANGE = re.compile(
    r"\b(ns|us|ms|bytes?|batch(es)?|records|events|entries|connections|number|id|index|errno|port|permille|random|"
    r"sockets|spelling|CRC-32C|RFC|IANA|cookie|units?|network namespace)\b|[<>=]=? ?\d|\d\.\.\d|^1$|see Kind"
)


def fields() -> list[tuple[str, str, str, str]]:
    """(message, type, field, what is said of it); a comment may go on in the next line."""
    found, message = [], ""
    for line in (ROOT / "proto/wattle/v1/flowlink.proto").read_text().splitlines():
        if opened := re.match(r"message (\w+) \{", line):
            message = opened[1]
        if match := FIELD.match(line):
            found.append((message, match["type"], match["name"], match["said"]))
        elif found and re.match(r"^\s{20,}//", line):
            found[-1] = (*found[-1][:3], f"{found[-1][3]} {line.strip().lstrip('/ ')}")
    return found


FIELDS = fields()


def test_no_field_is_without_a_word() -> None:
    declared = {
        (message.name, field.name)
        for message in flowlink_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    assert declared == {(message, name) for message, _, name, _ in FIELDS}


@pytest.mark.parametrize(
    ("kind", "said"),
    [(kind, said) for _, kind, _, said in FIELDS],
    ids=[f"{message}.{name}" for message, _, name, _ in FIELDS],
)
def test_it_says_its_unit_or_range(kind: str, said: str) -> None:
    assert len(said) > 3 or said == "1"
    assert "likewise" not in said
    if kind in NUMBERS:
        assert UNIT_OR_RANGE.search(said), said


def test_a_field_without_a_unit_would_be_noticed() -> None:
    assert not UNIT_OR_RANGE.search("how long it took")
    assert not FIELD.match("  uint64 seconds = 3;")
