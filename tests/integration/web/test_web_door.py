"""The page as a door: headers, tokens, refusals, masks. It decides nothing by itself."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from aggregator.api.rest import Development, NobodyYet, create_api
from aggregator.model.link import link_id
from aggregator.services.authority.caller import Caller, Resource, Verb
from aggregator.web.site import add_web
from tests.integration.services.world import OLD, OTHER, SHOP, WEB, World, everything, link

EGRESS = f"/ui/workloads/{SHOP}/Deployment/web/egress"
SAY = f"/ui/workloads/{SHOP}/Deployment/web/say"
TO_OLD = str(link_id(link(WEB, OLD, 9042)))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = everything(tmp_path)
    yield made
    made.close()


@pytest.fixture
def web(world: World) -> TestClient:
    return TestClient(add_web(create_api(world.review(), Development())), follow_redirects=False)


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found
    return found[1]


def form(web: TestClient, say: str, **more: str) -> dict[str, str]:
    page = web.get(EGRESS).text
    return {"csrf": hidden(page, "csrf"), "etag": hidden(page, "etag"), "tab": "egress", "say": say} | more


@pytest.mark.parametrize("path", ["/ui/", EGRESS, "/ui/static/wattle.css", "/ui/nothing", "/ui/findings"])
def test_every_answer_has_the_policy_without_exceptions(web: TestClient, path: str) -> None:
    policy = web.get(path).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_root_leads_to_the_page_and_rest_keeps_its_problems(web: TestClient) -> None:
    assert web.get("/").headers["location"] == "/ui/"
    assert web.get("/api/v1/nothing").headers["content-type"] == "application/problem+json"


def test_a_decision_without_the_token_is_refused(web: TestClient, world: World) -> None:
    said = form(web, f"exclude:{TO_OLD}")
    for bad in ({**said, "csrf": "x" * 43}, {name: value for name, value in said.items() if name != "csrf"}):
        assert web.post(SAY, data=bad).status_code == 403
    web.cookies.clear()
    assert web.post(SAY, data=said).status_code == 403
    assert world.decisions.state("default").log == ()


def test_another_sites_form_is_refused(web: TestClient) -> None:
    said = form(web, f"exclude:{TO_OLD}")
    assert web.post(SAY, data=said, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_cookies_are_closed_to_scripts_and_to_other_sites(web: TestClient) -> None:
    cookie = web.get(EGRESS).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_decision_answers_with_what_it_changed(web: TestClient) -> None:
    answer = web.post(SAY, data=form(web, f"exclude:{TO_OLD}"), headers={"HX-Request": "true"})
    assert answer.status_code == 200
    for part in ("decide-rows", "map", "policy", "proof"):
        assert re.search(rf'id="{part}" hx-swap-oob="innerHTML"', answer.text)
    assert "9042" not in answer.text[answer.text.index('id="yaml"') : answer.text.index("</pre>")]


def test_a_decision_against_an_older_page_is_refused_with_the_reason(web: TestClient) -> None:
    said = form(web, f"exclude:{TO_OLD}")
    assert web.post(SAY, data=said).status_code == 303
    again = web.post(SAY, data={**said, "say": f"include:{TO_OLD}"}, headers={"HX-Request": "true"})
    assert again.status_code == 409
    assert "Somebody has decided here since you read it" in again.text


@pytest.mark.parametrize(
    ("say", "more"),
    [
        ("exclude:1", {}),
        ("nonsense", {}),
        ("rule:egress:nonsense", {}),
        ("rule:sideways:block-all", {}),
        ("cidr", {"direction": "egress", "cidr": "nonsense", "protocol": "TCP", "port": ""}),
        ("cidr", {"direction": "egress", "cidr": "198.51.100.0/24", "protocol": "TCP", "port": "99999"}),
        ("cidr", {"direction": "egress", "cidr": "198.51.100.0/24", "protocol": "ICMP", "port": ""}),
        ("undo:000000000000000000000000", {}),
    ],
)
def test_what_cannot_be_decided_is_a_sentence(web: TestClient, say: str, more: dict[str, str]) -> None:
    answer = web.post(SAY, data=form(web, say, **more))
    assert answer.status_code == 422
    assert "Nothing was decided" in answer.text


def test_the_yaml_can_be_taken(web: TestClient, world: World) -> None:
    answer = web.get(EGRESS.replace("egress", "policy.yaml"))
    assert answer.headers["content-type"].startswith("application/yaml")
    assert 'filename="web.yaml"' in answer.headers["content-disposition"]
    assert "kind:" in answer.text


@pytest.mark.parametrize("form", ["kustomize", "cilium", "calico", "admin"])
def test_another_form_is_proved_or_says_that_it_is_not(web: TestClient, form: str) -> None:
    answer = web.get(EGRESS.replace("egress", f"exports/{form}"))
    assert answer.status_code == 200
    assert ("Proved" in answer.text) != ("Not certified" in answer.text)


def test_what_does_not_exist_is_a_page(web: TestClient) -> None:
    for path in ("/ui/namespaces/nothing", f"/ui/workloads/{SHOP}/Deployment/nothing/egress", f"{EGRESS}x"):
        answer = web.get(path)
        assert answer.status_code == 404
        assert "<h1>" in answer.text


def test_hostile_text_is_inert(web: TestClient) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    for answer in (
        web.get("/ui/addresses", params={"q": hostile}),
        web.get(f"/ui/namespaces/{SHOP}", params={"q": hostile}),
        web.get("/ui/", params={"span": hostile}),
    ):
        assert hostile not in answer.text


class OnlyTheShop:
    """May look at the shop alone, and decide nothing."""

    def may(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:
        return namespace == SHOP and verb in {Verb.GET, Verb.LIST}


class Guest:
    def caller(self, token: str) -> Caller:
        return Caller(name="guest", authority=OnlyTheShop())


def test_a_viewer_of_one_namespace_sees_it_alone_with_masked_peers(world: World) -> None:
    web = TestClient(add_web(create_api(world.review(), Guest())))
    home, page = web.get("/ui/").text, web.get(EGRESS)
    assert SHOP in home
    assert f"/ui/namespaces/{OTHER}" not in home
    assert page.status_code == 200
    assert "In namespaces that you may not see" in page.text
    assert "books" not in page.text
    assert "You may look, not decide" in page.text
    assert web.get(f"/ui/namespaces/{OTHER}").status_code in {403, 404}
    assert web.get("/ui/agents").status_code == 403


def test_a_viewer_cannot_decide(world: World) -> None:
    web = TestClient(add_web(create_api(world.review(), Guest())), follow_redirects=False)
    assert web.post(SAY, data=form(web, f"exclude:{TO_OLD}")).status_code == 422
    assert world.decisions.state("default").log == ()


def test_nobody_gets_in_without_a_token(world: World) -> None:
    web = TestClient(add_web(create_api(world.review(), NobodyYet())))
    answer = web.get(EGRESS)
    assert answer.status_code == 401
    assert "Sign in" in answer.text
    assert SHOP not in answer.text.replace("/ui", "")


class ByToken:
    def caller(self, token: str) -> Caller:
        return (Guest() if token == "right" else NobodyYet()).caller(token)


def test_a_token_signs_in_and_out(world: World) -> None:
    web = TestClient(add_web(create_api(world.review(), ByToken())))
    csrf = hidden(web.get("/ui/").text, "csrf")
    assert web.post("/ui/login", data={"csrf": csrf, "token": "wrong"}).status_code == 401
    assert SHOP in web.post("/ui/login", data={"csrf": csrf, "token": "right"}).text
    assert "Sign in" in web.post("/ui/logout", data={"csrf": csrf}).text
