"""The whole source against an HTTP server that speaks list and watch: what a machine without Kubernetes can show."""

import asyncio
import contextlib
import dataclasses
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from prometheus_client import REGISTRY

from aggregator import metrics
from aggregator.cluster.foreign import EXTRA_KINDS
from aggregator.cluster.kinds import DEFINITIONS, WATCHED
from aggregator.cluster.reflector import State, Timing
from aggregator.cluster.transport import ApiError, KubernetesApi
from aggregator.cluster.watch import KubernetesSource
from aggregator.errors import ClusterError
from tests.unit.cluster import objects

KINDS = {watched.path: watched.kind for watched in WATCHED}
QUICK = Timing(first_wait_seconds=0.05, longest_wait_seconds=0.2, absent_wait_seconds=0.2)


class FakeServer(ThreadingHTTPServer):
    """Lists what `tables` hold, streams what is put into `streams`; paths in `refused` get that status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.refused: dict[str, int] = {}
        self.streams: dict[str, queue.Queue[dict[str, Any] | None]] = {path: queue.Queue() for path in KINDS}
        self.tokens: set[str] = set()
        self.lists: list[str] = []
        self.closing = threading.Event()

    def tell(self, path: str, kind: str, raw: dict[str, Any]) -> None:
        raw["metadata"].setdefault("resourceVersion", "2")
        self.streams[path].put({"type": kind, "object": raw})


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if path in self.server.refused:
            self._say(self.server.refused[path], {"kind": "Status", "message": "you may not"})
        elif group := [{"name": known.rpartition("/")[2]} for known in KINDS if known.rpartition("/")[0] == path]:
            self._say(200, {"kind": "APIResourceList", "resources": group})
        elif path not in KINDS:
            self._say(404, {"message": "not found"})
        elif "watch" in query:
            self._stream(path)
        else:
            self.server.lists.append(path)
            items = self.server.tables.get(path, [])
            self._say(200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._say(201, {"status": {"said": body["spec"]}})

    def _say(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, path: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.closing.is_set():
                try:
                    event = self.server.streams[path].get(timeout=0.05)
                except queue.Empty:
                    continue
                if event is None:
                    break
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    found = FakeServer()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    found.closing.set()
    found.shutdown()
    found.server_close()
    thread.join(5)


def api(server: FakeServer) -> KubernetesApi:
    return KubernetesApi.from_kubeconfig(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "me"}}],
            "current-context": "c",
        }
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - threads change it
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def following(server: FakeServer, timing: Timing = QUICK) -> AsyncIterator[KubernetesSource]:
    source = KubernetesSource(api(server), cluster="c", timing=timing, settle_seconds=0.0)
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("watch-")])


async def test_what_is_listed_and_then_told_is_in_the_view(server: FakeServer) -> None:
    server.tables["/api/v1/pods"] = [objects.pod("one", ip="10.0.0.1")]
    async with following(server) as source:
        await until(lambda: source.ready and source.snapshot.pods)
        assert not source.stale
        server.tell("/api/v1/pods", "ADDED", objects.pod("two", ip="10.0.0.2"))
        await until(lambda: [p.name for p in source.snapshot.pods] == ["one", "two"])
        server.tell("/api/v1/pods", "DELETED", objects.pod("one", ip="10.0.0.1"))
        await until(lambda: [p.name for p in source.snapshot.pods] == ["two"])
        assert ip_address("10.0.0.2") in source.snapshot.pods_by_ip
        assert server.tokens == {"Bearer secret"}


async def test_a_watch_that_ends_goes_on_without_a_new_list(server: FakeServer) -> None:
    async with following(server) as source:
        await until(lambda: source.ready and source.reflectors["Pod"].state is State.WATCHING)
        server.streams["/api/v1/pods"].put(None)
        server.tell("/api/v1/pods", "ADDED", objects.pod("late", ip="10.0.0.3"))
        await until(lambda: source.snapshot.pods)
        assert server.lists.count("/api/v1/pods") == 1


async def test_gone_is_listed_anew(server: FakeServer) -> None:
    server.tables["/api/v1/pods"] = [objects.pod("one")]
    async with following(server) as source:
        await until(lambda: source.ready)
        server.tables["/api/v1/pods"] = [objects.pod("two")]
        server.tell("/api/v1/pods", "ERROR", {"code": 410, "message": "too old", "metadata": {}})
        await until(lambda: [p.name for p in source.snapshot.pods] == ["two"])


async def test_what_may_not_be_read_is_said(server: FakeServer) -> None:
    server.refused = {"/apis/batch/v1/cronjobs": 403, "/apis/cilium.io/v2/ciliumnetworkpolicies": 404}
    async with following(server) as source:
        await until(lambda: source.reflectors["CiliumNetworkPolicy"].state is State.NOT_SERVED)
        await until(lambda: [f.subject for f in source.findings if f.code == "kind-forbidden"] == ["c: CronJob"])
        assert source.ready, "it is not needed for an answer"
        server.refused = {}
        await until(lambda: source.reflectors["CiliumNetworkPolicy"].state is State.WATCHING)
        await until(lambda: not [f for f in source.findings if f.code == "kind-forbidden"])


async def test_looking_for_a_kind_that_is_not_served_is_no_gap(server: FakeServer) -> None:
    """Most clusters lack most plug-ins' kinds: verdicts there would never be old enough to be held against anybody."""
    absent = [watched for watched in WATCHED if watched.kind in EXTRA_KINDS]
    server.refused = {watched.path: 404 for watched in absent}
    async with following(server) as source:
        await until(lambda: all(r.state is not State.STARTING for r in source.reflectors.values()))
        since = source.view.standing.since(())
        looked = {watched.kind: lists_of(watched.kind) for watched in absent}
        await until(lambda: all(lists_of(kind) > times + 1 for kind, times in looked.items()))
        assert source.view.standing.since(()) == since


