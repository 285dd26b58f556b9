"""An agent's stream, the ingest server and the store together: once, refused by name, held back, caught up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest
from prometheus_client import REGISTRY

from agent.metrics import STREAM_ENDS
from agent.spool import Spool
from agent.stream import MutualTls, TokenTls
from aggregator.errors import StoreUnavailableError
from aggregator.ingest import IngestLimits, MutualTLS, ServerTls, StaticToken
from aggregator.metrics import INGEST_REFUSED_HELLOS
from aggregator.model.agent import AgentIdentity, Presented
from aggregator.model.resolution import FlowIdentity, Resolution
from aggregator.store import Scope, Store, open_store
from tests.certificates import Authority
from tests.flowlink import (
    CLUSTER,
    FakeResolver,
    Flow,
    batch_of,
    connections,
    empty,
    flows,
    running_aggregator,
    running_stream,
    until,
)
from wattle.v1 import flowlink_pb2


async def test_what_is_appended_arrives_once(store: Store, spool: Spool) -> None:
    async with running_aggregator(store) as aggregator, running_stream(spool, aggregator.port) as stream:
        for _ in range(50):
            spool.append(batch_of(flows(3)))
        await empty(spool)
        assert stream.connected
        assert stream.first_ack_seen
    assert connections(store) == 150
    assert len(store.links(Scope(cluster=CLUSTER))) == 3


async def test_an_aggregator_that_comes_back_goes_on_from_its_cursor(store: Store, spool: Spool) -> None:
    async with running_aggregator(store) as aggregator:
        port = aggregator.port
        async with running_stream(spool, port):
            spool.append(batch_of(flows(3)))
            await empty(spool)
    async with running_stream(spool, port) as stream:
        for _ in range(10):
            spool.append(batch_of(flows(3)))
        async with running_aggregator(store, listen=f"127.0.0.1:{port}"):
            await empty(spool)
            assert stream.committed_seq == 11
    assert connections(store) == 33


async def test_reports_and_settings_pass_each_other(store: Store, spool: Spool) -> None:
    settings: list[flowlink_pb2.Settings] = []
    async with (
        running_aggregator(store) as aggregator,
        running_stream(spool, aggregator.port, on_settings=settings.append) as stream,
    ):
        hint = flowlink_pb2.CidrHint(process="kube-apiserver", flag="--service-cluster-ip-range", value="10.96.0.0/12")
        stream.submit_report(flowlink_pb2.NodeReport(version="1", backend="kprobe", cidr_hints=[hint]))
        await until(lambda: settings and store.agents(CLUSTER))
        (agent,) = store.agents(CLUSTER)
        assert (agent.agent_id, agent.backend) == ("node-1", "kprobe")
        assert store.cidr_hints(CLUSTER)[0].value == "10.96.0.0/12"


async def test_losses_and_gaps_are_shown(store: Store) -> None:
    from agent.spool import SpoolLimits

    spool = Spool(None, limits=SpoolLimits(memory_bytes=5_000))
    for _ in range(100):
        spool.append(batch_of(flows(5), loss={"map_full": 2}))
    kept = spool.waiting_batches
    async with running_aggregator(store) as aggregator, running_stream(spool, aggregator.port):
        await empty(spool)
    assert connections(store) == 5 * kept
    (agent,) = store.agents(CLUSTER)
    assert agent.gap_flow_records == 5 * (100 - kept)
    assert agent.losses["map_full"] == 2 * kept
    assert agent.committed_seq == 100
    spool.close()


async def test_a_poison_batch_is_quarantined_and_passed(store: Store, spool: Spool) -> None:
    poison = batch_of(flows(2))
    poison.crc32c ^= 1
    async with running_aggregator(store) as aggregator, running_stream(spool, aggregator.port):
        for batch in (batch_of(flows(2)), poison, batch_of(flows(2))):
            spool.append(batch)
        await empty(spool)
    assert connections(store) == 4
    (quarantined,) = store.quarantined(CLUSTER)
    assert (quarantined.seq, quarantined.size_bytes > 0) == (2, True)
    assert "crc32c" in quarantined.reason
    assert store.agents(CLUSTER)[0].rejected_batches == 1


async def test_what_the_database_refuses_is_quarantined_alone(store: Store, spool: Spool) -> None:
    """A sum beyond 64 bits can only be known there; the batches beside it are recorded."""
    huge = [Flow(tx_bytes=2**52)] * 1
    async with running_aggregator(store) as aggregator, running_stream(spool, aggregator.port):
        spool.append(batch_of(huge))
        await empty(spool)
        with store.engine.begin() as connection:
            for table in ("link_activity_5m", "link_activity_1h"):
                connection.exec_driver_sql(f"UPDATE {table} SET client_tx_bytes = {2**63 - 2}")
        for batch in ([Flow(port=1)], huge, [Flow(port=2)]):
            spool.append(batch_of(batch))
        await empty(spool)
    assert [batch.seq for batch in store.quarantined(CLUSTER)] == [3]
    assert connections(store) == 3


async def test_a_batch_that_breaks_the_code_is_set_aside(store: Store, spool: Spool) -> None:
    def answer(flow: FlowIdentity, _at: datetime) -> Resolution | None:
        if flow.port == 1_002:
            raise RuntimeError("a bug")
        return None

    async with (
        running_aggregator(store, resolver=FakeResolver(answer=answer)) as aggregator,
        running_stream(spool, aggregator.port),
    ):
        for batch in (flows(2), flows(3), flows(1)):
            spool.append(batch_of(batch))
        await empty(spool)
    assert connections(store) == 3
    assert [batch.seq for batch in store.quarantined(CLUSTER)] == [2]


async def test_a_batch_that_is_too_large_becomes_a_gap(sqlite_store: Store, spool: Spool) -> None:
    limits = IngestLimits(max_batch_bytes=2_000)
    async with (
        running_aggregator(sqlite_store, limits=limits) as aggregator,
        running_stream(spool, aggregator.port),
    ):
        for batch in (flows(2), flows(500), flows(1)):
            spool.append(batch_of(batch))
        await empty(spool)
    assert connections(sqlite_store) == 3
    (gap,) = sqlite_store.gaps(CLUSTER)
    assert (gap.from_seq, gap.to_seq, gap.flow_records) == (2, 2, 500)


async def test_a_database_that_is_away_holds_agents_back_and_loses_nothing(sqlite_store: Store, spool: Spool) -> None:
    store = sqlite_store
    real_merge = store.sink.merge
    failures = iter(range(6))

    def away(merge: object) -> None:
        if next(failures, None) is not None:
            raise StoreUnavailableError("away")
        real_merge(merge)  # type: ignore[arg-type]

    store.sink.merge = away  # type: ignore[method-assign]
    async with running_aggregator(store) as aggregator, running_stream(spool, aggregator.port):
        for _ in range(20):
            spool.append(batch_of(flows(1)))
        await empty(spool)
    assert connections(store) == 20


async def test_a_commit_whose_answer_is_lost_is_not_repeated(store: Store, spool: Spool) -> None:
    real_merge = store.sink.merge
    committed = iter(range(3))

    def unheard(merge: object) -> None:
        real_merge(merge)  # type: ignore[arg-type]
        if next(committed, None) is not None:
            raise StoreUnavailableError("the connection broke in COMMIT")

    store.sink.merge = unheard  # type: ignore[method-assign]
    async with running_aggregator(store) as aggregator, running_stream(spool, aggregator.port):
        for _ in range(20):
            spool.append(batch_of(flows(1)))
            await asyncio.sleep(0.005)
        await empty(spool)
    assert connections(store) == 20


def refusals(label: str) -> float:
    return INGEST_REFUSED_HELLOS.labels(label)._value.get()


class RawAgent:
    """Speaks the protocol by hand."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, flowlink_pb2.ServerMessage]) -> None:
        self._call = call

    async def send(self, **message: object) -> None:
        await self._call.write(flowlink_pb2.AgentMessage(**message).SerializeToString())  # type: ignore[arg-type]

    async def hello(
        self,
        *,
        instance: int = 7,
        lineage: tuple[int, ...] = (7,),
        first: int = 1,
        following: int = 100,
        **changes: object,
    ) -> flowlink_pb2.ServerMessage:
        values = {
            "protocol_version": 1,
            "cluster": CLUSTER,
            "agent_id": "node-1",
            "epoch": 1,
            "first_seq": first,
            "next_seq": following,
            "instance": instance,
            "lineage": lineage,
        }
        await self.send(hello=flowlink_pb2.Hello(**values | changes))  # type: ignore[arg-type]
        return await self.read()

    async def read(self) -> flowlink_pb2.ServerMessage:
        message = await asyncio.wait_for(self._call.read(), 10)
        assert isinstance(message, flowlink_pb2.ServerMessage), "the stream has ended"
        return message

    async def read_until(self, kind: str) -> flowlink_pb2.ServerMessage:
        while (message := await self.read()).WhichOneof("message") != kind:
            pass
        return message

    async def batch(self, seq: int) -> None:
        batch = batch_of(flows(1))
        batch.seq = seq
        await self.send(batch=batch)


