"""The aggregator as a process: what it says when it cannot start, that it serves, follows decisions, and stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import create_engine, inspect

from tests.demo import ROOT
from wattle.v1 import query_pb2, query_pb2_grpc

NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-1"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WATTLE_")}
    given = {
        "DEVELOPMENT": "true",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'wattle.db'}",
        "MANIFESTS": str(tmp_path / "objects"),
        "HTTP_LISTEN": f"127.0.0.1:{free_port()}",
        "INGEST_LISTEN": f"127.0.0.1:{free_port()}",
        "QUERY_LISTEN": f"127.0.0.1:{free_port()}",
        **settings,
    }
    return {**kept, **{f"WATTLE_{name}": value for name, value in given.items()}}


def start(env: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "aggregator"], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def refused(env: dict[str, str]) -> str:
    process = start(env)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "Traceback" not in said
    return said


@contextmanager
def running(env: dict[str, str]) -> Iterator[str]:
    process = start(env)
    address = f"http://{env['WATTLE_HTTP_LISTEN']}"
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                with urlopen(f"{address}/readyz", timeout=5):
                    break
            except (URLError, OSError):
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline, "the aggregator did not become ready"
                time.sleep(0.1)
        yield address
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert "Traceback" not in said, said
    finally:
        process.kill()
        process.communicate()


def ask(url: str, *, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = Request(url, method=method, data=data, headers={"Content-Type": "application/json", **(headers or {})})
    with urlopen(request, timeout=10) as response:
        return json.load(response)


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    folder = tmp_path / "objects"
    folder.mkdir()
    (folder / "node.json").write_text(json.dumps(NODE))
    return folder


def test_it_serves_and_stops_when_told(tmp_path: Path, objects: Path) -> None:
    del objects
    with running(environment(tmp_path)) as address:
        status = ask(f"{address}/api/v1/status")
        assert (status["cluster"], status["agents"], status["development"]) == ("default", 0, True)
        assert ask(f"{address}/api/v1/openapi.json")["openapi"].startswith("3.1")


def test_the_query_api_is_served_with_health_and_reflection(tmp_path: Path, objects: Path) -> None:
    del objects
    env = environment(tmp_path)
    with running(env), grpc.insecure_channel(env["WATTLE_QUERY_LISTEN"]) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        found = query_pb2_grpc.QueryStub(channel).ListNamespaces(query_pb2.ListNamespacesRequest(), timeout=20)
        assert list(found.items) == []


def test_ranges_that_a_person_sets_reach_the_view(tmp_path: Path, objects: Path) -> None:
    del objects
    with running(environment(tmp_path)) as address:
        assert "cluster-subnets-incomplete" in {f["code"] for f in ask(f"{address}/api/v1/status")["findings"]}
        with urlopen(f"{address}/api/v1/settings", timeout=10) as response:
            etag = response.headers["ETag"]
        cidrs = {"pod_cidrs": ["10.244.0.0/16"], "service_cidrs": ["10.96.0.0/16"], "node_cidrs": ["192.0.2.0/24"]}
        ask(f"{address}/api/v1/settings/cidrs", method="PUT", body=cidrs, headers={"If-Match": etag})
        deadline = time.monotonic() + 60
        while "cluster-subnets-incomplete" in {f["code"] for f in ask(f"{address}/api/v1/status")["findings"]}:
            assert time.monotonic() < deadline, "the ranges did not reach the view"
            time.sleep(0.2)


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    env = environment(tmp_path, CLUSTER="Not A Name", GRACE_SECONDS="soon")
    said = refused(env)
    assert "WATTLE_CLUSTER" in said
    assert "WATTLE_GRACE_SECONDS" in said


def test_development_mode_stays_on_loopback(tmp_path: Path) -> None:
    said = refused(environment(tmp_path, HTTP_LISTEN="0.0.0.0:8470"))
    assert "WATTLE_HTTP_LISTEN=0.0.0.0:8470 must be a loopback address" in said


def test_without_development_mode_tls_is_asked_for(tmp_path: Path) -> None:
    assert "WATTLE_TLS_CERTIFICATE_FILE" in refused(environment(tmp_path, DEVELOPMENT="false"))


def test_another_driver_is_refused_with_a_sentence(tmp_path: Path) -> None:
    said = refused(environment(tmp_path, DATABASE_URL="mysql://nowhere/wattle"))
    assert "postgresql+psycopg" in said


def test_what_cannot_be_a_further_cluster_is_named(tmp_path: Path, objects: Path) -> None:
    del objects
    kubeconfigs = tmp_path / "kubeconfigs"
    assert "is no directory" in refused(environment(tmp_path, KUBECONFIGS=str(kubeconfigs)))
    kubeconfigs.mkdir()
    (kubeconfigs / "..data").mkdir()  # as the kubelet mounts a Secret
    refusals = {"West_1": "'West_1' is no name", "west": "west: the kubeconfig cannot be used", "default": "twice"}
    for name, words in refusals.items():
        path = kubeconfigs / name
        path.write_text("clusters: []\n")
        assert words in refused(environment(tmp_path, KUBECONFIGS=str(kubeconfigs)))
        path.unlink()


def test_a_port_that_is_taken_is_named(tmp_path: Path, objects: Path) -> None:
    del objects
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        for name in ("HTTP_LISTEN", "INGEST_LISTEN", "QUERY_LISTEN"):
            assert f"cannot listen on WATTLE_{name}={listen}" in refused(environment(tmp_path, **{name: listen}))


def ended(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "aggregator", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


def test_health_says_whether_it_is_ready(tmp_path: Path, objects: Path) -> None:
    del objects
    env = environment(tmp_path)
    away = ended(env, "--health")
    assert away.returncode == 5
    assert f"no aggregator answers on {env['WATTLE_HTTP_LISTEN']}" in away.stdout
    with running(env):
        there = ended(env, "--health")
    assert (there.returncode, there.stdout, there.stderr) == (0, "ready\n", "")


def test_a_migration_needs_the_database_and_nothing_else(postgres_url: str) -> None:
    env = {"PATH": os.environ["PATH"], "WATTLE_DATABASE_URL": postgres_url}
    for _ in range(2):  # a second one finds nothing to do
        done = ended(env, "--migrate")
        assert done.returncode == 0, done.stderr
    engine = create_engine(postgres_url)
    assert "link" in inspect(engine).get_table_names()
    engine.dispose()


def test_a_database_that_is_away_is_said_or_waited_for(tmp_path: Path) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "WATTLE_DATABASE_URL": f"postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/d",
    }
    done = ended(env, "--migrate")
    assert done.returncode == 1
    assert "wattle-aggregator: the database is not available" in done.stderr
    assert "secret" not in done.stderr
    waited = ended(env | {"WATTLE_DATABASE_WAIT_SECONDS": "1.5"}, "--migrate")
    assert waited.returncode == 1
    assert waited.stderr.count("trying again") >= 1
