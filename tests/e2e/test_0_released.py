"""Released: the agents run with what the chart gives them on a real kubelet and containerd, and with no more."""

import pytest

from tests.e2e.kube.layout import NODES
from tests.e2e.kube.objects import pods
from tests.e2e.wattle import NAMESPACE
from tests.e2e.world import World, status_of

# capability.h: NET_ADMIN, SYS_PTRACE, PERFMON, BPF
FOUR_CAPABILITIES = 1 << 12 | 1 << 19 | 1 << 38 | 1 << 39
SECCOMP_MODE_FILTER = 2  # seccomp.h


@pytest.fixture(scope="module")
def statuses(world: World) -> list[dict[str, str]]:
    """/proc/PID/status of each agent."""
    found = pods(world.admin, NAMESPACE, "app.kubernetes.io/component=agent")
    assert {pod["spec"]["nodeName"] for pod in found} == {node.name for node in NODES}
    return [status_of(world.pid_of(pod)) for pod in found]


def test_an_agent_holds_four_capabilities_and_can_get_no_other(statuses: list[dict[str, str]]) -> None:
    for status in statuses:
        assert int(status["CapEff"], 16) == FOUR_CAPABILITIES
        assert int(status["CapBnd"], 16) == FOUR_CAPABILITIES
        assert status["NoNewPrivs"] == "1"


def test_an_agent_works_under_the_runtimes_seccomp_profile(statuses: list[dict[str, str]]) -> None:
    assert [int(status["Seccomp"]) for status in statuses] == [SECCOMP_MODE_FILTER] * len(statuses)