def lists_of(kind: str) -> float:
    return metrics.CLUSTER_WATCH_EVENTS.labels("c", kind, "list")._value.get()


async def test_policies_that_may_not_be_read_are_in_the_snapshot_as_what_may_say_anything(server: FakeServer) -> None:
    server.refused = {"/apis/cilium.io/v2/ciliumnetworkpolicies": 403}
    async with following(server) as source:
        await until(lambda: source.reflectors["CiliumNetworkPolicy"].state is State.FORBIDDEN)
        await until(lambda: [p.kind for p in source.snapshot.extra_policies] == ["CiliumNetworkPolicy"])  # type: ignore[attr-defined]
        server.refused = {}
        await until(lambda: not source.snapshot.extra_policies)


async def test_a_kind_that_is_served_no_longer_has_no_age(server: FakeServer) -> None:
    path = "/apis/cilium.io/v2/ciliumnetworkpolicies"

    def age() -> float | None:
        return REGISTRY.get_sample_value(
            "wattle_cluster_cache_age_seconds", {"cluster": "c", "kind": "CiliumNetworkPolicy"}
        )

    async with following(server) as source:
        await until(lambda: source.reflectors["CiliumNetworkPolicy"].state is State.WATCHING)
        await until(lambda: age() is not None)
        server.refused = {path: 404}
        server.tell(path, "ERROR", {"code": 410, "message": "too old", "metadata": {}})
        await until(lambda: source.reflectors["CiliumNetworkPolicy"].state is State.NOT_SERVED)
        await until(lambda: age() is None)


async def test_a_kind_whose_definition_comes_is_followed_at_once(server: FakeServer) -> None:
    path = "/apis/cilium.io/v2/ciliumnetworkpolicies"
    server.refused = {path: 404}
    patient = dataclasses.replace(QUICK, absent_wait_seconds=3600.0)
    async with following(server, timing=patient) as source:
        await until(lambda: source.reflectors["CiliumNetworkPolicy"].state is State.NOT_SERVED)
        server.refused = {}
        policy = {"metadata": {"name": "p", "namespace": "shop"}, "spec": {"endpointSelector": {}, "ingress": []}}
        server.tables[path] = [policy]
        server.tell(DEFINITIONS, "ADDED", {"metadata": {"name": "ciliumnetworkpolicies.cilium.io"}, "spec": {}})
        await until(lambda: [str(p) for p in source.snapshot.extra_policies] == ["CiliumNetworkPolicy/shop/p"])


async def test_without_a_kind_that_is_needed_the_view_is_not_ready(server: FakeServer) -> None:
    server.refused = {"/api/v1/nodes": 403}
    async with following(server) as source:
        await until(lambda: source.reflectors["Pod"].listed)
        assert not source.ready
        assert source.stale
        assert source.view.confirmed < 0


async def test_nonsense_is_left_out_and_said(server: FakeServer) -> None:
    async with following(server) as source:
        await until(lambda: source.ready)
        odd = {"metadata": {"namespace": "shop", "name": "odd", "uid": "u"}, "spec": "text"}
        server.tell("/api/v1/pods", "ADDED", odd)
        server.tell("/api/v1/pods", "ADDED", objects.pod("good"))
        await until(lambda: [p.name for p in source.snapshot.pods] == ["good"])
        assert [f.subject for f in source.findings if f.code == "object-unreadable"] == ["Pod shop/odd"]
        server.tell("/api/v1/pods", "MODIFIED", objects.pod("odd", uid="u"))
        await until(lambda: not [f for f in source.findings if f.code == "object-unreadable"])


def test_posts_and_errors_of_the_transport(server: FakeServer) -> None:
    client = api(server)
    assert client.post("/apis/x", {"spec": {"a": 1}}) == {"status": {"said": {"a": 1}}}
    with pytest.raises(ApiError, match="HTTP 404: not found") as caught:
        client.get("/nowhere")
    assert caught.value.status == 404
    client.close()
    with pytest.raises(ApiError, match="this connection was closed"):
        client.get("/apis/x")
    with pytest.raises(ClusterError, match="the kubeconfig cannot be used"):
        KubernetesApi.from_kubeconfig("clusters: []")
    with pytest.raises(ClusterError, match="no in-cluster credentials"):
        KubernetesApi.in_cluster()
