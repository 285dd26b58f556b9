"""IngestServer: the port where agents deliver.

Enters: streams. Leaves: one Session for each agent that is who it says it is.
Invariant: an agent has one live stream here; the first one keeps its place while it is alive, except that a process
may replace its own. Across aggregators the database's cursor is the fence. At most N agents catch up at a time; the
rest are told when to come back, so that a restart is no stampede.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import grpc.aio

from aggregator.errors import StoreError
from aggregator.ingest.expiry import stream_seconds
from aggregator.ingest.limits import IngestLimits
from aggregator.ingest.listener import ListenerSecurity, add_port
from aggregator.ingest.opening import Opening
from aggregator.ingest.session import Context, Recording, RefusedStreamError, Session, read_hello
from aggregator.metrics import INGEST_REFUSED_HELLOS, INGEST_STREAM_ENDS, INGEST_STREAMS
from aggregator.model.agent import AgentAuthenticator, AgentIdentity, Presented
from aggregator.store import Cloned, Store
from aggregator.store.deltas import CursorKey
from aggregator.store.sink import CursorOpening
from wattle.v1 import flowlink_pb2

log = logging.getLogger(__name__)

SERVICE = "wattle.v1.FlowLink"
COLUMNS_VERSION = 2  # the newest that ingest.decode reads
HELLO_SECONDS = 10.0
KEEPALIVE_MS = 10_000  # with KEEPALIVE_TIMEOUT_MS: how long an agent behind a cut cable keeps its place
KEEPALIVE_TIMEOUT_MS = 5_000
_AgentKey = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What agents are told; 0 and () leave what they were started with."""

    drain_interval_ms: int = 0
    report_interval_ms: int = 0
    cidr_processes: tuple[str, ...] = ()

    def message(self) -> flowlink_pb2.ServerMessage:
        return flowlink_pb2.ServerMessage(
            settings=flowlink_pb2.Settings(
                drain_interval_ms=self.drain_interval_ms,
                report_interval_ms=self.report_interval_ms,
                cidr_processes=self.cidr_processes,
            )
        )


