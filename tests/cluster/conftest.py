"""One control plane for the tier, and a view that runs under the rights that are granted, no more."""

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.cluster.reflector import Timing
from aggregator.cluster.transport import KubernetesApi
from aggregator.cluster.watch import KubernetesSource
from tests.cluster.controlplane import Admin, ApiRefusal, ControlPlane, random_name, wait_until
from tests.cluster.kubebinaries import NotToBeHad, binaries
from tests.cluster.release import chart, helm, place

__all__ = ["chart", "helm", "place"]  # fixtures

RBAC = Path(__file__).parents[2] / "deploy" / "rbac" / "aggregator.yaml"
QUICK = Timing(first_wait_seconds=0.1, longest_wait_seconds=2.0, absent_wait_seconds=5.0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building Kubernetes takes minutes when nothing is cached, ten thousand pods take some, too."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    must_be_had()
    with a_cluster(tmp_path_factory.mktemp("plane")) as found:
        yield found


def must_be_had() -> None:
    """Skip with the reason where the programs cannot be had here."""
    for program in ("etcd", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install etcd-server openssl")
    try:
        binaries()
    except NotToBeHad as reason:
        pytest.skip(f"no Kubernetes: {reason}")


@contextlib.contextmanager
def a_cluster(folder: Path) -> Iterator[ControlPlane]:
    """A control plane with two nodes, and the aggregator's ServiceAccount with the rights that are granted."""
    found = ControlPlane(folder)
    try:
        found.start()
        found.admin.create("/api/v1/namespaces", {"metadata": {"name": "wattle"}})
        account = {"metadata": {"name": "wattle-aggregator"}}
        found.admin.create("/api/v1/namespaces/wattle/serviceaccounts", account)
        found.admin.apply_file(RBAC)
        for number in (1, 2):
            node = {
                "metadata": {"name": f"node-{number}"},
                "spec": {"podCIDRs": [f"10.244.{number}.0/24"], "podCIDR": f"10.244.{number}.0/24"},
            }
            found.admin.create("/api/v1/nodes", node)
            address = {"type": "InternalIP", "address": f"192.0.2.{number}"}
            found.admin.patch(f"/api/v1/nodes/node-{number}/status", {"status": {"addresses": [address]}})
        yield found
    finally:
        found.stop()


@pytest.fixture
def admin(plane: ControlPlane) -> Admin:
    return plane.admin


@pytest.fixture
def namespace(admin: Admin) -> Iterator[str]:
    name = random_name("shop")
    create_namespace(admin, name)
    yield name
    with contextlib.suppress(Exception):
        admin.delete(f"/api/v1/namespaces/{name}")


def create_namespace(admin: Admin, name: str) -> None:
    """With the ServiceAccount without which it takes no pods: the controller manager may still be catching up."""
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    with contextlib.suppress(ApiRefusal):  # it was quicker
        admin.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})


def watches() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("watch-")}


@contextlib.contextmanager
def running(source: KubernetesSource) -> Iterator[KubernetesSource]:
    """`source.run()` on an event loop of its own."""
    before = watches()
    loop = asyncio.new_event_loop()
    task = loop.create_task(source.run())

    def body() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(20)
        alive = thread.is_alive()
        loop.close()
        assert not alive, "the source did not stop"
        wait_until(lambda: not watches() - before, "every watch to stop", 120)


Follow = Callable[..., contextlib.AbstractContextManager[KubernetesSource]]


@pytest.fixture
def follow(plane: ControlPlane) -> Follow:
    """A view of the cluster, as the aggregator's ServiceAccount. `url`: by way of a relay."""

    @contextlib.contextmanager
    def make(*, url: str = "", timing: Timing = QUICK, **more: Any) -> Iterator[KubernetesSource]:
        token = plane.token("wattle", "wattle-aggregator", expirationSeconds=3600)
        api = KubernetesApi.from_kubeconfig(plane.kubeconfig({"token": token}, url=url))
        with running(KubernetesSource(api, cluster="c", timing=timing, **more)) as source:
            wait_until(lambda: source.ready, "the first lists", 60)
            yield source

    return make
