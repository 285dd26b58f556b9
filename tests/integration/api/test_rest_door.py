"""What the door itself does: refusals as problems, formats, pages, limits, probes."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from aggregator.api import examples
from aggregator.api.limits import MAX_BODY_BYTES, Buckets, Rate
from aggregator.api.rest import PREFIX, Development, create_api
from aggregator.services.keeping.event_views import EventView
from aggregator.services.paging import LINK_SORTS, Page
from aggregator.services.policies.policy_views import ProposalView
from aggregator.services.review import Review
from aggregator.services.views import LinkRow, NamespaceRow, WorkloadRow
from tests.integration.api.tokens import Tokens
from tests.integration.services.world import World

WEB = f"{PREFIX}/workloads/shop/Deployment/web"
ADMIN = {"Authorization": "Bearer admin"}


@pytest.fixture
def client(world: World) -> TestClient:
    return TestClient(create_api(world.review(), Tokens()), headers=ADMIN)


def test_every_refusal_is_a_problem(client: TestClient) -> None:
    for answer, status in (
        (client.get(f"{PREFIX}/workloads/shop/Deployment/nothing/links"), 404),
        (client.get(f"{WEB}/links?span=never"), 422),
        (client.get(f"{WEB}/links?limit=0"), 422),
        (client.get(f"{PREFIX}/nothing"), 404),
        (client.delete(f"{WEB}/links"), 405),
        (client.get(f"{WEB}/links", headers={"Authorization": "Bearer nobody"}), 401),
        (client.get(f"{PREFIX}/agents", headers={"Authorization": "Bearer viewer"}), 403),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["status"], bool(problem["title"]), bool(problem["detail"])) == (status, True, True)


def test_yaml_by_accept_or_by_format(client: TestClient) -> None:
    by_json = client.get(f"{WEB}/policy").json()
    for answer in (
        client.get(f"{WEB}/policy", headers={"Accept": "application/yaml"}),
        client.get(f"{WEB}/policy", headers={"Accept": "application/json"}, params={"format": "yaml"}),
    ):
        assert answer.headers["content-type"].startswith("application/yaml")
        assert answer.text == by_json["yaml"]
        assert answer.headers["etag"] == f'"{by_json["digest"]}"'
        assert [doc["kind"] for doc in yaml.safe_load_all(answer.text)] == ["NetworkPolicy"]
    browser = client.get(f"{WEB}/policy", headers={"Accept": "text/html,application/json,application/yaml;q=0.5"})
    assert browser.headers["content-type"] == "application/json"


@pytest.mark.parametrize("sort", ["", *LINK_SORTS, *(f"-{name}" for name in LINK_SORTS)])
def test_pages_give_every_row_once_in_one_order(client: TestClient, sort: str) -> None:
    whole = client.get(f"{WEB}/links", params={"sort": sort}).json()
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(f"{WEB}/links", params={"sort": sort, "limit": 3, "cursor": cursor}).json()
        found += page["items"]
        cursor = page["next_cursor"]
    assert found == whole["items"]
    assert whole["total"] == len({row["id"] for row in found}) == 8


@pytest.mark.parametrize("cursor", ["x", "e30", "W10", "WyIiLFtdXQ", "é", "WyIiLFsxXV0", "A" * 3999])
def test_a_cursor_from_elsewhere_is_refused_or_harmless(client: TestClient, cursor: str) -> None:
    answer = client.get(f"{WEB}/links", params={"cursor": cursor})
    assert answer.status_code in {200, 422}


def test_rows_are_found_by_any_word_and_by_class(client: TestClient) -> None:
    def ports(**params: str) -> set[int]:
        return {row["port"] for row in client.get(f"{WEB}/links", params=params).json()["items"]}

    assert ports(q="shop/db") == {5432}
    assert ports(q="tcp 9042") == {9042}
    assert ports(q="EXTERNAL") == {443}
    assert ports(**{"class": "external"}) == {443}
    assert 443 not in ports(**{"class": "internal"})


def test_csv_has_every_row_and_no_formula(client: TestClient) -> None:
    answer = client.get(f"{WEB}/links", params={"format": "csv", "limit": 1})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 8
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert {row["id"].removeprefix("id:") for row in rows} == {
        row["id"] for row in client.get(f"{WEB}/links").json()["items"]
    }
    shown = client.get(f"{WEB}/links", params={"q": "tcp", "sort": "-port"}).json()["items"]
    answer = client.get(f"{WEB}/links", params={"q": "tcp", "sort": "-port", "format": "csv", "limit": 1})
    matching = [row["id"].removeprefix("id:") for row in csv.DictReader(io.StringIO(answer.text))]
    assert matching == [row["id"] for row in shown], "filtered and sorted as the table is"
    assert len(matching) < len(rows)


def test_the_tag_is_asked_for_and_compared(client: TestClient) -> None:
    body = {"rule": "block-all", "reason": "nothing leaves"}
    url = f"{WEB}/decisions/rules/egress"
    assert client.put(url, json=body).status_code == 422
    tag = client.get(f"{WEB}/decisions").headers["etag"]
    changed = client.put(url, json=body, headers={"If-Match": tag})
    assert (changed.status_code, changed.headers["etag"]) == (200, f'"{changed.json()["etag"]}"')
    assert changed.headers["etag"] != tag
    assert client.put(url, json=body, headers={"If-Match": tag}).status_code == 409
    record = changed.json()["decisions"][0]["record"]
    assert client.post(f"{PREFIX}/decisions/{record}/undo", json={}).status_code == 200
    assert client.get(f"{WEB}/decisions").json()["rules"][1]["rule"] is None


def test_a_default_deny_asks_for_the_tag_of_its_namespace(client: TestClient) -> None:
    url, held = f"{PREFIX}/namespaces/shop/default-deny", f"{PREFIX}/namespaces/shop/decisions"
    body = {"direction": "ingress", "reason": "nobody comes in"}
    assert client.put(url, json=body).status_code == 422
    read = client.get(held)
    assert (read.json()["default_deny"], read.json()["decisions"]) == ([], [])
    client.put(f"{WEB}/decisions/rules/egress", json={"rule": "observed"}, headers={"If-Match": "*"})
    changed = client.put(url, json=body, headers={"If-Match": read.headers["etag"]})
    assert changed.status_code == 200, "what is said of a workload is another matter"
    assert changed.json()["default_deny"] == ["Ingress"]
    assert "wattle-default-deny-ingress" in client.get(f"{PREFIX}/namespaces/shop/policy").json()["yaml"]
    refused = client.put(url, json={"direction": "egress"}, headers={"If-Match": read.headers["etag"]})
    assert refused.status_code == 409
    back = client.put(url, json={**body, "choice": "exclude"}, headers={"If-Match": changed.headers["etag"]})
    assert back.json()["default_deny"] == []
    assert [said["reason"] for said in back.json()["decisions"]] == ["nobody comes in"] * 2
    assert client.get(f"{PREFIX}/namespaces/nowhere/decisions").status_code == 404


def test_an_alias_is_removed_with_a_reason(client: TestClient) -> None:
    url, any_tag = f"{PREFIX}/aliases/partner", {"If-Match": "*"}
    client.put(url, json={"networks": ["203.0.113.10/32"]}, headers=any_tag)
    assert client.delete(url, params={"reason": "gone out of business"}, headers=any_tag).status_code == 200
    assert client.get(f"{PREFIX}/decisions").json()["items"][0]["reason"] == "gone out of business"


def test_a_bundle_has_a_folder_for_each_namespace_and_the_order(client: TestClient) -> None:
    found = client.get(f"{PREFIX}/policy/exports/kustomize").json()
    files = {file["path"]: file["text"] for file in found["files"]}
    assert (found["certified"], found["namespaces"]) == (True, ["kube-system", "ledger", "shop"])
    assert yaml.safe_load(files["kustomization.yaml"])["resources"] == found["namespaces"]
    for name in found["namespaces"]:
        listed = yaml.safe_load(files[f"{name}/kustomization.yaml"])["resources"]
        assert all(f"{name}/{file}" in files for file in listed)
    assert "apply `shop/wattle-web`" in files["ORDER.md"]
    seen = client.get(f"{PREFIX}/policy/exports/cilium", headers={"Authorization": "Bearer viewer"}).json()
    assert "shop" in seen["namespaces"]
    assert "ledger" not in seen["namespaces"]
    assert "kustomization.yaml" not in {file["path"] for file in seen["files"]}


def test_unknown_fields_and_large_bodies_are_refused(client: TestClient) -> None:
    url = f"{WEB}/decisions/rules/egress"
    assert client.put(url, json={"rule": None, "rul": "x"}, headers={"If-Match": "*"}).status_code == 422
    large = client.put(
        url, content=json.dumps({"rule": None, "reason": "x" * MAX_BODY_BYTES}), headers={"If-Match": "*"}
    )
    assert (large.status_code, large.json()["status"]) == (413, 413)

    def chunks() -> Any:
        for _ in range(5):
            yield b"x" * (MAX_BODY_BYTES // 4)

    assert client.put(url, content=chunks(), headers={"If-Match": "*"}).status_code == 413


def test_a_client_that_asks_too_often_is_told_when_to_come_back(world: World) -> None:
    now = 0.0
    api = create_api(world.review(), Tokens(), rate=Rate(burst=2, per_second=0.5), clock=lambda: now)
    client = TestClient(api, headers=ADMIN)
    statuses = [client.get(f"{PREFIX}/namespaces").status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = client.get(f"{PREFIX}/namespaces")
    assert refused.headers["retry-after"] == "2"
    assert client.get("/healthz").status_code == 200
    assert client.get(f"{PREFIX}/namespaces", headers={"Authorization": "Bearer viewer"}).status_code == 200
    now = 2.0
    assert client.get(f"{PREFIX}/namespaces").status_code == 200


def test_remembered_clients_are_bounded() -> None:
    buckets = Buckets(Rate(), lambda: 0.0)
    for number in range(10_100):
        buckets.take(str(number))
    assert len(buckets.__dict__["_left"]) == 10_000


def test_readiness_says_why_not(world: World) -> None:
    client = TestClient(create_api(world.review(), Development(), ready=lambda: "the cluster view is stale"))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "the cluster view is stale\n")
    assert "wattle_" in client.get("/metrics").text


def test_what_goes_wrong_inside_tells_nothing_of_the_inside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_named: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(Review, "status", broken)
    client = TestClient(create_api(world.review(), Tokens()), headers=ADMIN, raise_server_exceptions=False)
    answer = client.get(f"{PREFIX}/status")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


def test_a_database_that_is_away_is_said_so(world: World, tmp_path: Path) -> None:
    client = TestClient(create_api(world.review(), Tokens()), headers=ADMIN)
    with world.store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE link RENAME TO gone")
    answer = client.get(f"{PREFIX}/namespaces")
    assert answer.status_code == 503
    assert "gone" not in answer.text
    assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    ("view", "example"),
    [
        (Page[NamespaceRow], examples.NAMESPACE_PAGE),
        (Page[WorkloadRow], examples.WORKLOAD_PAGE),
        (Page[LinkRow], examples.LINK_PAGE),
        (Page[EventView], examples.EVENT_PAGE),
        (ProposalView, examples.A_PROPOSAL),
    ],
    ids=["namespaces", "workloads", "links", "events", "proposal"],
)
def test_examples_are_true(view: Any, example: Any) -> None:
    adapter = TypeAdapter(view)
    again = json.loads(adapter.dump_json(adapter.validate_json(json.dumps(example))))
    assert again == example


def test_every_route_has_a_summary_a_tag_and_its_refusals() -> None:
    class Nothing:
        deciding = signing = None

    document = create_api(Nothing(), Tokens()).openapi()  # type: ignore[arg-type]
    assert document["openapi"].startswith("3.1")
    for path, found in document["paths"].items():
        for method, operation in found.items():
            assert operation["summary"], path
            assert operation["tags"], path
            assert {"401", "429", "503"} <= set(operation["responses"]), (method, path)
            for status, answer in operation["responses"].items():
                if status.startswith("4"):
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)
