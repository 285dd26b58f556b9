"""One aggregator, several clusters: each answers for itself, to whom it knows itself."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from fastapi.testclient import TestClient

from aggregator.api.asking import Answering
from aggregator.api.query_door import add_queries
from aggregator.api.rest import PREFIX, create_api
from aggregator.errors import UnauthenticatedError
from aggregator.services.authority.caller import Caller, Everything
from tests.integration.api.tokens import Tokens
from tests.integration.services.world import (
    SHOP,
    WEB,
    World,
    home_and_west,
)
from wattle.v1 import query_pb2, query_pb2_grpc

HOME, WEST = {"Authorization": "Bearer admin"}, {"Authorization": "Bearer west"}
LINKS = f"{PREFIX}/workloads/shop/Deployment/web/links"
DECISIONS = f"{PREFIX}/workloads/shop/Deployment/web/decisions"


class WestTokens:
    """The other cluster's API server knows another token."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def caller(self, token: str) -> Caller:
        self.asked.append(token)
        if token != "west":
            raise UnauthenticatedError("the token is not known")
        return Caller(name="someone in the west", authority=Everything())


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[tuple[World, World]]:
    with home_and_west(tmp_path) as both:
        yield both


@pytest.fixture
def client(worlds: tuple[World, World]) -> TestClient:
    home, west = worlds
    others = {"west": Answering(review=west.review(), authenticator=WestTokens())}
    return TestClient(create_api(home.review(), Tokens(), others=others))


def test_a_cluster_is_asked_by_its_name(client: TestClient) -> None:
    home = client.get(LINKS, headers=HOME).json()
    west = client.get(LINKS, headers=WEST, params={"cluster": "west"}).json()
    assert home["total"] > west["total"] == 2
    named = client.get(LINKS, headers=HOME, params={"cluster": "default"}).json()
    assert named == home, "its own name is the home cluster"


def test_who_is_known_in_one_cluster_is_nobody_in_another(client: TestClient) -> None:
    assert client.get(LINKS, headers=HOME, params={"cluster": "west"}).status_code == 401
    assert client.get(LINKS, headers=WEST).status_code == 401


def test_a_cluster_that_nobody_configured_is_not_there(client: TestClient) -> None:
    answer = client.get(LINKS, headers=HOME, params={"cluster": "north"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no such cluster here")


def test_what_is_decided_in_one_cluster_is_not_decided_in_another(client: TestClient) -> None:
    row = next(
        r for r in client.get(LINKS, headers=WEST, params={"cluster": "west"}).json()["items"] if r["port"] == 9042
    )
    body = {"ids": [row["id"]], "choice": "exclude", "reason": "old"}
    answer = client.post(f"{DECISIONS}/links", params={"cluster": "west"}, headers={**WEST, "If-Match": "*"}, json=body)
    assert answer.status_code == 200, answer.text
    for headers, cluster, reason in ((WEST, "west", "excluded"), (HOME, "", "observed")):
        rows = client.get(LINKS, headers=headers, params={"cluster": cluster}).json()["items"]
        assert [r["proposal"]["reason"] for r in rows if r["id"] == row["id"]] == [reason]


@pytest.fixture
async def stub(worlds: tuple[World, World]) -> AsyncIterator[Any]:
    home, west = worlds
    server = grpc.aio.server()
    others = {"west": Answering(review=west.review(), authenticator=WestTokens())}
    await add_queries(server, home.review(), Tokens(), others=others)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield query_pb2_grpc.QueryStub(channel)  # type: ignore[no-untyped-call]  # generated
    await server.stop(None)


@pytest.mark.parametrize(
    ("token", "cluster", "expected"),
    [
        ("admin", "", "home"),
        ("admin", "default", "home"),
        ("west", "west", "west"),
        ("admin", "west", grpc.StatusCode.UNAUTHENTICATED),
        ("west", "", grpc.StatusCode.UNAUTHENTICATED),
        ("admin", "north", grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_by_grpc_a_cluster_is_named_in_the_metadata(stub: Any, token: str, cluster: str, expected: Any) -> None:
    scope = query_pb2.QueryScope(namespace=SHOP, kind=WEB.kind, name=WEB.name)
    metadata = [("authorization", f"Bearer {token}"), *([("wattle-cluster", cluster)] if cluster else [])]
    call = stub.ListLinks(query_pb2.ListLinksRequest(scope=scope), metadata=metadata)
    if isinstance(expected, str):
        total = (await call).total
        assert (total == 2) is (expected == "west")
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is expected
