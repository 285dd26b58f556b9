"""Not in the way: the application neither needs Wattle nor notices it."""

import re

from tests.e2e.application import PARTS
from tests.e2e.kube.layout import FAMILIES
from tests.e2e.wattle import DATABASE, NAMESPACE
from tests.e2e.world import LASTING, World

WATTLE = ("app.kubernetes.io/component=agent", "app.kubernetes.io/component=aggregator", f"app={DATABASE}")


def test_every_process_of_wattle_killed_in_mid_load(enforced: World) -> None:
    """No request fails, and the policies stay in force."""
    world = enforced
    guarded = _guarded(world)
    assert guarded
    with world.no_request_fails(30):
        for selector in WATTLE:
            world.kill(NAMESPACE, selector)
    assert _guarded(world) == guarded
    world.wattle.wait_ready()


def _guarded(world: World) -> set[tuple[str, str, str]]:
    """(node, family, pod) as the enforcer's rules name them; but for pods that come and go by themselves."""
    return {
        (node.node.name, family.name, pod)
        for node in world.cluster.nodes.values()
        for family in FAMILIES
        for pod in re.findall(r"REJECT traffic destined for POD name:(\S+)", node.rules(family))
        if not any(pod.startswith(f"{part.name}-") for part in PARTS if part not in LASTING)
    }
