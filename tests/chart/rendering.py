"""The chart as Helm itself renders it (the SDK of the CLI, in PyPI's helm-python-sdk)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "wattle"
CI = sorted(path for path in (CHART / "ci").glob("*-values.yaml") if "refused" not in path.name)
AGGREGATORS = [path for path in CI if path.name != "member-values.yaml"]
helm_python = pytest.importorskip("helm_python", reason="Helm's SDK has no wheel for this machine")

Values = dict[str, Any]
Object = dict[str, Any]


class Unique(yaml.SafeLoader):
    """A key that is there twice is a mistake."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key twice in {keys}"
        return super().construct_mapping(node, deep)


def values_of(path: Path) -> Values:
    return yaml.load(path.read_text(), Unique) or {}


def render(values: Values | None = None, *, name: str = "wattle", namespace: str = "wattle") -> list[Object]:
    """Every object, in order. Raises helm_python.HelmError."""
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values or {}, name=name, namespace=namespace)
    texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.load_all(text, Unique) if found]


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    [found] = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def kinds(objects: Iterable[Object]) -> list[str]:
    return sorted(f"{each['kind']}/{each['metadata']['name']}" for each in objects)


def pod_of(objects: Iterable[Object], program: str) -> Object:
    """The pod template of `agent`, `aggregator` or `postgres`."""
    kind = {"agent": "DaemonSet", "aggregator": "Deployment", "postgres": "StatefulSet"}[program]
    template: Object = named(objects, kind, f"wattle-{program}")["spec"]["template"]
    return template


def container_of(objects: Iterable[Object], program: str) -> Object:
    [container] = pod_of(objects, program)["spec"]["containers"]
    found: Object = container
    return found


def environment_of(objects: Iterable[Object], program: str) -> dict[str, str]:
    """The variables with a value; those from elsewhere are ""."""
    listed = container_of(objects, program)["env"]
    names = [each["name"] for each in listed]
    assert len(names) == len(set(names)), names
    return {each["name"]: each.get("value", "") for each in listed}
