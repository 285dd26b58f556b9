"""The sample cases of the field, from real traffic to the YAML and its proof, decided on the command line."""

import json
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.manifest.readback import read_back
from tests.integration.samples.conftest import Wattle
from tests.watched import Watched

JAVAAPP = "example-java-app/Deployment/javaapp"
COLLECTOR, COLLECTOR_POD = "audit/Deployment/collector", "audit/collector"
PROXY = "203.0.113.10"
DNS = 53


def proposal(wattle: Wattle, scope: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(wattle("policy", scope, "-o", "json"))
    assert found["certificate"]["holds"]
    return found


def spec(found: dict[str, Any]) -> dict[str, Any]:
    (document,) = list(yaml.safe_load_all(found["yaml"]))
    own: dict[str, Any] = document["spec"]
    return own


def ports(rules: list[dict[str, Any]]) -> set[int]:
    return {port["port"] for rule in rules for port in rule.get("ports", ())}


def table(wattle: Wattle, scope: str, direction: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(wattle("links", scope, "-o", "json", "--direction", direction))
    return rows


def test_1_only_what_was_specified_without_the_obsolete_service(wattle: Wattle) -> None:
    assert 9042 in ports(spec(proposal(wattle, JAVAAPP))["egress"])
    wattle("decide", "exclude", JAVAAPP, "--matching", "cassandra 9042", "--yes", "--reason", "obsolete")
    found = proposal(wattle, JAVAAPP)
    assert ports(spec(found)["egress"]) == {27017, 6379, 8125, DNS}
    assert not any("ipBlock" in peer for rule in spec(found)["egress"] for peer in rule["to"])
    assert PROXY not in found["yaml"]
    (left,) = [row for row in found["left_out"] if row["port"] == 9042]
    assert left["denied"]
    # One decision, both ends: cassandra does not let it in.
    other_end = json.loads(wattle("links", "example-java-app/sts/cassandra", "-o", "json", "--direction", "ingress"))
    assert {row["proposal"]["reason"] for row in other_end if row["port"] == 9042} == {"excluded"}


def test_2_the_static_addresses_of_a_proxy_by_cidr(wattle: Wattle) -> None:
    wattle("decide", "cidr", JAVAAPP, "egress", "203.0.113.8/29@443", "--reason", "the proxy's addresses")
    found = proposal(wattle, JAVAAPP)
    (rule,) = [r for r in spec(found)["egress"] if r["to"][0].get("ipBlock", {}).get("cidr") == "203.0.113.8/29"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 443}]
    assert {row["port"]: row["reason"] for row in found["included"]}[443] == "typed-cidr"


def test_3_only_inside_the_namespace_in_both_directions(wattle: Wattle) -> None:
    for direction in ("ingress", "egress"):
        wattle("decide", "rule", JAVAAPP, direction, "allow-namespace")
    found = proposal(wattle, JAVAAPP)
    assert spec(found)["ingress"] == [{"from": [{"podSelector": {}}]}]
    assert {"to": [{"podSelector": {}}]} in spec(found)["egress"]
    assert DNS in ports(spec(found)["egress"])
    assert "monitoring" not in found["yaml"]
    reasons = {(row["src"], row["dst"]): row["reason"] for row in found["left_out"]}
    assert reasons["monitoring/Deployment/prometheus", JAVAAPP] == "blocked-ingress"


def test_4_one_other_namespace_by_egress_alone(wattle: Wattle, watched: Watched) -> None:
    assert table(wattle, COLLECTOR, "ingress") == []
    assert {row["peer"]["namespace"] for row in table(wattle, COLLECTOR, "egress")} == {
        "example-java-app",
        "kube-system",
    }
    wattle("decide", "rule", COLLECTOR, "ingress", "block-all")
    found = proposal(wattle, COLLECTOR)
    assert spec(found)["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec(found)
    assert ports(spec(found)["egress"]) == {8080, DNS}
    assert all("namespaceSelector" in peer for rule in spec(found)["egress"] for peer in rule["to"])
    policies = read_back(found["yaml"])
    assert watched.reaches(policies, COLLECTOR_POD, "audit/neighbour", 8080) is Verdict.DENIED
    assert watched.reaches(policies, COLLECTOR_POD, "example-java-app/javaapp", 8080) is Verdict.ALLOWED
    assert watched.reaches(policies, COLLECTOR_POD, "kube-system/coredns", DNS, Protocol.UDP) is Verdict.ALLOWED


def test_5_a_namespace_whose_label_may_not_be_used_recovers_when_it_may(wattle: Wattle, watched: Watched) -> None:
    exclude(watched, ["kubernetes.io/metadata.name", "team"])
    found = proposal(wattle, JAVAAPP)
    assert "monitoring" not in found["yaml"]
    said = [f for f in found["findings"] if "monitoring" in f["subject"] + f["message"]]
    assert said
    assert all(finding["way_out"] for finding in said)
    row = by_prometheus(table(wattle, JAVAAPP, "ingress"))
    assert (row["proposal"]["included"], row["proposal"]["denied"]) == (False, True)
    assert fate(wattle) == "denied"
    exclude(watched, [])
    assert "monitoring" in proposal(wattle, JAVAAPP)["yaml"]
    assert by_prometheus(table(wattle, JAVAAPP, "ingress"))["proposal"]["included"]
    assert fate(wattle) == "allowed"


def by_prometheus(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in rows if row["peer"]["name"] == "prometheus")


def fate(wattle: Wattle) -> str:
    """Of the line from monitoring: red and dashed when denied."""
    found = json.loads(wattle("topology", JAVAAPP, "-o", "json"))
    names = {card["key"]: card["name"] for card in found["cards"]}
    return next(line["fate"] for line in found["lines"] if names[line["src"]] == "prometheus")


def exclude(watched: Watched, keys: list[str]) -> None:
    """Which labels may name a namespace: a setting, so REST's own."""
    body = {"namespace_labels": {"exclude": keys}}
    request = Request(
        f"{watched.address}/api/v1/settings/labels",
        data=json.dumps(body).encode(),
        method="PUT",
        headers={"Content-Type": "application/json", "If-Match": "*"},
    )
    with urlopen(request) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("scope", [JAVAAPP, COLLECTOR])
def test_what_was_decided_is_taken_back_byte_for_byte(wattle: Wattle, scope: str) -> None:
    before = wattle("policy", scope)
    wattle("decide", "rule", scope, "egress", "block-all")
    assert wattle("policy", scope) != before
    record = json.loads(wattle("decide", "list", "-o", "json"))[0]["record"]
    wattle("decide", "undo", record)
    assert wattle("policy", scope) == before
