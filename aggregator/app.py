"""The composition root: database, cluster view, recorder, servers and background work, in one TaskGroup.

Enters: Settings. Leaves: a running aggregator, until it is cancelled or told to stop. Invariant: parts are wired here
and nowhere else; each is handed what it needs and looks nothing up.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import assert_never

import grpc.aio
import uvicorn
from fastapi import FastAPI

from aggregator.api.asking import Authenticator
from aggregator.api.query_door import add_queries
from aggregator.api.rest import Development, NobodyYet, create_api
from aggregator.cluster.dryrun import ServerSideDryRun
from aggregator.cluster.identify import TokenReviewAuthenticator
from aggregator.cluster.manifests import ManifestSource
from aggregator.cluster.source import ClusterSource
from aggregator.cluster.transport import KubernetesApi
from aggregator.cluster.watch import KubernetesSource
from aggregator.config import Settings
from aggregator.errors import ConfigurationError
from aggregator.ingest.authenticate import LoopbackPlaintext, MutualTLS, StaticToken
from aggregator.ingest.certificate import unix_end
from aggregator.ingest.listener import ListenerSecurity, PlaintextOnLoopback, ServerTls, add_port
from aggregator.ingest.server import AgentSettings, IngestServer, serve_ingest
from aggregator.metrics import TLS_CERTIFICATE_END
from aggregator.model.agent import AgentAuthenticator
from aggregator.services.authority.kubernetes import TokenReviews
from aggregator.services.following import Following
from aggregator.services.keeping.drifting import Drifting
from aggregator.services.keeping.keeper import Keeper
from aggregator.services.recording.pairs import PairCounting
from aggregator.services.recording.recorder import Recorder
from aggregator.services.recording.settling import Settler
from aggregator.services.review import Review, Sources
from aggregator.store import Store, migrate, open_store
from aggregator.store.decisions import DecisionLog
from aggregator.store.events import EventLog
from aggregator.store.installation import masking_key
from aggregator.store.overview import Overview
from aggregator.store.sightings import days_seen
from aggregator.store.sign_offs import SignOffs
from aggregator.web.site import add_web

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 5.0
"""How soon a decision about the cluster's ranges is seen in the view: a person waits for it."""


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigurationError or StoreError when it cannot start."""
    for name, listen in (("INGEST", settings.ingest_listen), ("QUERY", settings.query_listen)):
        with _listening(f"WATTLE_{name}_LISTEN", listen):
            pass  # gRPC binds for itself, but says less when it cannot
    with _listening("WATTLE_HTTP_LISTEN", settings.http_listen) as http_socket:
        await asyncio.to_thread(migrate, settings.database_url, wait_seconds=settings.database_wait_seconds)
        store = open_store(settings.database_url)
        try:
            await _run(settings, store, http_socket)
        finally:
            store.close()


async def _run(settings: Settings, store: Store, http_socket: socket.socket) -> None:
    source = _source(settings, store)
    if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
        TLS_CERTIFICATE_END.set_function(partial(unix_end, settings.tls_certificate_file, settings.tls_key_file))
    recorder = Recorder(
        sink=PairCounting(store.sink, most=settings.pair_series) if settings.pair_series else store.sink,
        resolver=source.resolver,
        known_addresses=store.external_addresses,
        grace=timedelta(seconds=settings.grace_seconds),
    )
    ingest = IngestServer(store=store, recorder=recorder, authenticator=_agent_authenticator(settings, source))
    decisions = DecisionLog(store.engine)
    following = Following(store, decisions, settings.cluster)
    events = EventLog(store.engine)
    drifting = Drifting(store, decisions, events, settings.cluster)
    keeper = Keeper(
        store=store,
        events=events,
        cluster=settings.cluster,
        leading={"drift": drifting.step},
        interval_seconds=settings.keeping_seconds,
    )
    review = _review(settings, store, source, decisions, drifting)
    callers = _callers(settings)
    web = _WebServer(
        add_web(create_api(review, callers, ready=lambda: "the cluster view is stale" if source.stale else ""))
    )
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(source.run(), name="cluster view"),
            tasks.create_task(recorder.run(), name="recorder"),
            tasks.create_task(Settler(store=store, resolver=source.resolver).run(), name="settler"),
            tasks.create_task(
                serve_ingest(
                    ingest,
                    settings.ingest_listen,
                    _security(settings, client_ca_file=settings.tls_client_ca_file),
                ),
                name="ingest",
            ),
            tasks.create_task(keeper.run(), name="keeping it right"),
            tasks.create_task(_serve_queries(settings, review, callers), name="queries"),
            tasks.create_task(
                source.discovery.follow(following.told, every_seconds=FOLLOW_SECONDS),
                name="cluster ranges",
            ),
            tasks.create_task(
                ingest.follow_settings(
                    lambda: AgentSettings(cidr_processes=following.process_names()),
                    every_seconds=FOLLOW_SECONDS,
                ),
                name="agents' settings",
            ),
        ]
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, web.stop)
        log.info("REST on http://%s/api/v1, agents deliver to %s", settings.http_listen, settings.ingest_listen)
        await web.serve(sockets=[http_socket])
        for task in background:
            task.cancel()


def _source(settings: Settings, store: Store) -> ClusterSource:
    match settings.source:
        case "manifests":
            if settings.manifests is None:
                raise ConfigurationError("WATTLE_SOURCE=manifests needs WATTLE_MANIFESTS")
            return ManifestSource(
                settings.manifests, cluster=settings.cluster, grace_seconds=settings.grace_seconds, store=store
            )
        case "kubernetes":
            api = _kubernetes_api(settings)
            return KubernetesSource(api, cluster=settings.cluster, grace_seconds=settings.grace_seconds, store=store)
        case other:
            assert_never(other)


def _kubernetes_api(settings: Settings) -> KubernetesApi:
    if settings.kubeconfig is not None:
        return KubernetesApi.from_kubeconfig(settings.kubeconfig)
    return KubernetesApi.in_cluster()


def _callers(settings: Settings) -> Authenticator:
    """Who is behind a token: Kubernetes says so, or everybody is the developer on loopback."""
    if settings.development:
        return Development()
    if settings.source == "kubernetes":
        return TokenReviews(_kubernetes_api(settings).post, time.monotonic)
    return NobodyYet()


def _review(
    settings: Settings,
    store: Store,
    source: ClusterSource,
    decisions: DecisionLog,
    drifting: Drifting,
) -> Review:
    return Review(
        Sources(
            store=store,
            view=source,
            decisions=decisions,
            sign_offs=SignOffs(store.engine),
            overview=Overview(store.engine),
            events=EventLog(store.engine),
            clock=lambda: datetime.now(tz=UTC),
            profile=settings.profile,
            masking_key=masking_key(store.engine),
            days_seen=lambda workload: days_seen(store.engine, workload),
            dry_run=ServerSideDryRun(_kubernetes_api(settings)) if settings.dry_run else None,
            drifting=drifting,
        )
    )


async def _serve_queries(settings: Settings, review: Review, callers: Authenticator) -> None:
    """The gRPC query API, until cancelled; secured as ingest is, but its callers show tokens, never certificates."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    await add_queries(server, review, callers)
    add_port(server, settings.query_listen, _security(settings, client_ca_file=None))
    await server.start()
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(1.0)


