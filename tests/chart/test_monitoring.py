"""Alerts and dashboard: Prometheus' own tool runs the rules, and both ask only for numbers that the programs show."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from agent import metrics as agent_metrics
from aggregator import metrics as aggregator_metrics
from tests.chart.rendering import CHART

RULES = CHART / "files" / "rules.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
TESTS = Path(__file__).parent / "rules.test.yaml"
OF_EVERY_PROGRAM = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def promtool(*arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    assert shutil.which("promtool"), "no promtool: `make setup` installs Debian's prometheus"
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, **more)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_prometheus_takes_the_rules() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_comes_when_it_should_and_not_before(tmp_path: Path) -> None:
    for path in (RULES, TESTS):
        shutil.copy(path, tmp_path / path.name)
    tested = promtool("test", "rules", TESTS.name, cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested() -> None:
    tested = {
        each["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for each in test["alert_rule_test"]
        if each["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in rules()}


def shown(module: ModuleType) -> Iterator[str]:
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            match metric._type:
                case "counter":
                    yield f"{metric._name}_total"
                case "histogram":
                    yield from (f"{metric._name}_{suffix}" for suffix in ("bucket", "count", "sum"))
                    yield metric._name
                case _:
                    yield metric._name


def test_only_numbers_that_are_shown_are_asked_for() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [rule["expr"] for rule in rules()] + [t["expr"] for panel in panels for t in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"\b(?:wattle|process)_[a-z_]+", expression)}
    assert len(names) > 20
    assert names - {*shown(agent_metrics), *shown(aggregator_metrics)} - OF_EVERY_PROGRAM == set()


def test_prometheus_understands_every_question_of_the_dashboard(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    group = {"name": "dashboard", "rules": [{"record": f"q:{n}", "expr": e} for n, e in enumerate(expressions)]}
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    checked = promtool("check", "rules", str(tmp_path / "asked.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_panels_do_not_cover_each_other() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_prometheus_has_nothing_to_say_about_the_metrics() -> None:
    """Both programs' pages at once, with a series of everything: what has none is not looked at."""
    for module in (agent_metrics, aggregator_metrics):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase) and metric._labelnames:
                metric.labels(*("x" for _ in metric._labelnames))
    checked = promtool("check", "metrics", input=generate_latest(REGISTRY).decode())
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert len(rule["annotations"]["summary"]) > 20
    assert len(rule["annotations"]["description"]) > 40
