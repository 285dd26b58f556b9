"""Contradictions are refused, all at once, each with a sentence; misspelt and misshapen values by the schema."""

from typing import Any

import pytest

from tests.chart.rendering import CHART, CI, helm_python, render, values_of

POSTGRES = {"kind": "postgres", "postgres": {"secretName": "db"}}
SQLITE = {"kind": "sqlite"}
MEMBER = {"server": "h:1", "caSecretName": "s"}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    return str(refused.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"aggregator": {"replicas": 2}, "database": SQLITE},
            "aggregator.replicas above 1 needs database.kind=postgres",
        ),
        ({"database": {"kind": "postgres"}}, "database.kind=postgres needs database.postgres.secretName"),
        ({"aggregator": {"alerting": {"webhookUrlKey": "url"}}}, "no aggregator.alerting.secretName that has them"),
        ({"aggregator": {"alerting": {"secretName": "chat"}}}, "is given, but none of its keys"),
        (
            {
                "aggregator": {
                    "alerting": {"secretName": "chat", "webhookUrlKey": "url"},
                    "settings": {"webhook_url": "https://chat.example.com/x"},
                }
            },
            "are both given: choose one",
        ),
        ({"database": {"postgres": {"secretName": "db"}}}, "secretName is given, but database.kind=trial"),
        ({"database": POSTGRES | SQLITE}, "secretName is given, but database.kind=sqlite"),
        (
            {"database": {"storage": {"persistent": False, "existingClaim": "c"}}},
            "database.storage.existingClaim is given, but database.storage.persistent=false",
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
        ({"platform": "gke-autopilot"}, "no agent can run there: use a GKE Standard cluster"),
        ({"platform": "openshift"}, "platform=openshift cannot run database.kind=trial"),
        ({"aggregator": {"enabled": False}}, "it needs member.server"),
        ({"aggregator": {"enabled": False}, "member": {"server": "h:1"}}, "and member.caSecretName"),
        ({"member": MEMBER}, "member.* is given, but aggregator.enabled=true"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.enabled=true needs httpRoute.parentRefs"),
        (
            {
                "aggregator": {"enabled": False},
                "member": MEMBER,
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]},
            },
            "a member has no page",
        ),
    ],
)
def test_a_contradiction_is_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(values)


def test_all_contradictions_are_said_at_once() -> None:
    values = {"aggregator": {"replicas": 2}, "tls": {"mode": "secret"}, "ingress": {"enabled": True}}
    said = refusal(values | {"database": SQLITE})
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
        {"database": {"sqlite": {}}},
        {"platform": "gke"},
        {"member": {"server": "no-port"}},
        {"httpRoute": {"parentRefs": [{"nme": "g"}]}},
        {"tls": {"mode": "none"}},
        {"networkPolicy": {"apiServerPorts": []}},
    ],
    ids=str,
)
def test_what_the_schema_does_not_know_is_refused(values: dict[str, Any]) -> None:
    refusal(values)


def test_what_a_file_is_named_for_is_refused() -> None:
    [refused] = [path for path in (CHART / "ci").glob("*-values.yaml") if path not in CI]
    assert "Autopilot allows neither hostPID" in refusal(values_of(refused))


def test_postgres_alone_is_no_contradiction() -> None:
    assert render({"database": POSTGRES, "aggregator": {"replicas": 2}})