class IngestServer:
    """`start`, then `stop`; or `serve_ingest`, which does both. `clusters`: agents of no other are welcome; () takes
    all.
    """

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recording,
        authenticator: AgentAuthenticator,
        settings: AgentSettings | None = None,
        clusters: Collection[str] = (),
        limits: IngestLimits | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._cursors = Opening(store.sink)
        self._recorder = recorder
        self._authenticator = authenticator
        self._settings = settings or AgentSettings()
        self._settings_of: dict[str, AgentSettings] = {}  # by cluster, where they differ
        self._clusters = clusters
        self._limits = limits or IngestLimits()
        self._now_ms = now_ms
        self._sessions: dict[_AgentKey, Session] = {}
        self._opening: set[_AgentKey] = set()
        self._replaying: dict[_AgentKey, int] = {}  # until which number
        self._server: grpc.aio.Server | None = None

    async def start(self, listen: str, security: ListenerSecurity) -> int:
        """Listen on HOST:PORT; the port. Raises ConfigurationError."""
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", 4 << 20),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.max_concurrent_streams", 4),  # of one connection
            ]
        )
        handler: grpc.RpcMethodHandler[bytes, flowlink_pb2.ServerMessage] = grpc.stream_stream_rpc_method_handler(
            self._connect,
            request_deserializer=None,
            response_serializer=flowlink_pb2.ServerMessage.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Connect": handler}),))
        port = add_port(server, listen, security)
        await server.start()
        self._server = server
        return port

    async def stop(self, grace_seconds: float = 1.0) -> None:
        for session in list(self._sessions.values()):
            session.end(RefusedStreamError("stopping", "the aggregator stops", retry_after_ms=500))
        if self._server is not None:
            await self._server.stop(grace_seconds)

    def publish_settings(self, cluster: str, settings: AgentSettings) -> None:
        """Tell every agent of a cluster, now and when it comes."""
        self._settings_of[cluster] = settings
        for (its_cluster, _), session in self._sessions.items():
            if its_cluster == cluster:
                session.send(settings.message())

    async def follow_settings(
        self, cluster: str, ask: Callable[[], AgentSettings], *, every_seconds: float = 30.0
    ) -> None:
        """Ask again and again, until cancelled, and publish what has changed. `ask` may block: it runs in a thread."""
        while True:
            settings = await asyncio.to_thread(ask)
            if settings != self._settings_of.get(cluster, self._settings):
                self.publish_settings(cluster, settings)
            await asyncio.sleep(every_seconds)

    @property
    def connected_agents(self) -> list[tuple[str, str]]:
        """(cluster, agent) of every live stream."""
        return sorted(self._sessions)

    # ---- one stream -------------------------------------------------------------------------------------------------

    async def _connect(self, _requests: object, context: Context) -> None:
        reason = "closed"
        try:
            await self._converse(context)
        except RefusedStreamError as refused:
            reason = refused.label
            with contextlib.suppress(Exception):
                await context.write(
                    flowlink_pb2.ServerMessage(
                        go_away=flowlink_pb2.GoAway(
                            reason=str(refused), retry_after_ms=refused.retry_after_ms, kind=refused.kind
                        )
                    )
                )
        except asyncio.CancelledError:
            reason = "cancelled"
            raise
        except grpc.aio.UsageError:
            reason = "lost"  # written to after the agent had gone
        finally:
            INGEST_STREAM_ENDS.labels(reason).inc()

    async def _converse(self, context: Context) -> None:
        identity = await self._identify(context)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                data = await context.read()
        except TimeoutError as error:
            raise RefusedStreamError("no-hello", f"no Hello within {HELLO_SECONDS:.0f} s") from error
        if not isinstance(data, bytes):
            return
        try:
            hello = read_hello(data, identity)
            self._must_know(hello.cluster)
            agent = (hello.cluster, hello.agent_id)
            await self._make_way(agent, hello.instance)
        except RefusedStreamError as refused:
            INGEST_REFUSED_HELLOS.labels(refused.label).inc()
            raise
        self._opening.add(agent)
        try:
            session = await self._welcome(context, hello, agent)
        finally:
            self._opening.discard(agent)
        if session is None:
            return
        self._sessions[agent] = session
        INGEST_STREAMS.set(len(self._sessions))
        leaving = self._leave_before(identity.expires_at, session)
        try:
            await session.run()
        finally:
            if leaving is not None:
                leaving.cancel()
            if self._sessions.get(agent) is session:
                del self._sessions[agent]
                self._replaying.pop(agent, None)
            INGEST_STREAMS.set(len(self._sessions))

    async def _identify(self, context: Context) -> AgentIdentity:
        presented = Presented(
            peer=context.peer(),
            metadata={
                str(key).lower(): value for key, value in context.invocation_metadata() or () if isinstance(value, str)
            },
            certificate_names=_certificate_names(context.auth_context()),
        )
        identity = await self._authenticator.authenticate(presented)
        if identity is None:
            INGEST_REFUSED_HELLOS.labels("credential").inc()
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid credential was presented")
        return identity

    def _must_know(self, cluster: str) -> None:
        if self._clusters and cluster not in self._clusters:
            raise RefusedStreamError(
                "cluster",
                f"this aggregator knows no cluster {cluster}: set the agent's to one that it is configured for",
                retry_after_ms=60_000,
            )

    def _leave_before(self, expires_at: datetime | None, session: Session) -> asyncio.TimerHandle | None:
        """A credential is looked at when a stream opens: an agent comes back with its next one before this one ends."""
        if expires_at is None:
            return None
        now = datetime.fromtimestamp(self._now_ms() / 1000, UTC)
        reason = f"this credential ends at {expires_at:%Y-%m-%dT%H:%M:%SZ}: come back with the next one"
        leave = RefusedStreamError("credential-ends", reason, retry_after_ms=0)
        return asyncio.get_running_loop().call_later(stream_seconds(expires_at, now), session.end, leave)

    async def _make_way(self, agent: _AgentKey, instance: int) -> None:
        """One stream an agent. Its own earlier one gives way; another process's does not."""
        if agent in self._opening:
            raise RefusedStreamError("busy", "this agent is being welcomed on another stream", retry_after_ms=500)
        if agent not in self._sessions and len(self._sessions) >= self._limits.streams:
            raise RefusedStreamError("streams", f"{self._limits.streams} agents are connected", retry_after_ms=30_000)
        live = self._sessions.get(agent)
        if live is None:
            return
        if live.instance != instance:
            raise RefusedStreamError(
                "duplicate",
                f"another process speaks for node {agent[1]} of cluster {agent[0]}",
                retry_after_ms=5_000,
                kind=flowlink_pb2.GO_AWAY_KIND_FENCED,
            )
        live.end(RefusedStreamError("replaced", "this agent has opened another stream", retry_after_ms=0))
        del self._sessions[agent]

    async def _welcome(self, context: Context, hello: flowlink_pb2.Hello, agent: _AgentKey) -> Session | None:
        """Take the cursor, and say from where to go on; None when the agent has to queue."""
        key = CursorKey(cluster=hello.cluster, agent_id=hello.agent_id, epoch=hello.epoch)
        try:
            opened = await self._cursors.open(
                CursorOpening(
                    key=key,
                    instance=hello.instance,
                    lineage=tuple(hello.lineage),
                    first_seq=hello.first_seq,
                    now_ms=self._now_ms(),
                )
            )
        except StoreError as error:
            log.warning("cannot welcome %s: %s", hello.agent_id, error)
            raise RefusedStreamError("store", "the database is not available", retry_after_ms=1_000) from error
        if isinstance(opened, Cloned):
            INGEST_REFUSED_HELLOS.labels("cloned").inc()
            raise RefusedStreamError(
                "cloned",
                "this spool is a copy: another process has delivered from it",
                retry_after_ms=0,
                kind=flowlink_pb2.GO_AWAY_KIND_CLONED,
            )
        welcome = flowlink_pb2.Welcome(
            committed_seq=opened.committed_seq,
            window_batches=self._limits.window_batches,
            window_bytes=self._limits.window_bytes,
            max_batch_bytes=self._limits.max_batch_bytes,
            columns_version=COLUMNS_VERSION,
        )
        if hello.next_seq - 1 - opened.committed_seq > self._limits.replay_batches:
            if agent not in self._replaying and len(self._replaying) >= self._limits.replaying_agents:
                INGEST_REFUSED_HELLOS.labels("replay-queue").inc()
                welcome.retry_after_ms = random.randint(500, 2_000)  # noqa: S311 - no secret
                await context.write(flowlink_pb2.ServerMessage(welcome=welcome))
                return None
            self._replaying[agent] = hello.next_seq - 1
        session = Session(
            context=context,
            hello=hello,
            committed_seq=opened.committed_seq,
            recorder=self._recorder,
            limits=self._limits,
            now_ms=self._now_ms,
            save_report=self._store.save_report,
            on_progress=lambda seq: self._caught_up(agent, seq),
        )
        await context.write(flowlink_pb2.ServerMessage(welcome=welcome))
        session.send(self._settings_of.get(hello.cluster, self._settings).message())
        return session

    def _caught_up(self, agent: _AgentKey, seq: int) -> None:
        if seq >= self._replaying.get(agent, 1 << 63):
            del self._replaying[agent]


def _certificate_names(auth_context: Mapping[str, object]) -> tuple[str, ...]:
    names = auth_context.get("x509_subject_alternative_name", ())
    return tuple(
        name.decode("utf-8", errors="replace")
        for name in (names if isinstance(names, list | tuple) else ())
        if isinstance(name, bytes)
    )


@contextlib.asynccontextmanager
async def ingest_server(server: IngestServer, listen: str, security: ListenerSecurity) -> AsyncIterator[int]:
    """The server while the block runs; yields its port."""
    port = await server.start(listen, security)
    try:
        yield port
    finally:
        await server.stop()


async def serve_ingest(server: IngestServer, listen: str, security: ListenerSecurity) -> None:
    """Serve until cancelled."""
    async with ingest_server(server, listen, security) as port:
        log.info("agents deliver to port %d", port)
        await asyncio.get_running_loop().create_future()
