"""values.yaml, its schema, the templates and the README say the same."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.pages import PAGES, described_values
from tests.chart.rendering import CHART, values_of

TEMPLATES = sorted(path for path in (CHART / "templates").rglob("*") if path.is_file())
# Handed on whole, as Kubernetes' own types or as names of settings.
WHOLE = {
    "agent.seccompProfile",
    "agent.seLinuxOptions",
    "agent.settings",
    "agent.resources",
    "agent.nodeSelector",
    "agent.affinity",
    "agent.podAnnotations",
    "aggregator.settings",
    "aggregator.resources",
    "aggregator.nodeSelector",
    "aggregator.affinity",
    "aggregator.podAnnotations",
    "ingress.annotations",
    "database.trial.resources",
    "httpRoute.parentRefs",
    "monitoring.dashboard.labels",
    "monitoring.labels",
}


def leaves(values: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and path not in WHOLE:
            yield from leaves(value, f"{path}.")
        else:
            yield path


def used() -> set[str]:
    found = set()
    for path in TEMPLATES:
        text = re.sub(r"\{\{-? /\*.*?\*/ -?\}\}", "", path.read_text(), flags=re.DOTALL)
        found |= set(re.findall(r"\.Values\.([A-Za-z]+(?:\.[A-Za-z]+)*)", text))
        if "with .Values.database.storage }}" in text:
            found |= {
                f"database.storage.{name}"
                for name in re.findall(r"[ (]\.(persistent|size|storageClassName|existingClaim)\b", text)
            }
    return found - {"database.storage"}


DECLARED = set(leaves(values_of(CHART / "values.yaml")))


def test_every_value_is_used_in_a_template() -> None:
    assert DECLARED - used() == set()


def test_every_value_of_a_template_is_declared() -> None:
    assert used() - DECLARED == set()


def test_every_value_has_a_meaning() -> None:
    assert [path for path, _, _ in described_values()] == list(leaves(values_of(CHART / "values.yaml")))


def test_the_schema_has_exactly_these_values_and_is_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    del schema["properties"]["global"]  # Helm's own

    def open_or_unknown(node: dict[str, Any], above: str = "") -> Iterator[str]:
        for name, below in node["properties"].items():
            path = f"{above}{name}"
            if path in WHOLE:
                assert path in DECLARED
            elif below.get("type") == "object":
                if below.get("additionalProperties") is not False:
                    yield path
                yield from open_or_unknown(below, f"{path}.")
            elif path not in DECLARED:
                yield path

    assert schema["additionalProperties"] is False
    assert list(open_or_unknown(schema)) == []
    for path in DECLARED:
        node = schema
        for name in path.split("."):
            node = node["properties"][name]


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_current(name: str) -> None:
    assert (CHART / name).read_text() == PAGES[name](), "run `make docs`"


def test_the_chart_has_the_programs_version() -> None:
    from wattle import __version__

    chart = values_of(CHART / "Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_values_stay_readable() -> None:
    assert len((CHART / "values.yaml").read_text().splitlines()) <= 300
