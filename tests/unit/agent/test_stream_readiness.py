"""Readiness when streams end at the worst moment: what was committed counts, whichever message tells it."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from agent.spool import Spool
from agent.stream import FlowLinkStream, PlaintextLoopback, StreamConfig
from tests.flowlink import batch_of, flows, until
from wattle.v1 import flowlink_pb2


class CommitsInSilence:
    """Commits each batch and ends the stream in place of an Ack; says in the next Welcome what it has."""

    def __init__(self) -> None:
        self.committed = 0
        self.streams = 0

    async def connect(
        self, messages: AsyncIterator[flowlink_pb2.AgentMessage], _context: grpc.aio.ServicerContext
    ) -> AsyncIterator[flowlink_pb2.ServerMessage]:
        self.streams += 1
        async for message in messages:
            match message.WhichOneof("message"):
                case "hello":
                    welcome = flowlink_pb2.Welcome(
                        committed_seq=self.committed, window_batches=4, window_bytes=1 << 20, columns_version=2
                    )
                    yield flowlink_pb2.ServerMessage(welcome=welcome)
                case "batch":
                    self.committed = message.batch.seq
                    return


async def test_a_commit_that_only_the_next_welcome_tells_makes_ready() -> None:
    """Its Ack is lost for ever: until the next interval's batch there is no other word of it."""
    aggregator = CommitsInSilence()
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        aggregator.connect,
        request_deserializer=flowlink_pb2.AgentMessage.FromString,
        response_serializer=flowlink_pb2.ServerMessage.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("wattle.v1.FlowLink", {"Connect": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    spool = Spool(None, boot_id="boot")
    stream = FlowLinkStream(
        spool=spool,
        config=StreamConfig(
            target=f"127.0.0.1:{port}",
            security=PlaintextLoopback(),
            cluster="test",
            agent_id="node",
            boot_id="boot",
            version="test",
        ),
        on_settings=lambda _settings: None,
        jitter=lambda _most: 0.0,
    )
    delivery = asyncio.create_task(stream.run())
    try:
        await until(lambda: stream.connected)
        assert not stream.first_ack_seen
        spool.append(batch_of(flows(3)))
        await until(lambda: aggregator.streams > 1 and stream.connected)
        assert stream.first_ack_seen
        assert spool.waiting_batches == 0
    finally:
        delivery.cancel()
        await asyncio.gather(delivery, return_exceptions=True)
        await server.stop(None)
        spool.close()
