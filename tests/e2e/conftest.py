"""The cluster, the application on it and Wattle beside it: brought up once, shared by the tier, gone at its end."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kubebinaries import NODE_PROGRAMS, PROGRAMS, NotToBeHad, binaries, enforcer
from tests.e2e.application import PARTS
from tests.e2e.kube.cluster import Cluster
from tests.e2e.kube.images import application_images, wattle_images
from tests.e2e.kube.machine import left
from tests.e2e.proof import Proof
from tests.e2e.world import World

NEEDED = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "etcd": "etcd-server",
    "ipset": "ipset",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "nft": "nftables",
    "openssl": "openssl",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Whatever cannot be had is built or fetched before the cluster takes this process's network away."""
    assert os.geteuid() == 0, "this tier runs as root: `make test-e2e` does that"
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if missing:
        pytest.skip(f"not installed: apt-get install {' '.join(missing)}")
    try:
        programs = binaries(PROGRAMS + NODE_PROGRAMS)
        made = Cluster(programs=programs, images=[application_images(), *wattle_images()])
    except NotToBeHad as reason:
        pytest.skip(f"not to be had: {reason}")
    try:
        made.enforcer = enforcer()
    except NotToBeHad as reason:
        made.without_enforcer = str(reason)
    made.reserve()
    try:
        made.up()
        yield made
    finally:
        made.down()
        assert left() == [], "the cluster left something"


@pytest.fixture(scope="session")
def enforced(world: World) -> World:
    """With policies in force: what is about them can be seen only where there is an enforcer."""
    if world.cluster.enforcer is None:
        pytest.skip(f"no enforcer of NetworkPolicies: {world.cluster.without_enforcer}")
    return world


@pytest.fixture(scope="session")
def proof(request: pytest.FixtureRequest) -> Iterator[Proof]:
    """The page, written when everything that is asserted on it passed, and nothing was left out of the run."""
    made = Proof()
    yield made
    session = request.session
    if (
        session.testsfailed == 0
        and request.config.getoption("keyword") == ""
        and request.config.getoption("file_or_dir") == ["tests/e2e"]
    ):
        made.write(workloads=len(PARTS))


@pytest.fixture(scope="session")
def world(cluster: Cluster) -> World:
    """The application talks and Wattle watches."""
    made = World(cluster)
    made.up()
    return made
