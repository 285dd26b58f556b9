"""Learn: the baseline is the application's real graph, and stays it through what happens in clusters."""

import time
from ipaddress import ip_address
from typing import Any

from tests.cluster.controlplane import wait_until
from tests.e2e.application import Part, graph
from tests.e2e.kube.layout import FAMILIES
from tests.e2e.kube.objects import apply, is_ready, pods
from tests.e2e.manifests import objects
from tests.e2e.world import LASTING, World


def learned_is_the_graph(world: World, seconds: float = 150) -> None:
    """Every link, no other, with the processes of its ends; an error says which."""
    wanted = graph()
    deadline = time.monotonic() + seconds
    while (found := world.learned()).keys() != wanted.keys() and time.monotonic() < deadline:
        time.sleep(3)
    assert sorted(map(str, wanted.keys() - found.keys())) == [], "never seen"
    others = found.keys() - wanted.keys()
    assert sorted(map(str, others)) == [], f"not in the graph: {world.told_of(others)}"
    # A server's process is known only where it was seen to listen or to read; a client's always.
    strangers = {
        str(edge): found[edge]
        for edge, ends in wanted.items()
        if not {ends.client} - {""} <= found[edge] <= {ends.client, ends.server}
    }
    assert strangers == {}


def test_every_link_of_the_real_graph_and_no_other(world: World) -> None:
    learned_is_the_graph(world)


def test_nobody_is_unresolved_but_the_partner_outside(world: World) -> None:
    """Of those that were reached: who was refused while a Service had nobody behind it was refused by nobody."""
    reached = [row for row in world.rows() if row["established"]]
    addresses = {row["peer"]["address"]["ip"] for row in reached if row["peer"]["address"]}
    assert addresses == {family.outside for family in FAMILIES}


def test_each_flow_is_counted_once_though_both_nodes_share_a_kernel(world: World) -> None:
    """Both agents' probes see every connection; each takes its own node's ends alone: the counts are exact."""
    counted, written = world.at_rest()
    time.sleep(20)
    counted_then, written_then = world.at_rest()
    assert counted_then - counted == written_then - written
    assert all(number > 0 for number in (written_then - written).values())


def test_a_reused_address_changes_nothing(world: World) -> None:
    """cart, rates and scraper are deleted together, each time in another order, and the pods that come, in that order,
    get the lowest addresses that are free: of each family.
    """
    victims = [part for part in LASTING if part.name in {"cart", "rates", "scraper"}]
    owners: dict[str, str] = {}
    wanted = {family.version for family in FAMILIES}
    reused: set[int] = set()
    for turn in range(6):
        victims = victims[1:] + victims[:1]
        for node in world.cluster.nodes.values():
            for last in (node.own("/var/lib/cni") / "networks" / "pods").glob("last_reserved_ip.*"):
                last.unlink()  # CNI's host-local would go on from there, round the whole range
        gone: set[str] = set()
        for part in victims:
            for pod in pods(world.admin, part.namespace, f"app={part.name}"):
                owners |= dict.fromkeys(_addresses(pod), part.name)
                gone.add(pod["metadata"]["uid"])
                world.admin.delete(f"/api/v1/namespaces/{part.namespace}/pods/{pod['metadata']['name']}", now=True)
        # Those that come are not deleted before their addresses are known to anybody.
        for part in victims:
            wait_until(lambda part=part, gone=gone: _replaced(world, part, gone), f"another {part.key}", 120)
        now = {address: part.name for part in victims for pod in _live(world, part) for address in _addresses(pod)}
        reused |= {ip_address(address).version for address, name in now.items() if owners.get(address, name) != name}
        if reused == wanted and turn >= 2:
            break
    assert reused == wanted, "no address went from one workload to another"
    time.sleep(15)
    learned_is_the_graph(world, 60)


def _replaced(world: World, part: Part, gone: set[str]) -> bool:
    live = _live(world, part)
    return sum(map(is_ready, live)) == part.replicas and not gone & {pod["metadata"]["uid"] for pod in live}


def _addresses(pod: dict[str, Any]) -> list[str]:
    return [each["ip"] for each in pod["status"].get("podIPs", [])]


def _live(world: World, part: Part) -> list[dict[str, Any]]:
    found = pods(world.admin, part.namespace, f"app={part.name}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def test_a_rolling_update_with_new_labels_changes_nothing(world: World) -> None:
    apply(world.admin, [manifest for manifest in objects(version="2") if manifest["kind"] not in {"Job", "Namespace"}])
    world.wait_running()
    for part in LASTING:
        assert {pod["metadata"]["labels"]["version"] for pod in _live(world, part)} == {"2"}, part.key
    time.sleep(15)
    learned_is_the_graph(world, 60)
