"""What the chart tells the programs, they understand: its environments are read by their own configuration."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig, read_config
from aggregator.config import Settings
from tests.chart import pages
from tests.chart.rendering import AGGREGATORS, CHART, environment_of, render, values_of


def agent_environment(values: dict[str, Any]) -> dict[str, str]:
    return {"WATTLE_NODE": "node-1"} | {
        name: value for name, value in environment_of(render(values), "agent").items() if value
    }


@pytest.mark.parametrize("path", AGGREGATORS, ids=lambda path: path.stem)
def test_the_agent_starts_with_it(path: Path) -> None:
    environment = agent_environment(values_of(path))
    fields = {f"WATTLE_{field.name.upper()}" for field in dataclasses.fields(AgentConfig)}
    assert environment.keys() <= fields
    config, _ = read_config([], environment)
    assert config.server == "wattle-ingest.wattle.svc:8471"
    assert config.token_file is not None
    assert config.ca_file is not None


def test_a_members_agent_delivers_to_the_other_cluster() -> None:
    config, _ = read_config([], agent_environment(values_of(CHART / "ci" / "member-values.yaml")))
    assert (config.server, config.server_name) == ("ingest.wattle.example.com:8471", "wattle-ingest.wattle.svc")
    assert config.cluster == "east"


@pytest.mark.parametrize("path", AGGREGATORS, ids=lambda path: path.stem)
def test_the_aggregator_starts_with_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environment_of(render(values_of(path)), "aggregator")
    assert environment.keys() <= {f"WATTLE_{name.upper()}" for name in Settings.model_fields}
    environment["WATTLE_DATABASE_URL"] = environment["WATTLE_DATABASE_URL"] or "postgresql+psycopg://u@h/d"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.source == "kubernetes"
    assert settings.agent_service_account == "wattle/wattle-agent"


def test_further_settings_arrive_as_they_were_written() -> None:
    given = {
        "backend": "tracepoint",
        "flow_entries": 262144,
        "drain_interval_seconds": 2.5,
        "mesh_ports": [15001, 15006, 15008],
        "cidr_processes": ["k3s server"],
        "spool_memory_bytes": 33554432,
    }
    config, _ = read_config([], agent_environment({"agent": {"settings": given}}))
    assert {name: _plain(getattr(config, name)) for name in given} == given


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_every_setting_is_set_by_the_chart_or_open_or_left_out_for_a_reason() -> None:
    agent = environment_of(render(), "agent")
    told = {"secretName": "s", "webhookSecretKey": "sign", "alertmanagerTokenKey": "token"}
    every = {"rbac": {"dryRun": True}, "aggregator": {"clusters": {"secretName": "c"}, "alerting": told}}
    aggregator = environment_of(render(every), "aggregator")
    assert {f"WATTLE_{name.upper()}" for name in pages.AGENT_OWNED} == agent.keys()
    assert {f"WATTLE_{name.upper()}" for name in pages.AGGREGATOR_OWNED} == aggregator.keys()
    for owned, elsewhere, known in (
        (pages.AGENT_OWNED, pages.AGENT_ELSEWHERE, {field.name for field in dataclasses.fields(AgentConfig)}),
        (pages.AGGREGATOR_OWNED, pages.AGGREGATOR_ELSEWHERE, set(Settings.model_fields)),
    ):
        assert owned | elsewhere.keys() <= known
        assert not owned & elsewhere.keys()
