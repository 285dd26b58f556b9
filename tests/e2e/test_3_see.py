"""See: what a policy blocks is shown as blocked by it, soon, with the smallest change that would let it through."""

import time
from typing import Any

import pytest
import yaml

from tests.cluster.controlplane import wait_until
from tests.e2e.kube.objects import pods
from tests.e2e.proof import Proof
from tests.e2e.world import World

SOON_SECONDS = 30
ATTEMPT = "import socket; socket.create_connection(('db.data', 5432), timeout=3)"


@pytest.fixture(scope="module")
def attempted(enforced: World, proof: Proof) -> dict[str, Any]:
    """web opens a connection to the database, which nothing ever did: the row that tells of it."""
    world = enforced
    assert world.admin.get("/apis/networking.k8s.io/v1/networkpolicies")["items"], "the policies are applied before"
    pod = pods(world.admin, "shop", "app=web")[0]
    started = time.monotonic()
    done = world.inside(pod, "/usr/bin/python3", "-c", ATTEMPT)
    assert done.returncode != 0, "the enforcer let it through"
    found: dict[str, Any] = wait_until(lambda: _row(world), "the attempt to be shown", SOON_SECONDS + 10)
    seconds = time.monotonic() - started
    proof.figure("seconds until a blocked attempt was shown as blocked", f"{seconds:.0f}")
    assert seconds < SOON_SECONDS
    return found


def _row(world: World) -> dict[str, Any] | None:
    rows = world.wattle.items("/workloads/shop/Deployment/web/links?direction=egress")
    return next((row for row in rows if row["port"] == 5432 and row["peer"]["name"] == "db"), None)


def test_a_blocked_attempt_is_shown_as_blocked_by_its_policy(attempted: dict[str, Any]) -> None:
    assert not attempted["established"]
    assert attempted["failed_attempts"] > 0
    assert attempted["applied"]["verdict"] == "denied"
    blocking = attempted["applied"]["egress"]["policies"] + attempted["applied"]["ingress"]["policies"]
    assert any("shop/" in policy for policy in blocking), attempted["applied"]
    assert not attempted["proposal"]["included"]


def test_the_smallest_change_would_let_it_through(world: World, attempted: dict[str, Any]) -> None:
    explained = world.wattle.get(f"/workloads/shop/Deployment/web/links/{attempted['id']}/explanation")
    assert {fix["direction"] for fix in explained["fixes"]} == {"Egress", "Ingress"}
    for fix in explained["fixes"]:
        rule = yaml.safe_load(fix["yaml"])
        assert "5432" in fix["yaml"], rule
