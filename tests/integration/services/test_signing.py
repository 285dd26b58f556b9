"""One person submits, another approves, and the digest holds them to it."""

from dataclasses import dataclass

import pytest

from aggregator.errors import ConflictError, ForbiddenError, NotFoundError
from aggregator.model.decision import Choice
from aggregator.model.link import link_id
from aggregator.services.authority.caller import Caller, Everything, Resource, Verb
from aggregator.services.deciding.decisions import ANY
from aggregator.services.question import WorkloadRef
from tests.integration.services.world import OLD, SHOP, WEB, World, link

WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")
DANA, EVE = (Caller(name=name, authority=Everything()) for name in ("dana", "eve"))


@dataclass(frozen=True)
class InTheShop:
    """Everything, in one namespace."""

    def may(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:
        return namespace == SHOP


def exclude_a_row(world: World) -> None:
    row = str(link_id(link(WEB, OLD, 9042)))
    world.review().deciding.decide_links(DANA, WEB_REF, [row], Choice.EXCLUDE, reason="", if_match=ANY)


def test_a_proposal_is_submitted_and_approved_by_another(world: World) -> None:
    signing = world.review().signing
    assert signing.state(DANA, SHOP).state == "none"
    submitted = signing.submit(DANA, SHOP, reason="release 7")
    assert (submitted.state, submitted.submitted_by, submitted.reason) == ("submitted", "dana", "release 7")
    with pytest.raises(ForbiddenError, match="another person"):
        signing.approve(DANA, SHOP, submitted.digest, reason="")
    approved = signing.approve(EVE, SHOP, submitted.digest, reason="")
    assert (approved.state, approved.approved_by) == ("approved", "eve")
    with pytest.raises(ConflictError, match="already"):
        signing.approve(EVE, SHOP, submitted.digest, reason="")


def test_a_changed_proposal_is_not_what_was_approved(world: World) -> None:
    signing = world.review().signing
    digest = signing.submit(DANA, SHOP, reason="").digest
    exclude_a_row(world)
    assert signing.state(EVE, SHOP).state == "changed"
    with pytest.raises(ConflictError, match="changed"):
        signing.approve(EVE, SHOP, digest, reason="")
    again = signing.submit(DANA, SHOP, reason="")
    assert signing.approve(EVE, SHOP, again.digest, reason="").state == "approved"


def test_an_approval_falls_with_a_new_submission(world: World) -> None:
    signing = world.review().signing
    digest = signing.submit(DANA, WEB_REF, reason="").digest
    signing.approve(EVE, WEB_REF, digest, reason="")
    assert signing.submit(DANA, WEB_REF, reason="").state == "submitted"
    assert signing.state(DANA, SHOP).state == "none"


def test_nothing_submitted_nothing_approved(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.review().signing.approve(EVE, SHOP, "0" * 64, reason="")


def test_who_cannot_see_it_whole_does_not_sign(world: World) -> None:
    partly = Caller(name="frank", authority=InTheShop())
    signing = world.review().signing
    digest = signing.submit(DANA, SHOP, reason="").digest
    for act in (
        lambda: signing.submit(partly, SHOP, reason=""),
        lambda: signing.approve(partly, SHOP, digest, reason=""),
        lambda: signing.state(partly, SHOP),
    ):
        with pytest.raises(ForbiddenError, match="may not see"):
            act()
