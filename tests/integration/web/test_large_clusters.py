"""Ten thousand workloads: every page stays small, and says what it leaves out.

A page that grows with the cluster freezes a browser; what is sent is measured, not how long it takes.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from fastapi.testclient import TestClient

from aggregator.api.rest import Development, create_api
from aggregator.web.site import add_web
from tests.integration.services.world import Seen, World, build, dns_objects, link, namespace, record, workload

WORKLOADS, NAMESPACES, BIG = 10_000, 400, 2_000
MOST_BYTES = 400_000
HUB = workload("big", "Deployment", "app-0")
DEPLOYMENT = """\
---
kind: Deployment
metadata: {{name: app-{number}, namespace: {space}}}
spec:
  selector: {{matchLabels: {{app: app-{number}}}}}
  template: {{metadata: {{labels: {{app: app-{number}}}}}}}
"""
PAGES = (
    "/",
    "/namespaces/big",
    "/namespaces/big?infra=1",
    "/workloads/big/Deployment/app-0/egress",
    "/workloads/big/Deployment/app-0/ingress",
    "/workloads/big/Deployment/app-0/topology",
    "/policies",
    "/addresses",
    "/findings",
    "/agents",
    "/drift",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One namespace of two thousand, the others of twenty; one workload that calls three hundred."""
    made = build(tmp_path_factory.mktemp("large"), [*dns_objects(), namespace("big")], ())
    spaces = ["big"] * BIG + [f"team-{number % (NAMESPACES - 1)}" for number in range(WORKLOADS - BIG)]
    path = made.directory / "objects" / "many.yaml"
    path.write_text("".join(DEPLOYMENT.format(number=n, space=space) for n, space in enumerate(spaces)))
    made.source.load()
    ends = [workload(space, "Deployment", f"app-{n}") for n, space in enumerate(spaces)]
    record(made.store, [Seen(link=link(HUB, end, 8080)) for end in ends[1:301]])
    record(made.store, [Seen(link=link(src, dst, 8080)) for src, dst in pairwise(ends[400:])])
    yield made
    made.close()


@pytest.fixture(scope="module")
def web(world: World) -> TestClient:
    return TestClient(add_web(create_api(world.review(), Development())), follow_redirects=False)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_does_not_grow_with_the_cluster(web: TestClient, path: str) -> None:
    answer = web.get(f"/ui{path}")
    assert answer.status_code == 200
    assert len(answer.content) < MOST_BYTES


def test_the_namespaces_map_collapses_and_says_what_it_leaves_out(web: TestClient) -> None:
    page = web.get("/ui/namespaces/big").text
    assert page.count('class="link ') <= 120
    assert page.count('class="card ') <= 150
    assert "are in the list only" in page
    assert re.search(r"9\d workloads without links", page), "the silent ones are one card"
    assert "1,900 workloads more" in page


def test_the_scope_picker_asks_for_a_name_where_a_choice_would_be_endless(web: TestClient) -> None:
    page = web.get("/ui/workloads/big/Deployment/app-0/egress").text
    assert page.count("<option") < 320
    picked = {"namespace": "big", "was": "big", "entity": "Deployment/app-0"}
    there = web.get("/ui/go", params={**picked, "find": "app-77"}).headers["location"]
    assert there == "/ui/namespaces/big?w=app-77#list"
    assert ">app-77<" in web.get("/ui/namespaces/big?w=app-77").text
    stay = web.get("/ui/go", params={**picked, "find": "app-0", "tab": "egress", "span": "7d"}).headers["location"]
    assert stay == "/ui/workloads/big/Deployment/app-0/egress?span=7d"
    home = web.get("/ui/go", params={"find-namespace": "team-7"}).headers["location"]
    assert home == "/ui/?q=team-7"
    assert ">team-7<" in web.get("/ui/?q=team-7").text
