"""Who calls and what they may, as the API server says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from aggregator.errors import ClusterError, ForbiddenError, UnauthenticatedError
from aggregator.services.authority.caller import Resource, Verb
from aggregator.services.authority.kubernetes import REMEMBER_SECONDS, TOKEN_REVIEWS, TokenReviews


@dataclass
class ApiServer:
    """Knows one token and one right."""

    audiences: list[str] | None = field(default_factory=lambda: ["wattle"])
    allowed: bool = True
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    now: float = 0.0
    down: bool = False

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.down:
            raise ClusterError("the API server is not there")
        self.asked.append(body)
        if path == TOKEN_REVIEWS:
            known = body["spec"]["token"] == "good"
            status: dict[str, Any] = {"authenticated": known}
            if known:
                status |= {"user": {"username": "dana", "groups": ["shop-devs"]}, "audiences": self.audiences}
            return {"status": status}
        attributes = body["spec"]["resourceAttributes"]
        return {"status": {"allowed": self.allowed and attributes.get("namespace") == "shop"}}


def test_a_token_for_wattle_names_its_caller() -> None:
    server = ApiServer()
    caller = TokenReviews(server.post, lambda: server.now).caller("good")
    assert (caller.name, caller.groups, caller.development) == ("dana", ("shop-devs",), False)
    assert server.asked[0]["spec"]["audiences"] == ["wattle"]


@pytest.mark.parametrize("audiences", [None, [], ["https://kubernetes.default.svc"]], ids=str)
def test_a_token_made_for_something_else_is_nobody(audiences: list[str] | None) -> None:
    server = ApiServer(audiences=audiences)
    with pytest.raises(UnauthenticatedError):
        TokenReviews(server.post, lambda: server.now).caller("good")


@pytest.mark.parametrize("token", ["", "bad"])
def test_an_unknown_token_is_nobody(token: str) -> None:
    server = ApiServer()
    with pytest.raises(UnauthenticatedError):
        TokenReviews(server.post, lambda: server.now).caller(token)


def test_rights_are_those_of_the_namespace() -> None:
    server = ApiServer()
    caller = TokenReviews(server.post, lambda: server.now).caller("good")
    caller.must(Verb.LIST, Resource.LINKS, "shop")
    with pytest.raises(ForbiddenError, match=r"dana may not list links\.wattle in the namespace ledger"):
        caller.must(Verb.LIST, Resource.LINKS, "ledger")
    attributes = server.asked[1]["spec"]["resourceAttributes"]
    assert attributes == {"group": "wattle", "resource": "links", "verb": "list", "namespace": "shop"}
    assert server.asked[1]["spec"]["groups"] == ["shop-devs"]


def test_answers_are_remembered_for_a_minute_and_no_longer() -> None:
    server = ApiServer()
    reviews = TokenReviews(server.post, lambda: server.now)
    assert reviews.caller("good").sees("shop")
    assert reviews.caller("good").sees("shop")
    assert len(server.asked) == 2
    server.allowed = False
    server.now = REMEMBER_SECONDS
    assert not reviews.caller("good").sees("shop")


def test_an_api_server_that_is_down_allows_nothing() -> None:
    server = ApiServer()
    reviews = TokenReviews(server.post, lambda: server.now)
    reviews.caller("good")
    server.down = True
    with pytest.raises(ClusterError):
        reviews.caller("good").sees("shop")


def test_a_token_is_not_kept() -> None:
    server = ApiServer()
    reviews = TokenReviews(server.post, lambda: server.now)
    reviews.caller("good")
    assert "good" not in repr(reviews.__dict__["_remembered"].__dict__)
