"""Contradictions are refused, all at once, each with a sentence; misspelt and misshapen values by the schema."""

from typing import Any

import pytest

from tests.chart.rendering import helm_python, render

POSTGRES = {"kind": "postgres", "postgres": {"secretName": "db"}}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    return str(refused.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"aggregator": {"replicas": 2}}, "aggregator.replicas above 1 needs database.kind=postgres"),
        ({"database": {"kind": "postgres"}}, "database.kind=postgres needs database.postgres.secretName"),
        ({"database": {"postgres": {"secretName": "db"}}}, "database.postgres.secretName is given, but database.kind"),
        (
            {"database": {"sqlite": {"persistent": False, "existingClaim": "c"}}},
            "database.sqlite.existingClaim is given, but database.sqlite.persistent=false",
        ),
        ({"tls": {"mode": "secret"}}, "tls.mode=secret needs tls.secretName"),
        ({"tls": {"secretName": "s"}}, "tls.secretName is given, but tls.mode=self-made"),
        (
            {"tls": {"certManager": {"issuerName": "i"}}},
            "tls.certManager.issuerName is given, but tls.mode=self-made",
        ),
        ({"agent": {"privileged": True, "sysResource": True}}, "agent.sysResource adds nothing"),
        ({"ingress": {"enabled": True, "tlsSecretName": "s"}}, "ingress.enabled=true needs ingress.host"),
        ({"ingress": {"enabled": True, "host": "w.example.com"}}, "ingress.enabled=true needs ingress.tlsSecretName"),
        ({"aggregator": {"httpPort": 9000, "ingestPort": 9000}}, "must differ"),
    ],
)
def test_a_contradiction_is_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(values)


def test_all_contradictions_are_said_at_once() -> None:
    said = refusal({"aggregator": {"replicas": 2}, "tls": {"mode": "secret"}, "ingress": {"enabled": True}})
    assert said.count("  - ") == 4


@pytest.mark.parametrize(
    "values",
    [
        {"agents": {}},
        {"agent": {"priviliged": True}},
        {"agent": {"settings": {"flow_entrys": 1}}},
        {"agent": {"settings": {"plaintext": True}}},
        {"agent": {"settings": {"spool_directory": "/x"}}},
        {"agent": {"settings": {"flow_entries": "many"}}},
        {"agent": {"spool": {"medium": "tape"}}},
        {"agent": {"hostPaths": {"cgroup": "sys/fs/cgroup"}}},
        {"agent": {"digest": "sha256:12"}},
        {"aggregator": {"settings": {"development": True}}},
        {"aggregator": {"replicas": 0}},
        {"cluster": "Not A Name"},
        {"database": {"kind": "mysql"}},
        {"tls": {"mode": "none"}},
        {"networkPolicy": {"apiServerPorts": []}},
    ],
    ids=str,
)
def test_what_the_schema_does_not_know_is_refused(values: dict[str, Any]) -> None:
    refusal(values)


def test_postgres_alone_is_no_contradiction() -> None:
    assert render({"database": POSTGRES, "aggregator": {"replicas": 2}})
