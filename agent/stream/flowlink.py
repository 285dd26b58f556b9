"""FlowLinkStream: what waits in the spool goes to the aggregator until it says that it has committed it.

Enters: Pending messages of a Spool, NodeReports. Leaves: AgentMessages; Acks into the spool; Settings, called back.
Invariant: nothing leaves the spool before its Ack; a stream that dies in any way is followed by another one.

grpc.aio has been seen to raise asyncio.InvalidStateError and others outside AioRpcError on a dying stream, and so to
end a sender silently. So the loop catches everything, and a gauge tells when it last made a step.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import grpc
import grpc.aio

from agent.errors import StreamError
from agent.metrics import STREAM_ALIVE, STREAM_CONNECTED, STREAM_ENDS, STREAM_REJECTS, STREAM_SENT
from agent.spool import Spool
from agent.stream.channel import ChannelSecurity, open_channel
from wattle.v1 import flowlink_pb2

log = logging.getLogger(__name__)

METHOD = "/wattle.v1.FlowLink/Connect"
PROTOCOL_VERSION = 1
COLUMNS_VERSION = 2  # how agent.encode spells them
BACKOFF_FIRST_SECONDS = 0.25
BACKOFF_MOST_SECONDS = 10.0
WELCOME_SECONDS = 20.0
IDLE_STEP_SECONDS = 1.0

_Call = grpc.aio.StreamStreamCall[bytes, flowlink_pb2.ServerMessage]
_Stub = grpc.aio.StreamStreamMultiCallable[bytes, flowlink_pb2.ServerMessage]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """Where the aggregator is, who this agent is, and how it proves that."""

    target: str  # "host:port"
    security: ChannelSecurity
    cluster: str
    agent_id: str  # the node's name
    boot_id: str
    version: str
    server_name: str = ""  # the name in the server's certificate, where it is not the target's host


CLUSTER_KEY = "wattle-cluster"


class _EndOfStreamError(Exception):
    """This stream is over; `retry_after_seconds` is what the server asked for."""

    def __init__(self, reason: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


@dataclass(slots=True, kw_only=True)
class _Window:
    """What may be in flight, and what is."""

    batches: int
    size_bytes: int
    max_batch_bytes: int
    acknowledged: int
    sent: int
    in_flight: list[tuple[int, int]]  # (last seq, bytes), oldest first
    in_flight_bytes: int = 0
    throttle_until: float = 0.0

    @property
    def open(self) -> bool:
        # One message may always go, however large: a window smaller than a batch would stop everything.
        return not self.in_flight or (len(self.in_flight) < self.batches and self.in_flight_bytes < self.size_bytes)

    def add(self, to_seq: int, size_bytes: int) -> None:
        self.sent = to_seq
        self.in_flight.append((to_seq, size_bytes))
        self.in_flight_bytes += size_bytes

    def acknowledge(self, seq: int) -> None:
        self.acknowledged = max(self.acknowledged, seq)
        while self.in_flight and self.in_flight[0][0] <= seq:
            self.in_flight_bytes -= self.in_flight.pop(0)[1]


class FlowLinkStream:
    """One agent's delivery. `run` never returns; cancel it."""

    def __init__(
        self,
        *,
        spool: Spool,
        config: StreamConfig,
        on_settings: Callable[[flowlink_pb2.Settings], None],
        wall_ns: Callable[[], int] = time.time_ns,
        boot_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        jitter: Callable[[float], float] = lambda most: random.uniform(0.0, most),  # noqa: S311 - no secret
    ) -> None:
        self._spool = spool
        self._config = config
        self._on_settings = on_settings
        self._wall_ns = wall_ns
        self._boot_ns = boot_ns
        self._jitter = jitter
        self._wake = asyncio.Event()
        self._report: flowlink_pb2.NodeReport | None = None
        self._connected = False
        self._first_ack_seen = False
        self._committed_seq = 0
        self._greeted_epoch: int | None = None

    @property
    def connected(self) -> bool:
        """The aggregator has welcomed this agent, and the stream lives."""
        return self._connected

    @property
    def first_ack_seen(self) -> bool:
        """At least one batch of this process has been committed."""
        return self._first_ack_seen

    @property
    def committed_seq(self) -> int:
        return self._committed_seq

    def submit_report(self, report: flowlink_pb2.NodeReport) -> None:
        """Send `report` when it is possible; a newer one replaces one that waits. Call in the event loop."""
        self._report = report
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        self._spool.listen(wake)
        backoff = BACKOFF_FIRST_SECONDS
        while True:
            STREAM_ALIVE.set_to_current_time()
            was_committed = self._committed_seq
            wait = 0.0
            try:
                await self._one_stream()
            except asyncio.CancelledError:
                raise
            except _EndOfStreamError as end:
                wait = end.retry_after_seconds
                self._note_end(end.reason, str(end))
            except grpc.aio.AioRpcError as error:
                self._note_end(error.code().name.lower(), f"{error.code().name}: {error.details()}")
            except StreamError as error:
                self._note_end("configuration", str(error))
            except Exception as error:  # noqa: BLE001 - see the module's docstring: any exception may end a stream
                self._note_end("unexpected", f"{type(error).__name__}: {error}")
            finally:
                self._connected = False
                STREAM_CONNECTED.set(0)
                self._spool.disconnected()
            backoff = BACKOFF_FIRST_SECONDS if self._committed_seq > was_committed else backoff
            await self._sleep(wait + self._jitter(backoff))
            backoff = min(backoff * 2, BACKOFF_MOST_SECONDS)

    async def _sleep(self, seconds: float) -> None:
        """Wait, and keep showing that the loop lives."""
        end = asyncio.get_running_loop().time() + seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            STREAM_ALIVE.set_to_current_time()
            await asyncio.sleep(min(left, IDLE_STEP_SECONDS))

    def _note_end(self, reason: str, sentence: str) -> None:
        STREAM_ENDS.labels(reason).inc()
        log.info("the stream to %s ended: %s", self._config.target, sentence)

    # ---- one stream -------------------------------------------------------------------------------------------------

    async def _one_stream(self) -> None:
        channel, metadata = open_channel(
            self._config.target, self._config.security, server_name=self._config.server_name
        )
        try:
            stub: _Stub = channel.stream_stream(
                METHOD,
                request_serializer=None,
                response_deserializer=flowlink_pb2.ServerMessage.FromString,
            )
            # Whose API server is to be asked about the token: Hello comes too late for that.
            call: _Call = stub(metadata=[*metadata, (CLUSTER_KEY, self._config.cluster)])
            try:
                async with asyncio.timeout(WELCOME_SECONDS):
                    window = await self._greet(call)
                await self._converse(call, window)
            finally:
                call.cancel()
        finally:
            with contextlib.suppress(Exception):
                await channel.close(grace=None)

    async def _greet(self, call: _Call) -> _Window:
        hello = flowlink_pb2.Hello(
            protocol_version=PROTOCOL_VERSION,
            cluster=self._config.cluster,
            agent_id=self._config.agent_id,
            epoch=self._spool.epoch,
            boot_id=self._config.boot_id,
            first_seq=self._spool.first_seq,
            next_seq=self._spool.next_seq,
            clock=flowlink_pb2.Clock(boot_ns=self._boot_ns(), wall_ns=self._wall_ns()),
            version=self._config.version,
            instance=self._spool.instance,
            lineage=self._spool.lineage,
        )
        await call.write(flowlink_pb2.AgentMessage(hello=hello).SerializeToString())
        answer = await self._read(call)
        match answer.WhichOneof("message"):
            case "welcome":
                welcome = answer.welcome
            case "go_away":
                raise self._gone(answer.go_away)
            case other:
                raise _EndOfStreamError("protocol") from ValueError(f"the server answered Hello with {other}")
        if welcome.retry_after_ms:
            raise _EndOfStreamError("replay-queue", retry_after_seconds=welcome.retry_after_ms / 1000)
        if welcome.columns_version < COLUMNS_VERSION:
            # It would quarantine every batch. The spool keeps them until the aggregator has been upgraded, too.
            log.warning("the aggregator is older than this agent and cannot read its batches: upgrade it")
            raise _EndOfStreamError("old-aggregator", retry_after_seconds=BACKOFF_MOST_SECONDS)
        if welcome.committed_seq >= self._spool.next_seq:
            # The cursor is ahead of this spool: the directory is an old copy of itself.
            self._spool.start_new_epoch()
            raise _EndOfStreamError("cursor-ahead")
        self._spool.welcomed()
        self._spool.acknowledge(welcome.committed_seq)
        if self._greeted_epoch == self._spool.epoch and welcome.committed_seq > self._committed_seq:
            self._first_ack_seen = True  # the stream that should have brought the Ack ended first
        self._greeted_epoch = self._spool.epoch
        self._committed_seq = welcome.committed_seq
        self._connected = True
        STREAM_CONNECTED.set(1)
        return _Window(
            batches=max(1, welcome.window_batches),
            size_bytes=max(1, welcome.window_bytes),
            max_batch_bytes=welcome.max_batch_bytes or 1 << 20,
            acknowledged=welcome.committed_seq,
            sent=welcome.committed_seq,
            in_flight=[],
        )

    async def _converse(self, call: _Call, window: _Window) -> None:
        """Send and read side by side until either ends."""
        tasks = [asyncio.create_task(self._send(call, window)), asyncio.create_task(self._listen(call, window))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, call: _Call, window: _Window) -> None:
        loop = asyncio.get_running_loop()
        while True:
            STREAM_ALIVE.set_to_current_time()
            self._wake.clear()
            if (report := self._report) is not None:
                await call.write(flowlink_pb2.AgentMessage(node_report=report).SerializeToString())
                if self._report is report:  # no newer one came; a stream that ends in the write leaves it to the next
                    self._report = None
                STREAM_SENT.labels("report").inc()
            throttle_seconds = window.throttle_until - loop.time()
            if throttle_seconds <= 0 and window.open:
                pending = self._spool.next_after(window.sent)
                if pending is not None and len(pending.message) > window.max_batch_bytes:
                    self._spool.give_up(pending.from_seq)
                    continue
                if pending is not None:
                    window.add(pending.to_seq, len(pending.message))
                    await call.write(pending.message)
                    STREAM_SENT.labels("batch" if pending.from_seq == pending.to_seq else "gap").inc()
                    continue
            step = min(IDLE_STEP_SECONDS, throttle_seconds) if throttle_seconds > 0 else IDLE_STEP_SECONDS
            # Not wait_for: in Python 3.11 it can swallow a cancellation that meets the event, and the loop would go on.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(step):
                    await self._wake.wait()

    async def _listen(self, call: _Call, window: _Window) -> None:
        while True:
            message = await self._read(call)
            match message.WhichOneof("message"):
                case "ack":
                    self._acknowledge(window, message.ack.committed_seq)
                    if message.ack.throttle_ms:
                        window.throttle_until = asyncio.get_running_loop().time() + message.ack.throttle_ms / 1000
                case "reject":
                    STREAM_REJECTS.inc()
                    log.warning("the aggregator quarantined batch %d: %s", message.reject.seq, message.reject.reason)
                case "go_away":
                    raise self._gone(message.go_away)
                case "settings":
                    self._on_settings(message.settings)
                case "welcome" | None:
                    raise _EndOfStreamError("protocol")
                case other:
                    assert_never(other)

    def _acknowledge(self, window: _Window, seq: int) -> None:
        if seq > window.sent:
            raise _EndOfStreamError("protocol")
        if seq > self._committed_seq:
            self._first_ack_seen = True
            self._committed_seq = seq
        window.acknowledge(seq)
        self._spool.acknowledge(seq)
        self._wake.set()

    def _gone(self, go_away: flowlink_pb2.GoAway) -> _EndOfStreamError:
        log.warning("the aggregator sends this agent away: %s", go_away.reason)
        retry_after_seconds = go_away.retry_after_ms / 1000
        if go_away.kind == flowlink_pb2.GO_AWAY_KIND_CLONED:
            self._spool.start_new_epoch()
            return _EndOfStreamError("cloned", retry_after_seconds=retry_after_seconds)
        if go_away.kind == flowlink_pb2.GO_AWAY_KIND_FENCED:
            return _EndOfStreamError("fenced", retry_after_seconds=retry_after_seconds)
        return _EndOfStreamError("go-away", retry_after_seconds=retry_after_seconds)

    @staticmethod
    async def _read(call: _Call) -> flowlink_pb2.ServerMessage:
        message = await call.read()
        if isinstance(message, flowlink_pb2.ServerMessage):
            return message
        # EOF: the status tells why.
        code = await call.code()
        if code is grpc.StatusCode.OK:
            raise _EndOfStreamError("closed")
        raise _EndOfStreamError(code.name.lower()) from StreamError(await call.details())