@contextlib.asynccontextmanager
async def raw_agent(port: int) -> AsyncIterator[RawAgent]:
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = channel.stream_stream(
            "/wattle.v1.FlowLink/Connect",
            request_serializer=None,
            response_deserializer=flowlink_pb2.ServerMessage.FromString,
        )
        call = stub()
        try:
            yield RawAgent(call)
        finally:
            call.cancel()


async def test_a_duplicate_is_acknowledged_again_and_not_counted(store: Store) -> None:
    async with running_aggregator(store) as aggregator, raw_agent(aggregator.port) as agent:
        await agent.hello()
        await agent.batch(1)
        assert (await agent.read_until("ack")).ack.committed_seq == 1
        await agent.batch(1)
        assert (await agent.read_until("ack")).ack.committed_seq == 1
    assert connections(store) == 1


async def test_a_number_that_is_ahead_ends_the_stream(store: Store) -> None:
    async with running_aggregator(store) as aggregator, raw_agent(aggregator.port) as agent:
        await agent.hello()
        await agent.batch(5)
        assert "where 1 was expected" in (await agent.read_until("go_away")).go_away.reason
    assert connections(store) == 0


async def test_the_same_process_replaces_its_own_stream(store: Store) -> None:
    async with running_aggregator(store) as aggregator, raw_agent(aggregator.port) as first:
        await first.hello()
        async with raw_agent(aggregator.port) as second:
            assert (await second.hello()).WhichOneof("message") == "welcome"
            assert "another stream" in (await first.read_until("go_away")).go_away.reason
            await second.batch(1)
            assert (await second.read_until("ack")).ack.committed_seq == 1


