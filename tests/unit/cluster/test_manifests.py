"""The cluster view from a directory of manifests."""

import asyncio
import json
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml

from aggregator.cluster.manifests import ManifestSource
from aggregator.errors import ClusterError, InputError
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Resolved
from aggregator.model.workload import Workload
from tests.unit.cluster import objects


def write(path: Path, *documents: object) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(yaml.safe_dump_all(documents))
    aside.rename(path)


def to(remote: str, *, pod: str, port: int = 80) -> FlowIdentity:
    return FlowIdentity(
        cluster="c",
        node="node-1",
        pod_uid=f"uid-{pod}",
        remote_ip=ip_address(remote),
        port=port,
        protocol=Protocol.TCP,
        direction=Direction.EGRESS,
    )


def test_lists_documents_and_json_are_one_cluster(tmp_path: Path) -> None:
    write(
        tmp_path / "a.yaml",
        {"kind": "List", "items": [objects.pod("web", ip="10.0.0.1", labels={"app": "web"})]},
        None,
        {"kind": "PodList", "items": [{k: v for k, v in objects.pod("api", ip="10.0.0.2").items() if k != "kind"}]},
    )
    (tmp_path / "b.json").write_text(json.dumps(objects.service("web", ip="10.96.0.1", selector={"app": "web"})))
    source = ManifestSource(tmp_path, cluster="c")
    source.load()
    assert [str(p) for p in source.snapshot.pods] == ["shop/api", "shop/web"]
    assert [str(s) for s in source.snapshot.services] == ["shop/web"]


def test_a_service_without_slices_has_the_pods_that_it_selects(tmp_path: Path) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    write(
        tmp_path / "a.yaml",
        objects.pod("web", ip="10.0.0.1", labels={"app": "web"}, ports=[{"name": "web", "containerPort": 8080}]),
        objects.pod("cli", ip="10.0.0.2"),
        objects.service("web", ip="10.96.0.1", selector={"app": "web"}, ports=ports),
    )
    source = ManifestSource(tmp_path, cluster="c")
    source.load()
    answer = source.resolver.resolve(to("10.96.0.1", pod="cli"), datetime.now(UTC))
    assert isinstance(answer, Resolved)
    assert answer.link.port == 8080
    assert answer.link.dst == Workload(cluster="c", namespace="shop", kind="Pod", name="web")


def test_the_owner_of_a_pod_that_lived_two_seconds_is_known_after_it_ended(tmp_path: Path) -> None:
    write(
        tmp_path / "job.yaml",
        {"kind": "CronJob", "metadata": {"name": "nightly", "namespace": "shop"}, "spec": {"schedule": "@daily"}},
        {
            "kind": "Job",
            "metadata": {
                "name": "nightly-1",
                "namespace": "shop",
                "uid": "u1",
                "ownerReferences": objects.owned_by("CronJob", "nightly"),
            },
        },
        objects.pod(
            "nightly-1-x",
            ip="10.0.0.7",
            owner=objects.owned_by("Job", "nightly-1", "u1"),
            started="2026-01-01T00:00:10Z",
            finished="2026-01-01T00:00:12Z",
            phase="Succeeded",
        ),
        objects.pod("server", ip="10.0.0.8"),
    )
    source = ManifestSource(tmp_path, cluster="c")
    source.load()
    answer = source.resolver.resolve(to("10.0.0.8", pod="nightly-1-x"), datetime(2026, 1, 1, 0, 0, 20, tzinfo=UTC))
    assert isinstance(answer, Resolved)
    assert answer.link.src == Workload(cluster="c", namespace="shop", kind="CronJob", name="nightly")


async def until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def test_a_changed_directory_is_a_changed_cluster(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", objects.pod("one", ip="10.0.0.1"))
    source = ManifestSource(tmp_path, cluster="c", poll_seconds=0.01)
    running = asyncio.create_task(source.run())
    try:
        await until(lambda: len(source.snapshot.pods) == 1)
        generation = source.resolver.generation
        write(tmp_path / "b.yaml", objects.pod("two", ip="10.0.0.2"))
        await until(lambda: len(source.snapshot.pods) == 2)
        assert source.resolver.generation > generation
        (tmp_path / "a.yaml").unlink()
        await until(lambda: [p.name for p in source.snapshot.pods] == ["two"])
        late = source.resolver.resolve(to("10.0.0.1", pod="two"), datetime.now(UTC))
        assert isinstance(late, NotYet | Resolved)
        write(tmp_path / "b.yaml", objects.pod("two", ip="10.0.0.2", labels={"new": "label"}))
        await until(lambda: source.snapshot.pods[0].labels == (("new", "label"),))
        assert not source.stale
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_file_that_cannot_be_read_is_said_and_the_rest_stands(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", objects.pod("one", ip="10.0.0.1"))
    (tmp_path / "broken.yaml").write_text("kind: [")
    source = ManifestSource(tmp_path, cluster="c")
    with pytest.raises(InputError, match=r"broken\.yaml"):
        source.load()
    assert [p.name for p in source.snapshot.pods] == ["one"]
    assert [f.code for f in source.findings if f.subject.endswith("broken.yaml")] == ["manifest-unreadable"]


def test_nonsense_in_an_object_is_said_and_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", {"kind": "Pod", "metadata": {"name": "odd"}, "spec": "text"}, objects.pod("one"))
    source = ManifestSource(tmp_path, cluster="c")
    source.load()
    assert [p.name for p in source.snapshot.pods] == ["one"]
    assert "object-unreadable" in {f.code for f in source.findings}


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no manifests at"):
        ManifestSource(tmp_path / "nowhere").load()


def test_a_missing_owner_is_said_not_invented(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", objects.pod("one", ip="10.0.0.1", owner=objects.owned_by("ReplicaSet", "one-1")))
    source = ManifestSource(tmp_path, cluster="c")
    source.load()
    assert [f.way_out for f in source.findings if f.code == "owner-not-seen"] == [
        "add the ReplicaSet: kubectl get replicaset -n shop one-1 -o yaml"
    ]


def test_times_stay_strings_and_numbers_in_labels_are_text(tmp_path: Path) -> None:
    raw = "kind: Pod\nmetadata:\n  name: p\n  creationTimestamp: 2026-01-01T00:00:00Z\n  labels: {v: 1.10, on: yes}\n"
    (tmp_path / "a.yaml").write_text(raw)
    source = ManifestSource(tmp_path, cluster="c")
    source.load()
    assert source.view.pod_facts["default/p#1"].since == datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def test_pods_without_uid_may_come_back(tmp_path: Path) -> None:
    source = ManifestSource(tmp_path, cluster="c")
    bare = objects.pod("p", ip="10.0.0.1", started=None)
    del bare["metadata"]["uid"]
    write(tmp_path / "a.yaml", bare)
    source.load()
    (tmp_path / "a.yaml").unlink()
    source.load()
    assert source.snapshot.pods == ()
    write(tmp_path / "a.yaml", bare)
    source.load()
    assert [p.name for p in source.snapshot.pods] == ["p"]