def _agent_authenticator(settings: Settings, source: ClusterSource) -> AgentAuthenticator:
    if settings.development:
        return LoopbackPlaintext()
    if settings.agent_service_account and isinstance(source, KubernetesSource):
        return TokenReviewAuthenticator(
            cluster=settings.cluster,
            post=_kubernetes_api(settings).post,
            service_account=settings.agent_service_account,
            node_of=source.view.node_of_pod,
        )
    if settings.agent_token_file is not None:
        return StaticToken(settings.agent_token_file)
    return MutualTLS()


def _security(settings: Settings, *, client_ca_file: Path | None) -> ListenerSecurity:
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return PlaintextOnLoopback()
    return ServerTls(
        certificate_file=settings.tls_certificate_file,
        key_file=settings.tls_key_file,
        client_ca_file=client_ca_file,
    )


@contextlib.contextmanager
def _listening(name: str, listen: str) -> Iterator[socket.socket]:
    """A bound socket, before anything else is started."""
    host, _, port = listen.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            f"cannot listen on {name}={listen}: {exc}; stop the other server, or choose another port"
        ) from exc
    with bound:
        yield bound


class _WebServer(uvicorn.Server):
    """uvicorn, without its own signal handlers: the composition root decides when to stop."""

    def __init__(self, api: FastAPI) -> None:
        super().__init__(uvicorn.Config(api, log_level="warning", access_log=False, timeout_graceful_shutdown=3))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True
