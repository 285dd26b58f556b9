"""The composition root: database, cluster view, recorder, servers and background work, in one TaskGroup.

Enters: Settings. Leaves: a running aggregator, until it is cancelled or told to stop. Invariant: parts are wired here
and nowhere else; each is handed what it needs and looks nothing up.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc.aio
import uvicorn
from fastapi import FastAPI

from aggregator.api.asking import Answering
from aggregator.api.query_door import add_queries
from aggregator.api.rest import create_api
from aggregator.assembly import agent_authenticator, assemble
from aggregator.cluster.clusters import Clusters
from aggregator.config import Settings
from aggregator.errors import ConfigurationError
from aggregator.ingest.certificate import unix_end
from aggregator.ingest.listener import ListenerSecurity, PlaintextOnLoopback, ServerTls, add_port
from aggregator.ingest.server import AgentSettings, IngestServer, serve_ingest
from aggregator.metrics import TLS_CERTIFICATE_END
from aggregator.services.following import Following
from aggregator.services.recording.openings import Openings
from aggregator.services.recording.pairs import PairCounting
from aggregator.services.recording.recorder import Recorder
from aggregator.services.recording.settling import Settler
from aggregator.store import Store, migrate, open_store
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
    openings = Openings()
    assembled = assemble(settings, store, openings)
    home = assembled[settings.cluster]
    others = {name: one.answering for name, one in assembled.items() if one is not home}
    clusters = Clusters(one.source for one in assembled.values())
    if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
        TLS_CERTIFICATE_END.set_function(partial(unix_end, settings.tls_certificate_file, settings.tls_key_file))
    recorder = Recorder(
        sink=PairCounting(store.sink, most=settings.pair_series) if settings.pair_series else store.sink,
        resolver=clusters.resolver,
        known_addresses=store.external_addresses,
        grace=timedelta(seconds=settings.grace_seconds),
        openings=openings,
    )
    authenticator = agent_authenticator(settings, assembled)
    ingest = IngestServer(store=store, recorder=recorder, authenticator=authenticator, clusters=tuple(clusters))
    api = create_api(
        home.answering.review,
        home.answering.authenticator,
        others=others,
        ready=lambda: "the cluster view is stale" if home.source.stale else "",
    )
    web = _WebServer(add_web(api))
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(clusters.run(), name="cluster views"),
            tasks.create_task(recorder.run(), name="recorder"),
            tasks.create_task(Settler(store=store, resolver=clusters.resolver).run(), name="settler"),
            tasks.create_task(
                serve_ingest(
                    ingest,
                    settings.ingest_listen,
                    _security(settings, client_ca_file=settings.tls_client_ca_file),
                ),
                name="ingest",
            ),
            tasks.create_task(_serve_queries(settings, home.answering, others), name="queries"),
        ]
        for name, one in assembled.items():
            background += [
                tasks.create_task(
                    one.source.discovery.follow(one.following.told, every_seconds=FOLLOW_SECONDS),
                    name=f"ranges of cluster {name}",
                ),
                tasks.create_task(
                    ingest.follow_settings(name, _agents_settings(one.following), every_seconds=FOLLOW_SECONDS),
                    name=f"settings of cluster {name}'s agents",
                ),
                tasks.create_task(one.keeper.run(), name=f"keeping cluster {name} right"),
            ]
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, web.stop)
        log.info("REST on http://%s/api/v1, agents deliver to %s", settings.http_listen, settings.ingest_listen)
        await web.serve(sockets=[http_socket])
        for task in background:
            task.cancel()


def _agents_settings(following: Following) -> Callable[[], AgentSettings]:
    return lambda: AgentSettings(cidr_processes=following.process_names())


async def _serve_queries(settings: Settings, home: Answering, others: Mapping[str, Answering]) -> None:
    """The gRPC query API, until cancelled; secured as ingest is, but its callers show tokens, never certificates."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    await add_queries(server, home.review, home.authenticator, others=others)
    add_port(server, settings.query_listen, _security(settings, client_ca_file=None))
    await server.start()
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(1.0)


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