async def test_a_copied_agent_is_fenced_while_the_first_lives(store: Store) -> None:
    async with running_aggregator(store) as aggregator, raw_agent(aggregator.port) as first:
        await first.hello()
        async with raw_agent(aggregator.port) as copy:
            answer = await copy.hello(instance=8, lineage=(7, 8))
            assert answer.go_away.kind == flowlink_pb2.GO_AWAY_KIND_FENCED
        await first.batch(1)
        assert (await first.read_until("ack")).ack.committed_seq == 1


async def test_a_copied_spool_is_told_to_start_anew(store: Store) -> None:
    async with running_aggregator(store) as aggregator:
        async with raw_agent(aggregator.port) as first:
            await first.hello()
        await until(lambda: not aggregator.server.connected_agents)
        async with raw_agent(aggregator.port) as copy:
            answer = await copy.hello(instance=8, lineage=(6, 8))
            assert answer.go_away.kind == flowlink_pb2.GO_AWAY_KIND_CLONED


async def test_two_aggregators_fence_each_other_s_streams(store: Store, database_url: str) -> None:
    other = open_store(database_url)
    try:
        async with (
            running_aggregator(store) as one,
            running_aggregator(other) as two,
            raw_agent(one.port) as first,
            raw_agent(two.port) as second,
        ):
            await first.hello()
            await first.batch(1)
            await first.read_until("ack")
            assert (await second.hello(instance=8, lineage=(7, 8))).welcome.committed_seq == 1
            await first.batch(2)
            assert (await first.read_until("go_away")).go_away.kind == flowlink_pb2.GO_AWAY_KIND_FENCED
            await second.batch(2)
            assert (await second.read_until("ack")).ack.committed_seq == 2
    finally:
        other.close()
    assert connections(store) == 2


async def test_only_so_many_catch_up_at_once(sqlite_store: Store) -> None:
    limits = IngestLimits(replaying_agents=1, replay_batches=10)
    async with (
        running_aggregator(sqlite_store, limits=limits) as aggregator,
        raw_agent(aggregator.port) as first,
        raw_agent(aggregator.port) as second,
        raw_agent(aggregator.port) as third,
    ):
        assert (await first.hello()).welcome.retry_after_ms == 0
        assert (await second.hello(agent_id="node-2")).welcome.retry_after_ms > 0
        assert (await third.hello(agent_id="node-3", following=2)).welcome.retry_after_ms == 0, "it has no backlog"


