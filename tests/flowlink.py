"""Batches, a cluster view and an aggregator for tests of the delivery."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any

import google_crc32c

from agent.spool import Spool
from agent.stream import ChannelSecurity, FlowLinkStream, PlaintextLoopback, StreamConfig
from aggregator.ingest import (
    IngestLimits,
    IngestServer,
    ListenerSecurity,
    LoopbackPlaintext,
    PlaintextOnLoopback,
    ingest_server,
)
from aggregator.model.agent import AgentAuthenticator
from aggregator.model.link import Link
from aggregator.model.protocol import Direction
from aggregator.model.resolution import FlowIdentity, Resolution, Resolved, Resolver
from aggregator.model.workload import Address, LinkEnd, Workload
from aggregator.services.recording.recorder import Recorder
from aggregator.store import Scope, Store
from wattle.v1 import flowlink_pb2

CLUSTER = "test"
SECOND_NS = 1_000_000_000
KIND = ("protocol", "direction", "outcome", "errno", "confidence", "process")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One flow record, with everything that a test does not care about filled in."""

    pod_uid: str = "uid-client"
    remote: str = "10.0.0.2"
    port: int = 8080
    protocol: int = 6
    direction: int = flowlink_pb2.DIRECTION_EGRESS
    outcome: int = flowlink_pb2.OUTCOME_ESTABLISHED
    confidence: int = flowlink_pb2.CONFIDENCE_HIGH
    process: str = "java"
    count: int = 1
    tx_bytes: int = 100
    rx_bytes: int = 200
    first_ms: int = 1_000
    last_ms: int = 2_000
    longest_ms: int = 0


def batch_of(
    flows: Iterable[Flow],
    *,
    end_ns: int | None = None,
    seconds: int = 5,
    loss: dict[str, int] | None = None,
    plain: bool = False,
) -> flowlink_pb2.Batch:
    """A valid Batch; `end_ns` defaults to now, `plain` is what agents of version 0.1.0 send."""
    end = time.time_ns() if end_ns is None else end_ns
    pods: dict[str, int] = {}
    remotes: dict[str, int] = {}
    processes: dict[str, int] = {"": 0}
    kinds: dict[tuple[int, ...], int] = {}
    ports: dict[int, int] = {}
    columns = flowlink_pb2.Columns()
    flows = list(flows)
    remotes4 = {flow.remote: None for flow in flows if not plain and ":" not in flow.remote}
    for address in remotes4:
        remotes[address] = len(remotes)
    for flow in flows:
        columns.local.append(pods.setdefault(flow.pod_uid, len(pods)))
        columns.remote.append(remotes.setdefault(flow.remote, len(remotes)))
        process = processes.setdefault(flow.process, len(processes))
        for name in ("count", "tx_bytes", "rx_bytes"):
            getattr(columns, name).append(getattr(flow, name))
        if plain:
            columns.process.append(process)
            columns.errno.append(0)
            columns.duration_us.append(0)
            for name in ("port", "protocol", "direction", "outcome", "confidence", "first_ms", "last_ms"):
                getattr(columns, name).append(getattr(flow, name))
        else:
            kind = (flow.protocol, flow.direction, flow.outcome, 0, flow.confidence, process)
            columns.kind.append(kinds.setdefault(kind, len(kinds)))
            columns.first_step.append(flow.first_ms)
            columns.steps.append(flow.last_ms - flow.first_ms)
            columns.server_port.append(ports.setdefault(flow.port, len(ports)))
            columns.longest_ms.append(flow.longest_ms)
    return with_columns(
        flowlink_pb2.Batch(
            interval=flowlink_pb2.Interval(
                start_wall_ns=end - seconds * SECOND_NS, end_wall_ns=end, step_ms=0 if plain else 1
            ),
            locals=[flowlink_pb2.Local(pod_uid=uid, namespace="shop", pod_name=f"{uid}-pod") for uid in pods],
            remotes4=b"".join(mapped(address)[12:] for address in remotes4),
            remotes=b"".join(mapped(address) for address in remotes if address not in remotes4),
            processes=list(processes),
            kinds=[
                flowlink_pb2.Kind(**dict(zip(KIND, kind, strict=True)))  # type: ignore[arg-type]  # plain numbers
                for kind in kinds
            ],
            ports=ports,
            loss=flowlink_pb2.Loss(**(loss or {})),
        ),
        columns,
    )


