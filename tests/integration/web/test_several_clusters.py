"""The pages of several clusters: each its own, reached by the scope picker, each with its own people."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from aggregator.api.asking import Answering
from aggregator.api.rest import Development, create_api
from aggregator.web.site import add_web
from tests.integration.api.test_several_clusters import WestTokens
from tests.integration.api.tokens import Tokens
from tests.integration.services.world import World, home_and_west

HOME, WEST = "/ui", "/ui/clusters/west"
EGRESS = "/workloads/shop/Deployment/web/egress"


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[tuple[World, World]]:
    with home_and_west(tmp_path) as both:
        yield both


@pytest.fixture
def web(worlds: tuple[World, World]) -> TestClient:
    home, west = worlds
    others = {"west": Answering(review=west.review(), authenticator=Development())}
    return TestClient(add_web(create_api(home.review(), Development(), others=others)), follow_redirects=False)


def test_the_scope_picker_offers_every_cluster_and_leads_to_its_pages(web: TestClient) -> None:
    page = web.get(f"{HOME}/").text
    picker = re.search(r'<select name="cluster".*?</select>', page, re.DOTALL)
    assert picker
    assert re.findall(r"<option([^>]*)>(\w+)", picker[0]) == [(" selected", "default"), ("", "west")]
    went = web.get(f"{HOME}/go", params={"cluster": "west", "namespace": "ledger"})
    assert (went.status_code, went.headers["location"]) == (303, f"{WEST}/")
    back = web.get(f"{WEST}/go", params={"cluster": "default"})
    assert back.headers["location"] == f"{HOME}/"
    stay = web.get(f"{WEST}/go", params={"cluster": "west", "namespace": "shop"})
    assert stay.headers["location"] == f"{WEST}/namespaces/shop"
    assert web.get(f"{HOME}/go", params={"cluster": "north"}).status_code == 404


def test_a_clusters_pages_are_its_own_and_lead_nowhere_else(web: TestClient) -> None:
    assert "ledger" in web.get(f"{HOME}/").text
    for path in ("/", "/namespaces/shop", EGRESS, "/policies", "/addresses", "/agents", "/settings", "/findings"):
        page = web.get(f"{WEST}{path}")
        assert page.status_code == 200
        assert "ledger" not in page.text
        leads = set(re.findall(r'(?:href|action|src|hx-get|hx-post)="(/[^"]*)"', page.text))
        assert leads
        assert {lead for lead in leads if not lead.startswith(WEST)} == set(), path


def test_what_is_decided_in_one_cluster_is_not_decided_in_another(web: TestClient, worlds: tuple[World, World]) -> None:
    page = web.get(f"{WEST}{EGRESS}").text
    switch = re.search(r'name="say" value="(exclude:[^"]+)"', page)
    assert switch
    said = {name: _hidden(page, name) for name in ("csrf", "etag")} | {"tab": "egress", "say": switch[1]}
    answer = web.post(f"{WEST}/workloads/shop/Deployment/web/say", data=said)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{WEST}{EGRESS}")
    home, west = worlds
    assert len(west.decisions.state("default").log) == 1
    assert home.decisions.state("default").log == ()


def test_a_token_of_one_cluster_is_never_shown_to_another(worlds: tuple[World, World]) -> None:
    home, west = worlds
    tokens = WestTokens()
    others = {"west": Answering(review=west.review(), authenticator=tokens)}
    web = TestClient(add_web(create_api(home.review(), Tokens(), others=others)), follow_redirects=False)
    csrf = _hidden(web.get(f"{HOME}/").text, "csrf")
    assert web.post(f"{HOME}/login", data={"csrf": csrf, "token": "admin"}).status_code == 303
    assert "ledger" in web.get(f"{HOME}/").text
    refused = web.get(f"{WEST}/")
    assert refused.status_code == 401
    assert "Sign in to west" in refused.text
    assert 'href="/ui/"' in refused.text, "there is a way back"
    assert "admin" not in tokens.asked
    assert web.post(f"{WEST}/login", data={"csrf": csrf, "token": "west"}).headers["location"] == f"{WEST}/"
    assert web.get(f"{WEST}/").status_code == 200
    assert "ledger" in web.get(f"{HOME}/").text, "signed in to both"
    assert web.post(f"{WEST}/logout", data={"csrf": csrf}).status_code == 303
    assert web.get(f"{WEST}/").status_code == 401
    assert web.get(f"{HOME}/").status_code == 200


def _hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found
    return found[1]
