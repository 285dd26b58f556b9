"""An attached agent and a small network, one for all tests of a module."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.identity.cgroups import find_hierarchy
from tests.kernel.rig import BACKEND, Groups, Namespace, Network, Pod, Rig, open_rig

PodMaker = Callable[..., Pod]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pods")


@pytest.fixture(scope="module")
def config(logs: Path) -> AgentConfig:
    return AgentConfig(backend=BACKEND, pod_logs=logs)


@pytest.fixture(scope="module")
def rig(config: AgentConfig) -> Iterator[Rig]:
    rig = open_rig(config)
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def network(rig: Rig) -> Iterator[Network]:  # after `rig`: where that skips, nothing is made
    network = Network()
    yield network
    network.remove()


@pytest.fixture(scope="module")
def groups(config: AgentConfig) -> Iterator[Groups]:
    groups = Groups(find_hierarchy(config.cgroup_root, proc=config.proc_root))
    yield groups
    groups.remove_all()


@pytest.fixture(scope="module")
def make_pod(rig: Rig, groups: Groups, logs: Path) -> Iterator[PodMaker]:
    made: list[Pod] = []

    def make(name: str, namespace: Namespace | None, **kwargs: str) -> Pod:
        pod = Pod(name, number=len(made) + 1, namespace=namespace, groups=groups, logs=logs, **kwargs)
        made.append(pod)
        return pod

    yield make
    for pod in made:
        pod.remove()


@pytest.fixture(scope="module")
def client(make_pod: PodMaker, network: Network) -> Pod:
    return make_pod("client", network.client)


@pytest.fixture(scope="module")
def server(make_pod: PodMaker, network: Network) -> Pod:
    return make_pod("server", network.server)
