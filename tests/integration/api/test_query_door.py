"""The gRPC door answers what REST answers, to the same callers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from fastapi.testclient import TestClient
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from aggregator.api.query_door import SERVICE, add_queries
from aggregator.api.rest import PREFIX, create_api
from aggregator.model.event import Ended
from aggregator.store.events import EventLog
from tests.integration.api.test_other_namespaces_stay_hidden import SECRET_WORDS, elsewhere, renamed
from tests.integration.api.tokens import Tokens
from tests.integration.services.world import (
    BOOKS,
    CROSSING_LINKS,
    DB,
    NOW,
    OTHER,
    OTHER_LINKS,
    SHOP,
    SHOP_LINKS,
    WEB,
    Seen,
    World,
    build,
    dns_objects,
    everything,
    link,
    new_link_event,
    other_objects,
    record,
    shop_objects,
)
from wattle.v1 import query_pb2, query_pb2_grpc

METHODS: list[MethodDescriptor] = list(query_pb2.DESCRIPTOR.services_by_name["Query"].methods)
ADMIN = (("authorization", "Bearer admin"),)
VIEWER = (("authorization", "Bearer viewer"),)
WEB_SCOPE = query_pb2.QueryScope(namespace=SHOP, kind="Deployment", name="web")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    one = everything(Path(tmp_path_factory.mktemp("one")))
    objects = [renamed(o) for o in other_objects() if o["kind"] != "NetworkPolicy"]
    links: list[Seen] = [*SHOP_LINKS, *map(elsewhere, CROSSING_LINKS), *map(elsewhere, OTHER_LINKS)]
    two = build(Path(tmp_path_factory.mktemp("two")), [*dns_objects(), *shop_objects(), *objects], links)
    EventLog(one.store.engine).note("default", map(new_link_event, (link(WEB, DB, 6000), link(BOOKS, DB, 6000))))
    EventLog(two.store.engine).note("default", [new_link_event(link(WEB, DB, 6000))])
    yield one, two
    one.close()
    two.close()


@pytest.fixture
async def channels(worlds: tuple[World, World]) -> AsyncIterator[list[grpc.aio.Channel]]:
    servers, opened = [], []
    for world in worlds:
        server = grpc.aio.server()
        await add_queries(server, world.review(), Tokens(), watch_seconds=0.01)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        opened.append(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
    yield opened
    for channel in opened:
        await channel.close()
    for server in servers:
        await server.stop(None)


@pytest.fixture
def stub(channels: list[grpc.aio.Channel]) -> Any:
    return query_pb2_grpc.QueryStub(channels[0])


def plain(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


async def test_links_and_proposal_are_what_rest_answers(stub: Any, worlds: tuple[World, World]) -> None:
    rest = TestClient(create_api(worlds[0].review(), Tokens()), headers={"Authorization": "Bearer admin"})
    links = await stub.ListLinks(query_pb2.ListLinksRequest(scope=WEB_SCOPE), metadata=ADMIN)
    by_rest = rest.get(f"{PREFIX}/workloads/shop/Deployment/web/links").json()
    assert [row.id for row in links.items] == [row["id"] for row in by_rest["items"]]
    assert links.total == by_rest["total"]
    assert plain(links.items[0])["peer"]["name"] == by_rest["items"][0]["peer"]["name"]
    proposal = await stub.GetProposal(query_pb2.GetProposalRequest(scope=WEB_SCOPE), metadata=ADMIN)
    assert proposal.yaml == rest.get(f"{PREFIX}/workloads/shop/Deployment/web/policy").json()["yaml"]
    assert proposal.certificate.holds


async def test_events_are_what_rest_answers_and_are_followed(stub: Any, worlds: tuple[World, World]) -> None:
    rest = TestClient(create_api(worlds[0].review(), Tokens()), headers={"Authorization": "Bearer admin"})
    listed = await stub.ListEvents(query_pb2.ListEventsRequest(), metadata=ADMIN)
    by_rest = rest.get(f"{PREFIX}/events").json()["items"]
    assert [event.id for event in listed.items] == [event["id"] for event in by_rest]
    watch = stub.WatchEvents(query_pb2.WatchEventsRequest(only_new=True), metadata=ADMIN)
    fresh = new_link_event(link(WEB, DB, 6001))
    reading = asyncio.ensure_future(watch.read())
    await asyncio.sleep(0.1)
    EventLog(worlds[0].store.engine).note("default", [fresh])
    try:
        found = await asyncio.wait_for(reading, 20)
        assert (found.id, found.kind, found.port) == (str(fresh.event_id), "new-link", 6001)
        EventLog(worlds[0].store.engine).end("default", [fresh.event_id], Ended.ACCEPTED, at=NOW)
        assert (await asyncio.wait_for(watch.read(), 20)).ended == "accepted"
    finally:
        watch.cancel()


async def test_pages_follow_each_other(stub: Any) -> None:
    found: list[str] = []
    cursor = ""
    while True:
        request = query_pb2.ListLinksRequest(scope=WEB_SCOPE, limit=3, cursor=cursor)
        page = await stub.ListLinks(request, metadata=ADMIN)
        found += [row.id for row in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert len(found) == len(set(found)) == page.total


async def test_workloads_come_page_by_page(stub: Any) -> None:
    names, cursor = [], ""
    while True:
        asked = query_pb2.ListWorkloadsRequest(namespace=SHOP, limit=2, cursor=cursor)
        page = await stub.ListWorkloads(asked, metadata=ADMIN)
        assert len(page.items) <= 2
        names += [(row.kind, row.name) for row in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert len(names) == page.total == len(set(names)) > 2
    found = await stub.ListWorkloads(
        query_pb2.ListWorkloadsRequest(namespace=SHOP, search="deployment web"), metadata=ADMIN
    )
    assert [row.name for row in found.items] == ["web"]


async def test_a_watch_shows_what_is_there_and_then_what_is_new(
    channels: list[grpc.aio.Channel], tmp_path: Path
) -> None:
    world = everything(tmp_path)
    server = grpc.aio.server()
    await add_queries(server, world.review(), Tokens(), watch_seconds=0.01)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watching = query_pb2_grpc.QueryStub(channel).WatchLinks(
            query_pb2.WatchLinksRequest(scope=WEB_SCOPE), metadata=ADMIN
        )
        first = [await asyncio.wait_for(watching.read(), 20) for _ in range(8)]
        assert len({row.id for row in first}) == 8
        await asyncio.to_thread(record, world.store, [Seen(link=link(WEB, DB, 6543))])
        new = await asyncio.wait_for(watching.read(), 20)
        assert new.port == 6543
        watching.cancel()
    await server.stop(None)
    world.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (query_pb2.ListLinksRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        (query_pb2.ListLinksRequest(scope=WEB_SCOPE, direction="up"), grpc.StatusCode.INVALID_ARGUMENT),
        (query_pb2.ListLinksRequest(scope=query_pb2.QueryScope(namespace="nowhere")), grpc.StatusCode.NOT_FOUND),
    ],
    ids=["no scope", "no direction", "no namespace"],
)
async def test_refusals_have_their_status(stub: Any, request_: Any, status: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListLinks(request_, metadata=ADMIN)
    assert refused.value.code() is status


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_nobody_is_turned_away(channels: list[grpc.aio.Channel], method: MethodDescriptor) -> None:
    assert (await asked(channels[0], method, WEB_SCOPE, ()))[0] is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_the_other_namespace_changes_no_byte(channels: list[grpc.aio.Channel], method: MethodDescriptor) -> None:
    scopes = [
        query_pb2.QueryScope(namespace=namespace, kind=kind, name=name)
        for namespace in (SHOP, OTHER, "treasury", "nowhere")
        for kind, name in (("", ""), ("Deployment", "web"), ("Deployment", "books"), ("Service", "web"))
    ]
    for scope in scopes:
        first, second = [await asked(channel, method, scope, VIEWER) for channel in channels]
        assert first == second, scope
        if scope.namespace == SHOP:
            assert [word for word in SECRET_WORDS if word in str(first[1]) and word != scope.name] == []


async def asked(
    channel: grpc.aio.Channel, method: MethodDescriptor, scope: query_pb2.QueryScope, metadata: Any
) -> tuple[grpc.StatusCode, str]:
    """Any method of the service, asked about a scope: its status, and everything it said."""
    request = GetMessageClass(method.input_type)()
    if "scope" in method.input_type.fields_by_name:
        request.scope.CopyFrom(scope)
    if "namespace" in method.input_type.fields_by_name:
        request.namespace = scope.namespace
    path = f"/{SERVICE}/{method.name}"
    decode = GetMessageClass(method.output_type).FromString
    try:
        if method.server_streaming:
            call = channel.unary_stream(
                path, request_serializer=type(request).SerializeToString, response_deserializer=decode
            )(request, metadata=metadata)
            said = str(await asyncio.wait_for(call.read(), 20))
            call.cancel()
            return grpc.StatusCode.OK, said
        unary = channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=decode
        )
        return grpc.StatusCode.OK, str(await unary(request, metadata=metadata))
    except grpc.aio.AioRpcError as refused:
        return refused.code(), str(refused.details())


async def test_health_and_reflection_answer(channels: list[grpc.aio.Channel]) -> None:
    health = health_pb2_grpc.HealthStub(channels[0])
    answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channels[0])
    call = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    listed = await call.read()
    assert SERVICE in {service.name for service in listed.list_services_response.service}
