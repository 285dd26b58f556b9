"""A viewer of one namespace learns nothing about another one, by any route of the document.

Two clusters that differ in the other namespace alone must give the viewer the same bytes, route by route; the routes
come from the OpenAPI document, so that a new one cannot be forgotten.
"""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from aggregator.api.rest import create_api
from aggregator.model.decision import Alias, AliasDecision, Choice, DirectionDecision, GeneralRule, LinkDecision
from aggregator.model.link import Link, link_id
from aggregator.model.protocol import Direction
from aggregator.model.workload import LinkEnd, Workload
from aggregator.services.deciding.subjects import record_of
from aggregator.store.decisions import DecisionEntry, Undo
from aggregator.store.events import EventLog
from tests.integration.api.tokens import UNLIMITED, Tokens
from tests.integration.services.world import (
    BOOKS,
    CROSSING_LINKS,
    DB,
    NOW,
    OLD,
    OTHER,
    OTHER_LINKS,
    SHOP,
    SHOP_LINKS,
    VAULT,
    WEB,
    Seen,
    World,
    build,
    dns_objects,
    link,
    new_link_event,
    other_objects,
    shop_objects,
)

DOCUMENT: dict[str, Any] = create_api(SimpleNamespace(deciding=None, signing=None), Tokens()).openapi()  # type: ignore[arg-type]
OPERATIONS = [(method, path) for path, found in DOCUMENT["paths"].items() for method in found]
VIEWER = {"Authorization": "Bearer viewer"}
EDITOR = {"Authorization": "Bearer editor"}
NEW_NAMES = {OTHER: "treasury", "books": "sheets", "vault": "coffer", "vault-guard": "coffer-wall"}
SECRET_WORDS = (*NEW_NAMES, *NEW_NAMES.values(), "8200")


def renamed(value: Any) -> Any:
    """The same objects under other names, with one more workload and no policy."""
    text = yaml.safe_dump(value)
    for old, new in NEW_NAMES.items():
        text = text.replace(old, new)
    return yaml.safe_load(text)


def moved(end: LinkEnd) -> LinkEnd:
    if isinstance(end, Workload) and end.namespace == OTHER:
        return replace(end, namespace=NEW_NAMES[OTHER], name=NEW_NAMES[end.name])
    return end


def elsewhere(seen: Seen) -> Seen:
    there = Link(src=moved(seen.link.src), dst=moved(seen.link.dst), protocol=seen.link.protocol, port=seen.link.port)
    fields = {name: renamed(getattr(seen, name)) for name in ("service", "src_pod", "dst_pod")}
    return replace(seen, link=there, **{name: value or "" for name, value in fields.items()})


def decided(world: World, *others: Any) -> None:
    """The same about the shop, and something of its own about the other namespace."""
    shop = [
        LinkDecision(link=link(WEB, OLD, 9042), choice=Choice.EXCLUDE),
        AliasDecision(name="partner", alias=Alias(name="partner", networks=(ip_network("203.0.113.10/32"),))),
    ]
    world.decisions.append(
        "default", lambda _state: [DecisionEntry(said=said, author="dana", at=NOW) for said in (*shop, *others)]
    )


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    one = build(
        Path(tmp_path_factory.mktemp("one")),
        [*dns_objects(), *shop_objects(), *other_objects()],
        [*SHOP_LINKS, *CROSSING_LINKS, *OTHER_LINKS],
    )
    decided(one, LinkDecision(link=link(BOOKS, VAULT, 8200), choice=Choice.EXCLUDE))
    objects = [renamed(o) for o in other_objects() if o["kind"] != "NetworkPolicy"]
    two = build(
        Path(tmp_path_factory.mktemp("two")),
        [*dns_objects(), *shop_objects(), *objects],
        [*SHOP_LINKS, *map(elsewhere, CROSSING_LINKS)],
    )
    sheets = moved(BOOKS)
    assert isinstance(sheets, Workload)
    decided(
        two,
        DirectionDecision(workload=sheets, direction=Direction.EGRESS, rule=GeneralRule.BLOCK_ALL),
        Undo(version=3),
    )
    EventLog(one.store.engine).note("default", map(new_link_event, (link(WEB, DB, 6000), link(BOOKS, DB, 6000))))
    EventLog(two.store.engine).note("default", [new_link_event(link(WEB, DB, 6000))])
    yield one, two
    one.close()
    two.close()


@pytest.fixture(scope="module")
def clients(worlds: tuple[World, World]) -> tuple[TestClient, TestClient]:
    first, second = (TestClient(create_api(world.review(), Tokens(), rate=UNLIMITED)) for world in worlds)
    return first, second


