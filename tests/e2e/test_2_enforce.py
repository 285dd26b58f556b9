"""Enforce: what Wattle proposes, applied in the order it proposes, on a real enforcer; and nothing breaks.

The enforcer is kube-router (iptables, ipset). Where its verdict would differ from our evaluator's, that is a bug of one
of the two, or a property of it that is named here: none is known for these policies.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.model.verdict import Verdict
from tests.cluster.controlplane import wait_until
from tests.e2e.application import NAMESPACES, PARTS
from tests.e2e.kube.layout import FAMILIES
from tests.e2e.kube.objects import apply, collection
from tests.e2e.matrix import Tried, try_all
from tests.e2e.proof import Proof
from tests.e2e.world import LASTING, World

LOAD_SECONDS = 60
LOOK_SECONDS = 10  # every caller has called, and written it down
ONE_TIME = {"CronJob", "Job"}


@pytest.fixture(scope="module")
def proposals(world: World) -> dict[str, Any]:
    """By namespace, as anybody would fetch them, once a person has said who the partner outside is."""
    # The visitors come by a NodePort. kube-router, as other enforcers by iptables, judges before their address becomes
    # a node's: where web's pod is on the node that they call, it sees their own, which Wattle cannot, and says so.
    for family in FAMILIES:
        visitors = {"direction": "ingress", "cidr": f"{family.visitor}/{family.single}", "port": 8080}
        world.wattle.post("/workloads/shop/Deployment/web/decisions/cidrs", visitors, **{"If-Match": "*"})
    networks = [f"{family.outside}/{family.single}" for family in FAMILIES]
    alias = {"networks": networks, "allowed": True, "reason": "the partner's API"}
    world.wattle.put("/aliases/partner", alias, **{"If-Match": "*"})
    found = {name: world.wattle.get(f"/namespaces/{name}/policy") for name in NAMESPACES}
    for name, proposal in found.items():
        assert proposal["certificate"]["holds"], (name, proposal["certificate"], proposal["findings"])
    return found


@pytest.fixture(scope="module")
def applied(enforced: World, proposals: dict[str, Any]) -> dict[str, Any]:
    """In force on both nodes, applied step by step in the plan's order while the application talks."""
    world = enforced
    with world.no_request_fails(LOOK_SECONDS):
        for name in NAMESPACES:
            policies = {
                f"{name}/{policy['metadata']['name']}": policy for policy in yaml.safe_load_all(proposals[name]["yaml"])
            }
            for step in world.wattle.get(f"/namespaces/{name}/policy/plan")["steps"]:
                if step["action"] == "apply":
                    apply(world.admin, [policies[step["policy"]]])
                else:
                    world.admin.delete(f"{collection(policies[step['policy']])}/{step['policy'].partition('/')[2]}")
    wait_until(lambda: _in_force(world, proposals), "the enforcer's rules for every policy", 90)
    return proposals


def _in_force(world: World, proposals: dict[str, Any]) -> bool:
    """Each policy has a comment in the rules of a node that runs a pod of it, in each family: kube-router names
    policies there. A Job's pods come and go.
    """
    nodes = world.cluster.nodes.values()
    rules = ["".join(node.rules(family) for node in nodes) for family in FAMILIES]
    passing = {f"wattle-{part.name}" for part in PARTS if part.kind in ONE_TIME}
    wanted = {name.partition("/")[2] for proposal in proposals.values() for name in proposal["policies"]} - passing
    return all(f"nw policy {policy}" in found for policy in wanted for found in rules)


def test_every_namespace_is_proposed_for_and_proved(proposals: dict[str, Any]) -> None:
    for name, proposal in proposals.items():
        assert proposal["policies"], name
        assert proposal["certificate"]["evaluators"] == ["compiled", "plain"]
        for head in ("10.96.", "fd00:10:96:"):
            assert head not in proposal["yaml"], "a Service's address is no peer"


def test_the_application_keeps_working_for_a_minute(world: World, applied: dict[str, Any], proof: Proof) -> None:
    before = world.settled()
    time.sleep(LOAD_SECONDS)
    assert world.failures(before) == []
    after = world.ledger()
    requests = sum(now.ok - before[who][to].ok for who, calls in after.items() for to, now in calls.items())
    proof.figure("requests in 60 s under the policies, none failed", requests)


def test_it_keeps_working_after_a_restart_of_every_pod(world: World, applied: dict[str, Any], proof: Proof) -> None:
    """New connections, new addresses, new pods."""
    for part in LASTING:
        path = f"/apis/apps/v1/namespaces/{part.namespace}/{part.kind.lower()}s/{part.name}"
        stamp = {"kubectl.kubernetes.io/restartedAt": str(time.time())}
        world.admin.patch(path, {"spec": {"template": {"metadata": {"annotations": stamp}}}})
    world.wait_running()
    with world.no_request_fails(LOAD_SECONDS):
        pass
    proof.figure("seconds of load after a restart of every pod, no request failed", LOAD_SECONDS)


def test_the_matrix(world: World, applied: dict[str, Any], tmp_path: Path, proof: Proof) -> None:
    """The enforcer refuses every pair outside the graph, lets every pair of it through, and says what we say: in each
    family.
    """
    found = try_all(world, tmp_path)
    proof.matrix(found)
    assert len(found) > 300
    let_through = [(family, t) for t in found for family, passed in t.enforced.items() if passed]
    refused = [(family, t) for t in found for family, passed in t.enforced.items() if not passed]
    assert _pairs(let_through, lambda t: not t.in_graph) == [], "let through, not in the graph"
    assert _pairs(refused, lambda t: t.in_graph) == [], "in the graph, refused"
    assert _pairs(let_through, lambda t: t.evaluated is not Verdict.ALLOWED) == [], "let through, not allowed by us"
    assert _pairs(refused, lambda t: t.evaluated is Verdict.ALLOWED) == [], "allowed by us, refused"


def _pairs(found: list[tuple[str, Tried]], wrong: Callable[[Tried], bool]) -> list[str]:
    return sorted(
        f"{tried.pair} over {family}: {tried.evaluated.value} by us" for family, tried in found if wrong(tried)
    )
