"""Session: one agent's stream, from Hello to its end.

Enters: AgentMessages as bytes. Leaves: Deliveries to the Recorder, ServerMessages to the agent.
Invariant: only the number after the last one taken is taken; an Ack names nothing that is not committed. A batch that
can never be accepted becomes a Poison delivery, so that the cursor moves past it in a transaction.
"""

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from aggregator.errors import IngestError, StoreError
from aggregator.ingest.decode import KnownSides, MalformedBatchError, decode
from aggregator.ingest.limits import IngestLimits, LivePeers, Pace
from aggregator.metrics import INGEST_BATCHES, INGEST_BYTES, INGEST_CLOCK_SKEW, INGEST_REJECTS, INGEST_THROTTLED
from aggregator.model.agent import AgentIdentity
from aggregator.services.recording.deliveries import DeclaredGap, Delivery, FlowBatch, Poison, Recorded
from aggregator.store.agents import AgentReport, CidrHint
from aggregator.store.deltas import CursorKey
from wattle.v1 import flowlink_pb2

log = logging.getLogger(__name__)

PROTOCOL_VERSION = 1
MAX_LINEAGE = 65
_NAME = re.compile(r"[a-z0-9]([-a-z0-9._]{0,251}[a-z0-9])?")
_GAP_REASONS = {
    flowlink_pb2.GAP_REASON_EVICTED: "evicted",
    flowlink_pb2.GAP_REASON_CORRUPT: "corrupt",
    flowlink_pb2.GAP_REASON_TORN: "torn",
    flowlink_pb2.GAP_REASON_CLONED: "cloned",
}

Context = grpc.aio.ServicerContext[Any, flowlink_pb2.ServerMessage]  # reads bytes, or grpc.aio.EOF


class RefusedStreamError(IngestError):
    """The stream ends with this GoAway."""

    def __init__(
        self,
        label: str,
        sentence: str,
        *,
        retry_after_ms: int = 5_000,
        kind: "flowlink_pb2.GoAwayKind.ValueType" = flowlink_pb2.GO_AWAY_KIND_UNSPECIFIED,
    ) -> None:
        super().__init__(sentence)
        self.label = label
        self.retry_after_ms = retry_after_ms
        self.kind = kind


class Recording(Protocol):
    """What a session needs of the Recorder."""

    async def submit(self, delivery: Delivery) -> None: ...


def read_hello(data: bytes, identity: AgentIdentity) -> flowlink_pb2.Hello:
    """The first message of a stream. Raises RefusedStreamError."""
    try:
        message = flowlink_pb2.AgentMessage.FromString(data)
    except DecodeError as error:
        raise RefusedStreamError("protobuf", f"the first message cannot be read: {error}") from error
    if message.WhichOneof("message") != "hello":
        raise RefusedStreamError("no-hello", "the first message must be Hello")
    hello = message.hello
    problem = _problem_of(hello)
    if problem:
        raise RefusedStreamError("hello", f"Hello: {problem}", retry_after_ms=60_000)
    if not identity.covers(hello.cluster, hello.agent_id):
        raise RefusedStreamError(
            "identity",
            f"this credential may not speak for node {hello.agent_id} of cluster {hello.cluster}",
            retry_after_ms=60_000,
        )
    return hello


def _problem_of(hello: flowlink_pb2.Hello) -> str:
    if hello.protocol_version != PROTOCOL_VERSION:
        return f"protocol_version {hello.protocol_version} is not {PROTOCOL_VERSION}"
    for name in ("cluster", "agent_id"):
        if not _NAME.fullmatch(getattr(hello, name)):
            return f"{name} must be a DNS name in lower case"
    if hello.epoch == 0 or hello.instance == 0:
        return "epoch and instance must be random numbers, not 0"
    if not 1 <= hello.first_seq <= hello.next_seq < 1 << 62:
        return "1 <= first_seq <= next_seq must hold"
    if len(hello.lineage) > MAX_LINEAGE or not hello.lineage or hello.lineage[-1] != hello.instance:
        return "lineage must end with instance"
    return ""


