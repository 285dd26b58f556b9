"""Callers that the cluster's own objects announce: offered with the proposal, in it when somebody includes them."""

import pytest

from aggregator.errors import NotFoundError
from aggregator.model.decision import Choice
from aggregator.services.authority.caller import developer
from aggregator.services.deciding.decisions import ANY
from aggregator.services.question import WorkloadRef
from tests.integration.services.test_deciding import editor_of
from tests.integration.services.world import (
    OTHER,
    SHOP,
    World,
    api_server_objects,
    dns_objects,
    other_objects,
    shop_objects,
)

ME = developer()
WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")
HOOK = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "guard"},
    "webhooks": [
        {"name": "a", "clientConfig": {"service": {"namespace": SHOP, "name": "web", "port": 80}}},
        {"name": "b", "clientConfig": {"service": {"namespace": OTHER, "name": "books", "port": 7000}}},
    ],
}


@pytest.fixture
def hooked(world: World) -> World:
    world.show([*dns_objects(), *shop_objects(), *other_objects(), *api_server_objects(), HOOK])
    return world


def test_they_are_offered_and_in_no_policy(hooked: World) -> None:
    proposal = hooked.review().workload_proposal(ME, WEB_REF)
    (row,) = proposal.declared
    assert (row.src, row.dst, row.port) == ("kubernetes API server", "shop/Deployment/web", 8080)
    assert row.source == "ValidatingWebhookConfiguration/guard"
    assert "nobody has seen it yet" in row.text
    assert row.src not in {chosen.src for chosen in proposal.included}


def test_one_that_is_included_is_in_the_policy_and_no_longer_offered(hooked: World) -> None:
    review = hooked.review()
    (row,) = review.workload_proposal(ME, WEB_REF).declared
    review.deciding.decide_links(ME, WEB_REF, [row.id], Choice.INCLUDE, reason="the webhook", if_match=ANY)
    proposal = review.workload_proposal(ME, WEB_REF)
    assert proposal.declared == []
    assert [(c.src, c.port) for c in proposal.included if c.id == row.id] == [("kubernetes API server", 8080)]
    assert proposal.certificate.holds


def test_a_row_of_another_namespace_is_neither_shown_nor_decided(hooked: World) -> None:
    review = hooked.review()
    (hidden,) = review.namespace_proposal(ME, OTHER).declared
    caller = editor_of(SHOP)
    assert [row.dst for row in review.namespace_proposal(caller, SHOP).declared] == ["shop/Deployment/web"]
    with pytest.raises(NotFoundError):
        review.deciding.decide_links(caller, WEB_REF, [hidden.id], Choice.INCLUDE, reason="", if_match=ANY)
