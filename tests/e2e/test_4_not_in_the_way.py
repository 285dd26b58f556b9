"""Not in the way: the application neither needs Wattle nor notices it."""

from tests.e2e.kube.layout import FAMILIES
from tests.e2e.wattle import DATABASE, NAMESPACE
from tests.e2e.world import World

WATTLE = ("app.kubernetes.io/component=agent", "app.kubernetes.io/component=aggregator", f"app={DATABASE}")


def test_every_process_of_wattle_killed_in_mid_load(enforced: World) -> None:
    """No request fails, and the policies stay in force."""
    world = enforced
    rules = _pods_chains(world)
    with world.no_request_fails(30):
        for selector in WATTLE:
            world.kill(NAMESPACE, selector)
    assert _pods_chains(world) == rules
    world.wattle.wait_ready()


def _pods_chains(world: World) -> list[int]:
    nodes = world.cluster.nodes.values()
    return [node.rules(family).count("KUBE-POD-FW") for node in nodes for family in FAMILIES]
