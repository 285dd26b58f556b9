"""Agents and aggregators are upgraded one after the other: what a released agent said is still understood.

Enters: recorded/VERSION/, made by `python -m tests.skew` from that version. Every version that may still run is there.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import yaml
from google.protobuf import descriptor_pb2

from aggregator.cluster.manifests import ManifestSource
from aggregator.model.workload import Address, LinkEnd
from aggregator.services.recording.settling import Settler
from aggregator.store import Scope, Store, migrate, open_store
from tests.flowlink import running_aggregator
from tests.skew import ROOT, read, versions
from wattle.v1 import flowlink_pb2

CLUSTER = "default"
ids = pytest.mark.parametrize("recorded", versions(), ids=lambda path: path.name)
Truth = set[tuple[str, str, str, int]]


def truth() -> Truth:
    [scenario, *_] = yaml.safe_load_all((ROOT / "lab" / "shop.yaml").read_text())
    return {(each["from"], each["to"], each.get("protocol", "TCP"), each["port"]) for each in scenario["lab"]["truth"]}


def of_the_shop(links: Truth) -> Truth:
    return {link for link in links if any(end.startswith("example-java-app/") for end in link[:2])}


def spelled(end: LinkEnd) -> str:
    return f"address/{end}" if isinstance(end, Address) else str(end)


def moved_to_now(path: Path) -> list[bytes]:
    """The messages, with intervals that end now: the record is old, its clock is not the subject."""
    messages = [flowlink_pb2.AgentMessage.FromString(raw) for raw in read(path)]
    shift = time.time_ns() - max(m.batch.interval.end_wall_ns for m in messages)
    for message in messages:
        if message.WhichOneof("message") == "batch":
            message.batch.interval.start_wall_ns += shift
            message.batch.interval.end_wall_ns += shift
    return [message.SerializeToString() for message in messages]


async def replay(port: int, messages: list[bytes]) -> list[flowlink_pb2.ServerMessage]:
    """Every message of one agent, and what the aggregator answers until the last is acknowledged."""
    last = max(flowlink_pb2.AgentMessage.FromString(raw).batch.seq for raw in messages)
    answers: list[flowlink_pb2.ServerMessage] = []
    done = asyncio.Event()

    async def sending() -> AsyncIterator[bytes]:
        for raw in messages:
            yield raw
        await done.wait()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        connect = channel.stream_stream(
            "/wattle.v1.FlowLink/Connect", response_deserializer=flowlink_pb2.ServerMessage.FromString
        )
        async with asyncio.timeout(30):
            async for answer in connect(sending()):
                answers.append(answer)
                if answer.WhichOneof("message") in ("reject", "go_away") or answer.ack.committed_seq >= last:
                    done.set()
                    break
    return answers


@pytest.fixture
def store(sqlite_url: str) -> Any:
    migrate(sqlite_url)
    opened = open_store(sqlite_url)
    yield opened
    opened.close()


@ids
async def test_what_its_agent_said_becomes_the_links_that_were_there(recorded: Path, store: Store) -> None:
    view = ManifestSource(recorded / "objects.yaml", cluster=CLUSTER)
    view.load()
    messages = moved_to_now(recorded / "agent.flowlink.gz")
    async with running_aggregator(store, resolver=view.resolver) as aggregator:
        answers = await replay(aggregator.port, messages)
        assert {answer.WhichOneof("message") for answer in answers} <= {"welcome", "settings", "ack"}, answers
    Settler(store=store, resolver=view.resolver).settle()
    found = {
        (spelled(seen.link.src), spelled(seen.link.dst), seen.link.protocol.value, seen.link.port)
        for seen in store.links(Scope(cluster=CLUSTER))
        if seen.evidence.connections
    }
    assert of_the_shop(found) == of_the_shop(truth())
    assert store.quarantined(CLUSTER) == []
    [agent] = store.agents(CLUSTER)
    assert agent.backend in {"kprobe", "tracepoint"}


@ids
def test_no_field_of_it_means_something_else_now(recorded: Path) -> None:
    """Numbers, types and enum values stay; a field may go, but its number and name are not used again."""
    then = descriptor_pb2.FileDescriptorProto.FromString((recorded / "flowlink.descriptor").read_bytes())
    now = descriptor_pb2.FileDescriptorProto.FromString(flowlink_pb2.DESCRIPTOR.serialized_pb)
    messages = {message.name: message for message in now.message_type}
    for before in then.message_type:
        after = messages[before.name]
        by_number = {field.number: field for field in after.field}
        for field in before.field:
            if field.number not in by_number:
                reserved = any(span.start <= field.number < span.end for span in after.reserved_range)
                assert reserved, f"{before.name}.{field.name} = {field.number} is gone: reserve the number"
                continue
            same = by_number[field.number]
            assert (same.name, same.type, same.label, same.type_name) == (
                field.name,
                field.type,
                field.label,
                field.type_name,
            ), f"{before.name}, number {field.number}"
    enums = {enum.name: {value.name: value.number for value in enum.value} for enum in now.enum_type}
    for enum in then.enum_type:
        assert {value.name: value.number for value in enum.value}.items() <= enums[enum.name].items()
