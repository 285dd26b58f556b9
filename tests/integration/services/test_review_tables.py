"""Tables, lists and proposals over a real store and real manifests."""

import pytest

from aggregator.errors import InputError, NotFoundError
from aggregator.model.link import link_id
from aggregator.model.protocol import Direction
from aggregator.services.authority.caller import developer
from aggregator.services.question import WorkloadRef
from tests.integration.services.world import (
    DB,
    IDLE,
    OTHER,
    PARTNER,
    SHOP,
    WEB,
    World,
    dns_objects,
    link,
    other_objects,
    shop_objects,
)

WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")
ME = developer()


def test_workloads_without_communication_are_listed_as_such(world: World) -> None:
    rows = {row.name: row for row in world.review().workloads(ME, SHOP)}
    assert set(rows) == {"web", "db", "old", "report", "idle"}
    assert not rows[IDLE.name].observed
    assert rows["web"].observed
    assert (rows["web"].ingress_links, rows["web"].egress_links, rows["web"].failed_links) == (2, 5, 1)


def test_a_workload_that_only_links_know_is_listed(world: World) -> None:
    gone = [o for o in shop_objects() if "old" not in str(o["metadata"]["name"])]
    world.show([*dns_objects(), *gone, *other_objects()])
    rows = {row.name: row for row in world.review().workloads(ME, SHOP)}
    assert not rows["old"].in_cluster
    assert rows["old"].observed


def test_a_table_has_one_row_a_link_seen_from_the_workload(world: World) -> None:
    rows = world.review().workload_links(ME, WEB_REF)
    egress = {(row.peer.name, row.port) for row in rows if row.direction == "Egress"}
    ingress = {(row.peer.name, row.port) for row in rows if row.direction == "Ingress"}
    assert egress == {
        ("db", 5432),
        ("old", 9042),
        ("203.0.113.10", 443),
        ("coredns", 53),
        ("books", 7000),
        ("db", 5433),
    }
    assert ingress == {("nodes", 8080), ("books", 8080)}
    row = next(row for row in rows if row.port == 5432)
    assert row.id == str(link_id(link(WEB, DB, 5432)))
    assert (row.services, row.processes, row.connections) == (["shop/db:5432"], ["python3"], 500)
    assert row.peer.labels == {"app": "db"}
    assert row.proposal.included
    assert row.applied.verdict == "allowed"


def test_failed_attempts_and_unresolved_addresses_say_why_they_are_out(world: World) -> None:
    rows = {row.port: row for row in world.review().workload_links(ME, WEB_REF, direction=Direction.EGRESS)}
    assert (rows[5433].failed_attempts, rows[5433].proposal.reason) == (7, "failed-attempts")
    assert rows[443].proposal.reason == "unresolved"
    assert rows[443].peer.address is not None
    assert rows[443].peer.address.address_class == "external"


def test_a_span_keeps_what_was_seen_in_it(world: World) -> None:
    review = world.review()
    assert len(review.workload_links(ME, WEB_REF, span="3h")) == 8
    assert review.workload_links(ME, WEB_REF, span="2026-11-01T00:00:00Z..2026-11-02T00:00:00Z") == []
    with pytest.raises(InputError, match="no span"):
        review.workload_links(ME, WEB_REF, span="3 weeks")


def test_a_service_is_the_union_of_its_backends(world: World) -> None:
    review = world.review()
    service = WorkloadRef(namespace=SHOP, kind="Service", name="web")
    assert review.workload_links(ME, service) == review.workload_links(ME, WEB_REF)
    assert review.workload_proposal(ME, service).yaml == review.workload_proposal(ME, WEB_REF).yaml


@pytest.mark.parametrize(
    "ref",
    [
        WorkloadRef(namespace=SHOP, kind="Deployment", name="nothing"),
        WorkloadRef(namespace=SHOP, kind="Service", name="nothing"),
        WorkloadRef(namespace="nowhere", kind="Deployment", name="web"),
    ],
    ids=str,
)
def test_what_does_not_exist_is_not_found(world: World, ref: WorkloadRef) -> None:
    with pytest.raises(NotFoundError):
        world.review().workload_links(ME, ref)


def test_a_namespace_proposal_is_proved_and_complete(world: World) -> None:
    proposal = world.review().namespace_proposal(ME, SHOP)
    assert proposal.certificate.holds
    assert proposal.certificate.digest == proposal.digest
    assert proposal.policies == ["shop/wattle-report", "shop/wattle-web", "shop/wattle-db", "shop/wattle-old"]
    assert 'k8s-app": "kube-dns' in proposal.yaml
    assert {(row.port, row.reason) for row in proposal.left_out} == {(443, "unresolved"), (5433, "failed-attempts")}
    assert str(PARTNER.ip) not in proposal.yaml


def test_the_same_question_gives_the_same_bytes(world: World) -> None:
    assert world.review().namespace_proposal(ME, OTHER) == world.review().namespace_proposal(ME, OTHER)


def test_applied_policies_are_named_where_they_select(world: World) -> None:
    rows = {row.name: row for row in world.review().workloads(ME, OTHER)}
    assert (rows["vault"].policies, rows["vault"].isolated) == (["ledger/vault-guard"], ["Ingress"])
    assert rows["books"].policies == []
