"""An attached agent and a small network, one for all tests: attaching takes half a minute in an emulated guest."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.identity.cgroups import find_hierarchy
from tests.kernel.rig import BACKEND, Groups, Namespace, Network, Pod, Rig, open_rig

PodMaker = Callable[..., Pod]


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pods")


@pytest.fixture(scope="session")
def config(logs: Path) -> AgentConfig:
    return AgentConfig(backend=BACKEND, pod_logs=logs)


@pytest.fixture(scope="session")
def rig(config: AgentConfig) -> Iterator[Rig]:
    rig = open_rig(config)
    yield rig
    rig.close()


@pytest.fixture(scope="session")
def network(rig: Rig) -> Iterator[Network]:  # after `rig`: where that skips, nothing is made
    network = Network()
    yield network
    network.remove()


@pytest.fixture(scope="session")
def groups(config: AgentConfig) -> Iterator[Groups]:
    groups = Groups(find_hierarchy(config.cgroup_root, proc=config.proc_root))
    yield groups
    groups.remove_all()


@pytest.fixture(scope="session")
def make_pod(rig: Rig, groups: Groups, logs: Path) -> Iterator[PodMaker]:
    made: list[Pod] = []

    def make(name: str, namespace: Namespace | None, **kwargs: str) -> Pod:
        pod = Pod(name, number=len(made) + 1, namespace=namespace, groups=groups, logs=logs, **kwargs)
        made.append(pod)
        return pod

    yield make
    for pod in made:
        pod.remove()


@pytest.fixture(scope="session")
def client(make_pod: PodMaker, network: Network) -> Pod:
    return make_pod("client", network.client)


@pytest.fixture(scope="session")
def server(make_pod: PodMaker, network: Network) -> Pod:
    return make_pod("server", network.server)