async def test_an_aggregator_that_cannot_read_the_batches_gets_none(
    sqlite_store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that are upgraded first keep what they see: an older aggregator would quarantine it."""
    monkeypatch.setattr("aggregator.ingest.server.COLUMNS_VERSION", 0)
    spool.append(batch_of(flows(3)))
    ended = STREAM_ENDS.labels("old-aggregator")
    async with running_aggregator(sqlite_store) as aggregator, running_stream(spool, aggregator.port):
        await until(lambda: ended._value.get() >= 1)
    assert spool.waiting_batches == 1
    assert sqlite_store.quarantined(CLUSTER) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol_version": 2}, "protocol_version"),
        ({"cluster": "Not A Name"}, "cluster"),
        ({"agent_id": ""}, "agent_id"),
        ({"epoch": 0}, "epoch"),
        ({"first": 0}, "first_seq"),
        ({"first": 5, "following": 4}, "first_seq"),
        ({"lineage": (1, 2)}, "lineage"),
    ],
)
async def test_a_wrong_hello_is_refused_by_name(sqlite_store: Store, changes: dict[str, object], words: str) -> None:
    async with running_aggregator(sqlite_store) as aggregator, raw_agent(aggregator.port) as agent:
        assert words in (await agent.hello(**changes)).go_away.reason  # type: ignore[arg-type]


async def test_an_agent_of_a_cluster_that_nobody_configured_is_told_so(sqlite_store: Store) -> None:
    async with (
        running_aggregator(sqlite_store, clusters=("east", "west")) as aggregator,
        raw_agent(aggregator.port) as agent,
    ):
        answer = await agent.hello()
        assert f"knows no cluster {CLUSTER}" in answer.go_away.reason
    async with (
        running_aggregator(sqlite_store, clusters=("east", CLUSTER)) as aggregator,
        raw_agent(aggregator.port) as agent,
    ):
        assert (await agent.hello()).WhichOneof("message") == "welcome"


async def test_too_fast_an_agent_is_slowed_down_not_cut_off(sqlite_store: Store, spool: Spool) -> None:
    limits = IngestLimits(batches_per_second=200, window_batches=4)
    async with running_aggregator(sqlite_store, limits=limits) as aggregator, running_stream(spool, aggregator.port):
        for _ in range(60):
            spool.append(batch_of(flows(1)))
        await empty(spool)
    assert connections(sqlite_store) == 60


async def test_more_live_peers_than_allowed_are_quarantined(sqlite_store: Store, spool: Spool) -> None:
    async with (
        running_aggregator(sqlite_store, limits=IngestLimits(live_peers=10)) as aggregator,
        running_stream(spool, aggregator.port),
    ):
        spool.append(batch_of([Flow(remote=f"10.9.0.{index}") for index in range(1, 9)]))
        spool.append(batch_of([Flow(remote=f"10.9.1.{index}") for index in range(1, 9)]))
        await empty(spool)
    (quarantined,) = sqlite_store.quarantined(CLUSTER)
    assert "10 remote addresses" in quarantined.reason


async def test_mutual_tls_names_the_agent_and_renewed_certificates_need_no_restart(
    sqlite_store: Store, spool: Spool, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "DNS:localhost")
    mine = authority.issue("agent", f"URI:spiffe://wattle/{CLUSTER}/agent/node-1")
    theirs = authority.issue("other", f"URI:spiffe://wattle/{CLUSTER}/agent/node-2")
    tls = ServerTls(certificate_file=certificate, key_file=key, client_ca_file=authority.ca_file)

    def security(pair: tuple[Path, Path]) -> MutualTls:
        return MutualTls(ca_file=authority.ca_file, certificate_file=pair[0], key_file=pair[1])

    async with running_aggregator(sqlite_store, authenticator=MutualTLS(), security=tls) as aggregator:
        before = refusals("identity")
        async with running_stream(spool, aggregator.port, security=security(theirs)) as stream:
            spool.append(batch_of(flows(1)))
            await until(lambda: refusals("identity") > before)
            assert not stream.connected, "the certificate of another node"
        async with running_stream(spool, aggregator.port, security=security(mine)):
            await empty(spool)
        serial = await served_serial(aggregator.port, authority)
        authority.issue("server", "DNS:localhost")
        assert await served_serial(aggregator.port, authority) != serial
        async with running_stream(spool, aggregator.port, security=security(mine)):
            spool.append(batch_of(flows(1)))
            await empty(spool)
    assert connections(sqlite_store) == 2


async def served_serial(port: int, authority: Authority) -> str:
    """The serial number of the certificate that the port shows now."""
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-alpn", "h2",
        "-CAfile", str(authority.ca_file),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    shown, _ = await process.communicate()
    reader = await asyncio.create_subprocess_exec(
        "openssl", "x509", "-noout", "-serial", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    serial, _ = await reader.communicate(shown)
    assert serial
    return serial.decode()


async def test_a_token_names_the_agent_and_can_be_withdrawn(sqlite_store: Store, spool: Spool, tmp_path: Path) -> None:
    import hashlib

    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "DNS:localhost")
    token_file, hashes = tmp_path / "token", tmp_path / "hashes"
    token_file.write_text("correct horse\n")
    hashes.write_text(f"# agents\n{hashlib.sha256(b'correct horse').hexdigest()} {CLUSTER} *\n")
    tls = ServerTls(certificate_file=certificate, key_file=key)
    security = TokenTls(ca_file=authority.ca_file, token_file=token_file)
    async with running_aggregator(sqlite_store, authenticator=StaticToken(hashes), security=tls) as aggregator:
        async with running_stream(spool, aggregator.port, security=security):
            spool.append(batch_of(flows(1)))
            await empty(spool)
        token_file.write_text("wrong horse\n")
        before = refusals("credential")
        async with running_stream(spool, aggregator.port, security=security) as stream:
            spool.append(batch_of(flows(1)))
            await until(lambda: refusals("credential") > before)
            assert not stream.connected
            token_file.write_text("correct horse\n")
            await empty(spool)
            hashes.write_text("")
            before = refusals("credential")
        async with running_stream(spool, aggregator.port, security=security) as stream:
            await until(lambda: refusals("credential") > before)
            assert not stream.connected
    assert connections(sqlite_store) == 2


class RotatedToken:
    """A credential that ends soon, and every later one that does not."""

    def __init__(self, *, first_seconds: float) -> None:
        self.asked = 0
        self._first_seconds = first_seconds

    async def authenticate(self, presented: Presented) -> AgentIdentity | None:
        self.asked += 1
        seconds = self._first_seconds if self.asked == 1 else 3600
        return AgentIdentity(
            cluster=CLUSTER, agent_id="node-1", expires_at=datetime.now(UTC) + timedelta(seconds=seconds)
        )


async def test_an_agent_is_sent_away_before_its_token_ends(sqlite_store: Store) -> None:
    token = RotatedToken(first_seconds=3)
    async with running_aggregator(sqlite_store, authenticator=token) as aggregator, raw_agent(aggregator.port) as agent:
        await agent.hello()
        began = datetime.now(UTC)
        gone = (await agent.read_until("go_away")).go_away
        assert datetime.now(UTC) - began < timedelta(seconds=3), "the token had ended by then"
        assert "come back with the next one" in gone.reason
        assert (gone.retry_after_ms, gone.kind) == (0, flowlink_pb2.GO_AWAY_KIND_UNSPECIFIED)


async def test_with_its_next_token_it_goes_on_where_it_was(sqlite_store: Store, spool: Spool) -> None:
    token = RotatedToken(first_seconds=2)
    ends = REGISTRY.get_sample_value("wattle_ingest_stream_ends_total", {"reason": "credential-ends"}) or 0.0
    async with (
        running_aggregator(sqlite_store, authenticator=token) as aggregator,
        running_stream(spool, aggregator.port) as stream,
    ):
        spool.append(batch_of(flows(1)))
        await empty(spool)
        await until(lambda: token.asked == 2)
        for _ in range(5):
            spool.append(batch_of(flows(1)))
        await empty(spool)
        assert stream.committed_seq == 6
    assert connections(sqlite_store) == 6
    assert REGISTRY.get_sample_value("wattle_ingest_stream_ends_total", {"reason": "credential-ends"}) == ends + 1


def test_plaintext_beyond_this_machine_is_refused() -> None:
    from agent.errors import StreamError
    from agent.stream.channel import PlaintextLoopback, open_channel
    from aggregator.errors import ConfigurationError
    from aggregator.ingest import PlaintextOnLoopback
    from aggregator.ingest.listener import add_port

    with pytest.raises(StreamError, match="loopback"):
        open_channel("10.0.0.1:8471", PlaintextLoopback())
    with pytest.raises(ConfigurationError, match="loopback"):
        add_port(None, "0.0.0.0:8471", PlaintextOnLoopback())  # type: ignore[arg-type]
