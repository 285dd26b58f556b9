"""Sample cases of the field, decided through the same service as every door, judged on the YAML and its proof."""

from ipaddress import ip_network
from typing import Any

import pytest
import yaml

from aggregator.model.decision import Choice, GeneralRule, LabelDecision, LabelLists, TypedCIDR
from aggregator.model.link import link_id
from aggregator.model.protocol import Direction
from aggregator.services.authority.caller import developer
from aggregator.services.deciding.decisions import ANY, Deciding
from aggregator.services.policies.policy_views import ProposalView
from aggregator.services.question import WorkloadRef
from tests.integration.services.world import (
    BOOKS,
    OLD,
    OTHER,
    SHOP,
    WEB,
    Seen,
    World,
    link,
    record,
)

ME = developer()
WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")


@pytest.fixture
def deciding(world: World) -> Deciding:
    return world.review().deciding


def spec(proposal: ProposalView, name: str = "wattle-web") -> dict[str, Any]:
    documents = {doc["metadata"]["name"]: doc for doc in yaml.safe_load_all(proposal.yaml)}
    found: dict[str, Any] = documents[name]["spec"]
    return found


def ports(rules: list[dict[str, Any]]) -> set[int]:
    return {port["port"] for rule in rules for port in rule.get("ports", ())}


def test_1_only_what_was_specified_without_the_obsolete_service(world: World, deciding: Deciding) -> None:
    obsolete = str(link_id(link(WEB, OLD, 9042)))
    deciding.decide_links(ME, WEB_REF, [obsolete], Choice.EXCLUDE, reason="obsolete", if_match=ANY)
    proposal = world.review().proposal(ME, WEB_REF)
    assert proposal.certificate.holds
    assert ports(spec(proposal)["egress"]) == {5432, 53, 7000}
    assert "203.0.113.10" not in proposal.yaml
    assert not any("ipBlock" in peer for rule in spec(proposal)["egress"] for peer in rule["to"])
    assert {row.port: row.denied for row in proposal.left_out}[9042]


def test_2_the_static_addresses_of_a_proxy_by_cidr(world: World, deciding: Deciding) -> None:
    deciding.type_cidr(
        ME,
        WEB_REF,
        lambda owner: TypedCIDR(
            workload=owner, direction=Direction.EGRESS, cidr=ip_network("203.0.113.8/29"), port=443
        ),
        Choice.INCLUDE,
        reason="the proxy's addresses",
        if_match=ANY,
    )
    proposal = world.review().proposal(ME, WEB_REF)
    assert proposal.certificate.holds
    (rule,) = [r for r in spec(proposal)["egress"] if r["to"][0].get("ipBlock", {}).get("cidr") == "203.0.113.8/29"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 443}]
    assert {row.port: row.reason for row in proposal.included}[443] == "typed-cidr"


def test_3_only_inside_the_namespace_in_both_directions(world: World, deciding: Deciding) -> None:
    for direction in Direction:
        deciding.decide_direction(ME, WEB_REF, direction, GeneralRule.ALLOW_NAMESPACE, reason="", if_match=ANY)
    proposal = world.review().proposal(ME, WEB_REF)
    assert proposal.certificate.holds
    assert spec(proposal)["ingress"] == [{"from": [{"podSelector": {}}]}]
    assert {"to": [{"podSelector": {}}]} in spec(proposal)["egress"]
    assert OTHER not in proposal.yaml
    assert 53 in ports(spec(proposal)["egress"])
    reasons = {(row.src, row.dst): row.reason for row in proposal.left_out}
    assert reasons["ledger/Deployment/books", "shop/Deployment/web"] == "blocked-ingress"


def test_4_one_other_namespace_by_egress_alone(world: World, deciding: Deciding) -> None:
    reaches_books = str(link_id(link(WEB, BOOKS, 7000)))
    rows = world.review().workload_links(ME, WEB_REF, direction=Direction.EGRESS)
    inside = [row.id for row in rows if row.id != reaches_books and row.peer.namespace != "kube-system"]
    deciding.decide_links(ME, WEB_REF, inside, Choice.EXCLUDE, reason="", if_match=ANY)
    deciding.decide_direction(ME, WEB_REF, Direction.INGRESS, GeneralRule.BLOCK_ALL, reason="", if_match=ANY)
    proposal = world.review().proposal(ME, WEB_REF)
    assert proposal.certificate.holds
    assert "ingress" not in spec(proposal)
    assert spec(proposal)["policyTypes"] == ["Ingress", "Egress"]
    assert ports(spec(proposal)["egress"]) == {7000, 53}
    assert all("namespaceSelector" in peer for rule in spec(proposal)["egress"] for peer in rule["to"])


def test_5_a_namespace_whose_label_may_not_be_used_recovers_when_it_may(world: World, deciding: Deciding) -> None:
    excluded = LabelDecision(namespace_labels=LabelLists(exclude=("kubernetes.io/metadata.name",)))
    deciding.change_settings(ME, [excluded], reason="", if_match=ANY)
    without = world.review().proposal(ME, WEB_REF)
    assert OTHER not in without.yaml
    assert any("ledger" in finding.subject + finding.message and finding.way_out for finding in without.findings)
    row = next(row for row in world.review().workload_links(ME, WEB_REF) if row.port == 7000)
    assert not row.proposal.included
    assert row.proposal.denied
    deciding.change_settings(ME, [LabelDecision()], reason="", if_match=ANY)
    again = world.review().proposal(ME, WEB_REF)
    assert OTHER in again.yaml
    row = next(row for row in world.review().workload_links(ME, WEB_REF) if row.port == 7000)
    assert row.proposal.included


def test_a_redeployed_workload_keeps_its_decisions(world: World, deciding: Deciding) -> None:
    """A decision is about the link, not about pods: new pods, new processes and new counts change nothing."""
    obsolete = str(link_id(link(WEB, OLD, 9042)))
    deciding.decide_links(ME, WEB_REF, [obsolete], Choice.EXCLUDE, reason="", if_match=ANY)
    record(world.store, [Seen(link=link(WEB, OLD, 9042), process="java", src_pod="shop/web-2")])
    (row,) = [row for row in world.review().workload_links(ME, WEB_REF) if row.port == 9042]
    assert row.proposal.reason == "excluded"
    assert row.workload_pods == ["shop/web-1", "shop/web-2"]
