"""The view's history in a real database: written while manifests change, read by the next process."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import yaml

from aggregator.cluster.manifests import ManifestSource
from aggregator.model.resolution import NotYet, Resolved
from aggregator.store import migrate, open_store
from tests.unit.cluster import objects
from tests.unit.cluster.test_resolve import flow

MINUTE = timedelta(minutes=1)


def write(path: Path, *documents: object) -> None:
    aside = path.with_name(f".{path.name}")
    aside.write_text(yaml.safe_dump_all(documents))
    aside.rename(path)


async def until(condition: object) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - files change elsewhere
            await asyncio.sleep(0.01)


async def follow(source: ManifestSource, condition: object) -> None:
    running = asyncio.create_task(source.run())
    try:
        await until(condition)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_next_process_resolves_what_is_gone_by_then(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path}/w.db", tmp_path / "objects"
    folder.mkdir()
    started = (datetime.now(UTC) - 10 * MINUTE).isoformat()
    node = objects.node("node-1", "192.168.0.1", "10.244.0.0/16")
    asker = objects.pod("web-1-a", ip="10.244.1.5", started=started)
    owner = objects.owned_by("ReplicaSet", "api-1")
    gone = objects.pod("api-1-a", ip="10.244.2.6", owner=owner, started=started, labels={"app": "api"})
    write(folder / "node.yaml", node, objects.service_cidr(), asker)
    write(folder / "api.yaml", objects.replica_set("api-1", "api"), gone)
    migrate(url)
    store = open_store(url)
    try:
        first = ManifestSource(folder, cluster="c", store=store, poll_seconds=0.01)
        await follow(first, lambda: len(first.snapshot.pods) == 2)
    finally:
        store.close()

    (folder / "api.yaml").unlink()
    store = open_store(url)
    try:
        second = ManifestSource(folder, cluster="c", store=store, poll_seconds=0.01)
        await follow(second, lambda: second.view.confirmed > time.time() - 10 and second.snapshot.pods)
    finally:
        store.close()
    then = second.resolver.resolve(flow("10.244.2.6"), datetime.now(UTC) - 5 * MINUTE)
    assert isinstance(then, Resolved)
    assert (str(then.link.dst), then.dst_pod) == ("shop/Deployment/api", "shop/api-1-a")
    later = second.resolver.resolve(flow("10.244.2.6"), datetime.now(UTC) + 5 * MINUTE)
    assert isinstance(later, NotYet)
    assert ip_address("10.244.2.6") not in second.snapshot.pods_by_ip
    worn = {str(workload): second.view.labels.shared(workload) for workload in second.view.labels.worn}
    assert worn["shop/Deployment/api"] == {"app": "api"}