def with_columns(batch: flowlink_pb2.Batch, columns: flowlink_pb2.Columns) -> flowlink_pb2.Batch:
    """The batch with these columns and their checksum."""
    batch.columns = columns.SerializeToString()
    batch.crc32c = google_crc32c.value(batch.columns)
    return batch


def mapped(address: str) -> bytes:
    ip = ip_address(address)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


@dataclass(slots=True, kw_only=True)
class FakeResolver:
    """A cluster view in two dicts: pods by UID, workloads by address; anything else is an address."""

    pods: dict[str, str] = field(default_factory=dict)  # UID -> Deployment's name
    addresses: dict[str, str] = field(default_factory=dict)  # address -> Deployment's name
    answer: Callable[[FlowIdentity, datetime], Resolution | None] = lambda _flow, _at: None
    generation: int = 1
    until: datetime | None = None
    asked: int = 0

    def known_until(self, _cluster: str) -> datetime | None:
        return self.until

    def resolve(self, flow: FlowIdentity, at: datetime) -> Resolution:
        self.asked += 1
        special = self.answer(flow, at)
        if special is not None:
            return special
        own = workload(self.pods.get(flow.pod_uid, flow.pod_uid))
        name = self.addresses.get(str(flow.remote_ip))
        other: LinkEnd = workload(name) if name else Address(cluster=CLUSTER, ip=flow.remote_ip)
        src, dst = (own, other) if flow.direction is Direction.EGRESS else (other, own)
        pod = f"shop/{flow.pod_name}"
        return Resolved(
            link=Link(src=src, dst=dst, protocol=flow.protocol, port=flow.port),
            src_pod=pod if src is own else "",
            dst_pod=pod if dst is own else "",
        )


def workload(name: str) -> Workload:
    return Workload(cluster=CLUSTER, namespace="shop", kind="Deployment", name=name)


@dataclass(slots=True, kw_only=True)
class Aggregator:
    """What a running aggregator is to a test."""

    store: Store
    recorder: Recorder
    server: IngestServer
    port: int


@contextlib.asynccontextmanager
async def running_aggregator(
    store: Store,
    *,
    resolver: Resolver | None = None,
    limits: IngestLimits | None = None,
    authenticator: AgentAuthenticator | None = None,
    security: ListenerSecurity | None = None,
    clusters: tuple[str, ...] = (),
    listen: str = "127.0.0.1:0",
    **recorder_options: Any,
) -> AsyncIterator[Aggregator]:
    recorder = Recorder(
        sink=store.sink,
        resolver=resolver or FakeResolver(),
        known_addresses=store.external_addresses,
        **{"linger_seconds": 0.01, "grace": timedelta(seconds=30)} | recorder_options,
    )
    server = IngestServer(
        store=store,
        recorder=recorder,
        authenticator=authenticator or LoopbackPlaintext(),
        clusters=clusters,
        limits=limits or IngestLimits(batches_per_second=10_000),
    )
    recording = asyncio.create_task(recorder.run())
    try:
        async with ingest_server(server, listen, security or PlaintextOnLoopback()) as port:
            yield Aggregator(store=store, recorder=recorder, server=server, port=port)
    finally:
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)


def stream_config(port: int, *, agent_id: str = "node-1", security: ChannelSecurity | None = None) -> StreamConfig:
    return StreamConfig(
        target=f"127.0.0.1:{port}",
        security=security or PlaintextLoopback(),
        cluster=CLUSTER,
        agent_id=agent_id,
        boot_id="boot",
        version="test",
        server_name="localhost" if security else "",
    )


@contextlib.asynccontextmanager
async def running_stream(
    spool: Spool,
    port: int,
    *,
    agent_id: str = "node-1",
    security: ChannelSecurity | None = None,
    on_settings: Callable[[flowlink_pb2.Settings], None] = lambda _settings: None,
) -> AsyncIterator[FlowLinkStream]:
    stream = FlowLinkStream(
        spool=spool,
        config=stream_config(port, agent_id=agent_id, security=security),
        on_settings=on_settings,
        jitter=lambda most: min(most, 0.1),
    )
    task = asyncio.create_task(stream.run())
    try:
        yield stream
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def flows(count: int, **values: Any) -> list[Flow]:
    """Flows to different ports."""
    return [replace(Flow(**values), port=1_000 + index) for index in range(count)]


def connections(store: Store) -> int:
    return sum(observed.evidence.connections for observed in store.links(Scope(cluster=CLUSTER)))


async def empty(spool: Spool) -> None:
    await until(lambda: spool.waiting_batches == 0)
