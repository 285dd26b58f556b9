"""Pages across namespaces: what each role is shown and may change, and names that would like to be mark-up."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from aggregator.api.rest import Development, create_api
from aggregator.model.workload import Address
from aggregator.services.policies.proofs import QUICK_LINKS
from aggregator.services.question import WorkloadRef
from aggregator.web.cluster_pages import picked_of
from aggregator.web.site import add_web
from tests.integration.api.tokens import Tokens
from tests.integration.services.world import CLUSTER, SHOP, WEB, Seen, World, everything, link, record

HOSTILE = "<img src=x onerror=alert(1)>"
EGRESS = f"/ui/workloads/{SHOP}/Deployment/web/egress"
WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")
PAGES = ("/ui/policies", "/ui/addresses", "/ui/drift", "/ui/findings", "/ui/agents", "/ui/settings")
PROXIES = tuple(Address(cluster=CLUSTER, ip=ip_address(f"198.51.100.{last}")) for last in (16, 17, 20))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = everything(tmp_path)
    yield made
    made.close()


@pytest.fixture
def web(world: World) -> TestClient:
    return TestClient(add_web(create_api(world.review(), Development())), follow_redirects=False)


def as_role(world: World, role: str) -> TestClient:
    web = TestClient(add_web(create_api(world.review(), Tokens())), follow_redirects=False)
    web.headers["Authorization"] = f"Bearer {role}"
    return web


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found
    return found[1]


def posted(web: TestClient, page: str, path: str, **fields: str | list[str]) -> int:
    csrf = hidden(web.get(page).text, "csrf")
    return web.post(path, data={"csrf": csrf, **fields}).status_code


@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_there(web: TestClient, path: str) -> None:
    assert web.get(path).status_code == 200


def test_addresses_are_named_together_exactly_or_by_what_covers_them(world: World, web: TestClient) -> None:
    record(world.store, [Seen(link=link(WEB, proxy, 3128)) for proxy in PROXIES])
    rows = world.review().addresses(Development().caller(""))
    two = picked_of(rows, ["198.51.100.16", "198.51.100.17"])
    assert [str(network) for network in two.exact] == ["198.51.100.16/31"]
    three = picked_of(rows, [str(proxy.ip) for proxy in PROXIES])
    assert (str(three.cover), three.others) == ("198.51.100.16/29", 5)
    assert picked_of(rows, ["192.0.2.99"]).ips == []  # not listed: not to be named from here

    pick = [str(proxy.ip) for proxy in PROXIES]
    assert posted(web, "/ui/addresses", "/ui/addresses/say", say="allow", name="proxy", pick=pick) == 303
    (alias,) = world.review().deciding.aliases(Development().caller("")).aliases
    assert alias.networks == ["198.51.100.16/31", "198.51.100.20/32"]
    assert alias.allowed
    assert posted(web, "/ui/addresses", "/ui/addresses/say", say="forget:proxy") == 303
    assert not world.review().deciding.aliases(Development().caller("")).aliases
    assert posted(web, "/ui/addresses", "/ui/addresses/say", say="name", pick=pick) == 422  # without a name


def test_a_row_of_the_table_names_and_allows_a_range_in_place(world: World, web: TestClient) -> None:
    row = next(row for row in world.review().workload_links(Development().caller(""), WEB_REF) if row.peer.address)
    page = web.get(EGRESS).text
    said = {
        "csrf": hidden(page, "csrf"),
        "etag": hidden(page, "etag"),
        "tab": "egress",
        "say": f"address:{row.id}",
        f"choice-{row.id}": "range",
        f"range-{row.id}": "203.0.113.0/28",
        f"alias-{row.id}": "partner-api",
    }
    answer = web.post(f"/ui/workloads/{SHOP}/Deployment/web/say", data=said, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "203.0.113.0/28" in answer.text[answer.text.index('id="yaml"') :]
    assert "partner-api" in answer.text


def test_settings_are_kept_with_their_undo(world: World, web: TestClient) -> None:
    page = web.get("/ui/settings").text
    assert "ServiceCIDR kubernetes" in page  # where a range was learned
    said = {
        "csrf": hidden(page, "csrf"),
        "etag": hidden(page, "etag"),
        "say": "labels",
        "workload-exclude": "helm.sh/chart",
    }
    assert web.post("/ui/settings/say", data=said).status_code == 303
    again = web.get("/ui/settings").text
    assert "helm.sh/chart" in again
    assert web.post("/ui/settings/say", data=said).status_code == 409  # decided meanwhile
    record_ = re.search(r'value="(undo:[^"]+)"', again)
    assert record_
    assert posted(web, "/ui/settings", "/ui/settings/say", say=record_[1]) == 303
    held = world.review().deciding.settings(Development().caller(""))
    assert held.workload_labels.exclude == []
    bad = {"csrf": hidden(again, "csrf"), "etag": "*", "say": "cidrs", "pod": "10.0.0.1/8"}
    refused = web.post("/ui/settings/say", data=bad)
    assert refused.status_code == 422
    assert "write an address, or a CIDR without host bits" in refused.text


def test_a_viewer_looks_and_does_not_decide_and_masked_peers_are_named_as_masked(world: World) -> None:
    web = as_role(world, "viewer")
    page = web.get(EGRESS)
    assert page.status_code == 200
    assert "You may look, not decide" in page.text
    assert "In namespaces that you may not see" in page.text
    assert "books" not in page.text
    assert "ledger" not in page.text
    assert 'role="switch"' in page.text
    assert not re.search(r'role="switch"[^>]*[^d]>', page.text.replace(" disabled>", " d>"))
    assert web.get("/ui/settings").status_code == 403
    assert posted(web, EGRESS, "/ui/addresses/say", say="name", name="x", pick="203.0.113.10") == 422
    assert "Settings" not in web.get("/ui/").text


def test_an_editor_decides_in_the_namespace_and_nowhere_else(world: World) -> None:
    web = as_role(world, "editor")
    page = web.get(EGRESS).text
    switch = re.search(r'name="say" value="(exclude:[^"]+)"', page)
    assert switch
    said = {"csrf": hidden(page, "csrf"), "etag": hidden(page, "etag"), "tab": "egress", "say": switch[1]}
    assert web.post(f"/ui/workloads/{SHOP}/Deployment/web/say", data=said).status_code == 303
    assert web.get("/ui/workloads/ledger/Deployment/books/egress").status_code in {403, 404}
    assert 'name="pick"' not in web.get("/ui/addresses").text  # names hold for everybody: the admin's


def test_hostile_processes_services_and_filters_stay_text(world: World, web: TestClient) -> None:
    record(world.store, [Seen(link=link(WEB, PROXIES[0], 3128), process=HOSTILE, src_pod=f"shop/{HOSTILE}")])
    identity = re.search(r'id="row-(-?\d+)"', web.get(f"{EGRESS}?q=198.51.100.16").text)
    assert identity
    paths = [
        EGRESS,
        f"{EGRESS}?q={HOSTILE}",
        f"/ui/workloads/{SHOP}/Deployment/web/topology",
        f"/ui/workloads/{SHOP}/Deployment/web/links/{identity[1]}",
        f"/ui/addresses?q={HOSTILE}",
        f"/ui/policies?q={HOSTILE}",
    ]
    for path in paths:
        assert "<img" not in web.get(path).text, path
    assert "&lt;img" in web.get(paths[3]).text


def test_a_long_table_comes_in_portions_and_the_filter_is_the_servers(world: World, web: TestClient) -> None:
    many = (Address(cluster=CLUSTER, ip=ip_address("198.51.100.0") + last) for last in range(1, QUICK_LINKS + 1))
    record(world.store, [Seen(link=link(WEB, end, 443)) for end in many])
    page = web.get(EGRESS).text
    assert len(re.findall(r'<tr role="row" id="row-', page)) == 50
    assert "Show more" in page
    assert "Being proved" in page  # the proof of so many rows is asked for by itself
    one = web.get(f"{EGRESS}?q=198.51.100.77", headers={"HX-Request": "true", "HX-Target": "decide-rows"}).text
    assert len(re.findall(r'<tr role="row" id="row-', one)) == 1
    assert "<html" not in one
    proof = web.get(f"/ui/workloads/{SHOP}/Deployment/web/proof?tab=egress").text
    assert "Being proved" not in proof
    assert 'id="proof" hx-swap-oob' in proof


def test_the_scope_picker_offers_services_and_a_span_between_two_times(web: TestClient) -> None:
    page = web.get(EGRESS).text
    group = re.search(r'<optgroup label="Service">(.*?)</optgroup>', page, re.DOTALL)
    assert group
    assert set(re.findall(r'value="Service/([^"]+)"', group[1])) == {"web", "db"}
    picked = {"namespace": SHOP, "was": SHOP, "entity": "Service/web", "span": "all"}
    there = web.get("/ui/go", params=picked).headers["location"]
    assert there == f"/ui/workloads/{SHOP}/Service/web"
    assert "the union of its backends" in web.get(f"{there}/ingress").text
    between = web.get("/ui/go", params={**picked, "from": "2026-11-19T00:00", "to": "2026-11-20T11:00"})
    assert between.headers["location"] == f"{there}?span=2026-11-19T00%3A00Z..2026-11-20T11%3A00Z"
    seen = web.get(f"{there}/ingress?span=2026-11-19T00%3A00Z..2026-11-20T11%3A00Z")
    assert seen.status_code == 200
    assert "2026-11-19 00:00Z to 2026-11-20 11:00Z" in seen.text
    assert web.get("/ui/go", params={**picked, "from": "2026-11-20T11:00", "to": "2026-11-19T11:00"}).status_code == 422