@dataclass(slots=True, kw_only=True)
class _Outbox:
    """What waits to be written: acknowledgements coalesce, the rest keeps its order."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    messages: deque[flowlink_pb2.ServerMessage] = field(default_factory=deque)
    committed_seq: int = 0
    told_seq: int = -1
    tell_again: bool = False
    end: RefusedStreamError | None = None


class Session:
    """After Welcome. `run` returns when the agent is gone; it raises RefusedStreamError to send it away."""

    def __init__(
        self,
        *,
        context: Context,
        hello: flowlink_pb2.Hello,
        committed_seq: int,
        recorder: Recording,
        limits: IngestLimits,
        now_ms: Callable[[], int],
        save_report: Callable[[AgentReport], None],
        on_progress: Callable[[int], None],
    ) -> None:
        self.key = CursorKey(cluster=hello.cluster, agent_id=hello.agent_id, epoch=hello.epoch)
        self.instance = hello.instance
        self._context = context
        self._recorder = recorder
        self._limits = limits
        self._now_ms = now_ms
        self._save_report = save_report
        self._on_progress = on_progress
        self._expected_seq = committed_seq + 1
        self._outbox = _Outbox(committed_seq=committed_seq, told_seq=committed_seq)
        self._pace = Pace(per_second=limits.batches_per_second, burst=2 * limits.window_batches)
        self._sides: KnownSides = {}
        self._peers = LivePeers(most=limits.live_peers, period_seconds=limits.peer_seconds)

    def send(self, message: flowlink_pb2.ServerMessage) -> None:
        """Queue a message, in the event loop."""
        self._outbox.messages.append(message)
        self._outbox.ready.set()

    def end(self, reason: RefusedStreamError) -> None:
        """Send the agent away."""
        self._outbox.end = self._outbox.end or reason
        self._outbox.ready.set()

    async def run(self) -> None:
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---- to the agent -----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        outbox = self._outbox
        while True:
            await outbox.ready.wait()
            outbox.ready.clear()
            while outbox.messages:
                await self._context.write(outbox.messages.popleft())
            if outbox.committed_seq > outbox.told_seq or outbox.tell_again:
                outbox.told_seq, outbox.tell_again = outbox.committed_seq, False
                await self._context.write(
                    flowlink_pb2.ServerMessage(ack=flowlink_pb2.Ack(committed_seq=outbox.told_seq))
                )
            if outbox.end is not None:
                raise outbox.end

    def _on_recorded(self, delivery: Delivery, recorded: Recorded, reason: str) -> None:
        """Called by the recorder in the event loop, in the order of the spool."""
        if recorded is Recorded.FENCED:
            fenced = flowlink_pb2.GO_AWAY_KIND_FENCED
            self.end(RefusedStreamError("fenced", f"fenced: {reason}", retry_after_ms=1_000, kind=fenced))
            return
        if reason:
            self.send(
                flowlink_pb2.ServerMessage(reject=flowlink_pb2.Reject(seq=delivery.to_seq, reason=reason[:1_000]))
            )
        self._outbox.committed_seq = max(self._outbox.committed_seq, delivery.to_seq)
        self._outbox.ready.set()
        self._on_progress(delivery.to_seq)

    # ---- from the agent ---------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            data = await self._context.read()
            if not isinstance(data, bytes):
                return  # end of stream
            INGEST_BYTES.inc(len(data))
            try:
                message = flowlink_pb2.AgentMessage.FromString(data)
            except DecodeError as error:
                # Which number it stands for cannot be told; the agent starts again from the cursor.
                raise RefusedStreamError("protobuf", f"a message cannot be read: {error}") from error
            match message.WhichOneof("message"):
                case "batch":
                    await self._take_batch(data, message.batch)
                case "gap":
                    await self._take_gap(message.gap)
                case "node_report":
                    await self._take_report(message.node_report)
                case "hello" | None:
                    raise RefusedStreamError("protocol", "Hello comes first, and only then")

    async def _take_batch(self, data: bytes, batch: flowlink_pb2.Batch) -> None:
        if not self._is_next(batch.seq, batch.seq):
            return
        wait_seconds = self._pace.take()
        if wait_seconds > 0:
            INGEST_THROTTLED.labels("batches-per-second").inc()
            await asyncio.sleep(wait_seconds)
        content: FlowBatch | Poison
        try:
            content = self._judge(data, batch)
        except MalformedBatchError as error:
            INGEST_REJECTS.labels(error.label).inc()
            log.warning("batch %d of %s is quarantined: %s", batch.seq, self.key.agent_id, error)
            content = Poison(reason=str(error), message=data[: self._limits.max_batch_bytes])
        await self._submit(batch.seq, batch.seq, content)

    def _judge(self, data: bytes, batch: flowlink_pb2.Batch) -> FlowBatch:
        """The batch in columns. Raises MalformedBatchError."""
        limits = self._limits
        if len(data) > limits.max_batch_bytes:
            raise MalformedBatchError("size", f"the batch has {len(data)} bytes, {limits.max_batch_bytes} at most")
        decoded = decode(data, batch, now_ms=self._now_ms(), known=self._sides)
        if not self._peers.add(decoded.remotes):
            raise MalformedBatchError("peers", f"more than {limits.live_peers} remote addresses at a time")
        return decoded

    async def _take_gap(self, gap: flowlink_pb2.Gap) -> None:
        if gap.to_seq < gap.from_seq or gap.to_seq >= 1 << 62 or gap.records >= 1 << 53:
            raise RefusedStreamError("protocol", "Gap: from_seq <= to_seq < 2^62 and records < 2^53 must hold")
        if self._is_next(gap.from_seq, gap.to_seq):
            reason = _GAP_REASONS.get(gap.reason, "unspecified")
            await self._submit(self._expected_seq, gap.to_seq, DeclaredGap(reason=reason, flow_records=gap.records))

    def _is_next(self, from_seq: int, to_seq: int) -> bool:
        """Whether it goes on from what was taken. What lies before is a duplicate, and acknowledged again."""
        if to_seq < self._expected_seq:
            INGEST_BATCHES.labels("duplicate").inc()
            self._outbox.tell_again = True
            self._outbox.ready.set()
            return False
        if from_seq > self._expected_seq:
            raise RefusedStreamError(
                "out-of-order", f"number {from_seq} came where {self._expected_seq} was expected", retry_after_ms=100
            )
        return True

    async def _submit(self, from_seq: int, to_seq: int, content: FlowBatch | DeclaredGap | Poison) -> None:
        self._expected_seq = to_seq + 1
        await self._recorder.submit(
            Delivery(
                key=self.key,
                instance=self.instance,
                from_seq=from_seq,
                to_seq=to_seq,
                content=content,
                on_recorded=self._on_recorded,
            )
        )

    async def _take_report(self, report: flowlink_pb2.NodeReport) -> None:
        now_ms = self._now_ms()
        skew_ms = _clock_skew_ms(report.clock, now_ms)
        INGEST_CLOCK_SKEW.set(abs(skew_ms) / 1000)
        value = AgentReport(
            cluster=self.key.cluster,
            agent_id=self.key.agent_id,
            version=_text(report.version),
            kernel=_text(report.kernel),
            backend=_text(report.backend),
            refused=tuple(_text(sentence, most=2_000) for sentence in report.refused[:16]),
            cidr_hints=_hints(report.cidr_hints),
            map_fill_permille=min(report.map_fill_permille, 1_000),
            spool_bytes=min(report.spool_bytes, 1 << 62),
            spool_batches=min(report.spool_batches, 1 << 62),
            clock_skew_ms=skew_ms,
            at=datetime.fromtimestamp(now_ms / 1000, tz=UTC),
        )
        with contextlib.suppress(StoreError):  # the next one replaces it
            await asyncio.to_thread(self._save_report, value)


def _hints(hints: Sequence[flowlink_pb2.CidrHint]) -> tuple[CidrHint, ...]:
    return tuple(
        CidrHint(process=_text(hint.process), flag=_text(hint.flag), value=_text(hint.value, most=4_096))
        for hint in hints[:64]
    )


def _text(text: str, *, most: int = 253) -> str:
    return text.replace("\0", "")[:most]


def _clock_skew_ms(clock: flowlink_pb2.Clock, now_ms: int) -> int:
    skew_ms = clock.wall_ns // 1_000_000 - now_ms
    return max(-(1 << 62), min(1 << 62, skew_ms)) if clock.wall_ns else 0