PLACES = (
    {"namespace": SHOP, "kind": "Deployment", "name": "web"},
    {"namespace": SHOP, "kind": "StatefulSet", "name": "db"},
    {"namespace": SHOP, "kind": "Service", "name": "web"},
    {"namespace": OTHER, "kind": "Deployment", "name": "books"},
    {"namespace": OTHER, "kind": "Service", "name": "books"},
    {"namespace": "treasury", "kind": "Deployment", "name": "sheets"},
    {"namespace": "nowhere", "kind": "Deployment", "name": "nothing"},
)
FURTHER = {
    "alias": "partner",
    "record": "0" * 24,
    "direction": "egress",
    "form": "cilium",
    "link": "1",
    "event": "1",
    "watch": "0" * 16,
}
QUERIES = (
    {},
    {"span": "24h", "limit": "2", "q": "7000", "format": "csv"},
    {"format": "yaml", "direction": "ingress", "class": "internal", "sort": "-peer"},
    {"namespace": OTHER},
    {"namespace": SHOP},
)


def questions(path: str) -> list[str]:
    """The path at every place, known and unknown."""
    return list(dict.fromkeys(path.format(**place, **FURTHER) for place in PLACES))


def example_body(method: str, path: str) -> Any:
    """The smallest body that the document takes."""
    content = DOCUMENT["paths"][path][method].get("requestBody", {}).get("content", {})
    if not content:
        return None
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    samples = {
        "LinksBody": {"ids": [str(link_id(link(BOOKS, VAULT, 8200))), str(link_id(link(WEB, BOOKS, 7000)))]},
        "CidrBody": {"direction": "egress", "cidr": "203.0.113.0/28", "port": 443},
        "DefaultDenyBody": {"direction": "egress"},
        "AnswerBody": {"ids": [str(new_link_event(link(BOOKS, DB, 6000)).event_id)], "answer": "accept"},
        "ApproveBody": {"digest": "0" * 64},
    }
    sample: dict[str, Any] = dict(samples.get(name, {}))
    for field in DOCUMENT["components"]["schemas"][name].get("required", ()):
        sample.setdefault(field, None)
    return sample


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: value)
def test_the_other_namespace_changes_no_byte(clients: tuple[TestClient, TestClient], method: str, path: str) -> None:
    for url in questions(path):
        for query in QUERIES:
            body = example_body(method, path)
            answers = [
                client.request(
                    method, url, params=query, json=body, headers=VIEWER | {"If-Match": "*"}, follow_redirects=False
                )
                for client in clients
            ]
            first, second = answers
            assert (first.status_code, first.text) == (second.status_code, second.text), url
            assert dict(first.headers) == dict(second.headers)
            if "treasury" not in url and OTHER not in url and OTHER not in query.values():
                assert [word for word in SECRET_WORDS if word in first.text] == [], url


def test_who_sees_both_sees_the_difference(clients: tuple[TestClient, TestClient]) -> None:
    """Else the test above could not fail."""
    admin = {"Authorization": "Bearer admin"}
    for url in (f"/api/v1/namespaces/{SHOP}/links", f"/api/v1/namespaces/{SHOP}/policy", "/api/v1/namespaces"):
        first, second = (client.get(url, headers=admin).text for client in clients)
        assert first != second


def test_masked_rows_are_counted_and_named_as_masked(clients: tuple[TestClient, TestClient]) -> None:
    rows = clients[0].get(f"/api/v1/workloads/{SHOP}/Deployment/web/links", headers=VIEWER).json()["items"]
    masked = [row for row in rows if row["peer"]["masked"]]
    assert sorted(row["port"] for row in masked) == [7000, 8080]
    assert all(row["peer"]["kind"] == "Masked" and not row["peer"]["name"] for row in masked)
    proposal = clients[0].get(f"/api/v1/workloads/{SHOP}/Deployment/web/policy", headers=VIEWER).json()
    assert proposal["masked_links"] == 2
    assert "masked-peers" in {finding["code"] for finding in proposal["findings"]}


def test_ids_and_records_of_hidden_things_open_nothing(worlds: tuple[World, World]) -> None:
    world = worlds[0]
    client = TestClient(create_api(world.review(), Tokens()))
    hidden = record_of(world.review().question(Tokens().caller("admin")).sight, 3)
    answer = client.post(f"/api/v1/decisions/{hidden}/undo", json={}, headers=EDITOR)
    unknown = client.post(f"/api/v1/decisions/{'0' * 24}/undo", json={}, headers=EDITOR)
    assert (answer.status_code, answer.text) == (unknown.status_code, unknown.text)
    assert answer.status_code == 404
