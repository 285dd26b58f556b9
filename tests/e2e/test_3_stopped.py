"""Stopped: without its enforcer a cluster only looks guarded. Both checks say so within a minute, and are silent before
and after: the passive one from what the application does, `wattle verify` by trying.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.controlplane import wait_until
from tests.e2e.kube.layout import FAMILIES
from tests.e2e.kube.objects import apply, pods
from tests.e2e.proof import Proof
from tests.e2e.wattle import NAMESPACE
from tests.e2e.world import World

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "deploy" / "rbac" / "verify.yaml"
WITHIN_SECONDS = 60
PAIRS = 12
ATTEMPT = "import socket; socket.create_connection(('db.data', 5432), timeout=3)"
DENIED = "shop/Deployment/web -> data/Deployment/db TCP/5432"


@pytest.fixture(scope="module")
def guarded(enforced: World) -> World:
    """The policies are in force, and somebody may verify them in shop, by the Role that is shipped."""
    world = enforced
    assert world.admin.get("/apis/networking.k8s.io/v1/networkpolicies")["items"], "the policies are applied before"
    rbac = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "tester", "namespace": "shop"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "wattle-verify"},
        "subjects": [{"kind": "ServiceAccount", "name": "tester", "namespace": "shop"}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tester", "namespace": "shop"}}
    role = yaml.safe_load(ROLE.read_text())
    role["metadata"]["namespace"] = "shop"
    apply(world.admin, [account, role, binding])
    return world


@pytest.fixture
def stopped(guarded: World) -> Iterator[World]:
    guarded.cluster.stop_enforcing()
    yield guarded
    guarded.cluster.enforce()


def not_enforced(world: World) -> dict[str, dict[str, Any]]:
    events = world.wattle.items("/events?kind=not-enforced&state=all")
    return {f"{e['src']} -> {e['dst']} {e['protocol']}/{e['port']}": e for e in events}


def judged_links(world: World, verdict: str) -> float:
    return world.wattle.metrics().get(f'wattle_enforcement_links{{cluster="e2e",verdict="{verdict}"}}', 0)


def by_their_services_addresses(world: World) -> list[str]:
    """Links whose server nobody could name although a Service's address tells."""
    ends = {edge.dst.partition("address/")[2] for edge in world.learned()} - {""}
    services = [ip_network(family.services) for family in FAMILIES]
    return sorted(end for end in ends for service in services if ip_address(end) in service)


def attempt(world: World) -> bool:
    """web opens a connection to the database, which it may not; whether it got one."""
    done = world.inside(pods(world.admin, "shop", "app=web")[0], "/usr/bin/python3", "-c", ATTEMPT)
    assert "gaierror" not in done.stderr, done.stderr
    return done.returncode == 0


def verified(world: World, folder: Path) -> list[dict[str, Any]]:
    """`wattle verify` as a person would run it: the pairs it tried. Its exit code says whether one differs."""
    token = {"spec": {"expirationSeconds": 3600}, "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    asked = world.admin.create("/api/v1/namespaces/shop/serviceaccounts/tester/token", token)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(world.cluster.pki.config({"token": asked["status"]["token"]})))
    aggregator = pods(world.admin, NAMESPACE, "app.kubernetes.io/component=aggregator")[0]
    image = aggregator["spec"]["containers"][0]["image"]
    command = [sys.executable, "-m", "aggregator.cli", "--kubeconfig", str(kubeconfig), "verify", "-n", "shop"]
    command += ["--limit", str(PAIRS), "--image", image, "-o", "json"]
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.stdout, done.stderr
    pairs: list[dict[str, Any]] = json.loads(done.stdout)["pairs"]
    assert len(pairs) == PAIRS
    assert {pair["expected"] for pair in pairs} == {"allowed", "denied"}
    assert all(pair["outcome"] for pair in pairs), "every pair was tried"
    assert done.returncode == int(any(not pair["agrees"] for pair in pairs)), done.stderr
    return pairs


def differing(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pair for pair in pairs if not pair["agrees"]]


def test_the_enforcer_is_recognised(guarded: World) -> None:
    [aggregator] = pods(guarded.admin, NAMESPACE, "app.kubernetes.io/component=aggregator")
    said = guarded.inside(aggregator, "wattle", "doctor").stdout
    [line] = [line for line in said.splitlines() if "network plug-in" in line]
    assert "kube-router" in line


def test_with_the_enforcer_running_both_are_silent(guarded: World, tmp_path: Path) -> None:
    """The passive check has judged what there is: every link, and among them one that the policies deny."""
    assert not attempt(guarded)
    assert differing(verified(guarded, tmp_path)) == []
    wait_until(lambda: judged_links(guarded, "allowed") and judged_links(guarded, "denied"), "a look at the links", 60)
    assert not_enforced(guarded) == {}


def test_what_a_trial_does_is_nobodys_link(guarded: World) -> None:
    found = {end for edge in guarded.learned() for end in (edge.src, edge.dst)}
    assert [end for end in found if "wattle-verify" in end] == []
    assert [p for p in pods(guarded.admin, "shop") if p["metadata"]["name"].startswith("wattle-verify")] == []


def test_with_the_enforcer_stopped_the_passive_check_says_so(stopped: World, proof: Proof) -> None:
    """By the one link that the policies deny; the application's own are none of it."""
    started = time.monotonic()
    assert attempt(stopped), "somebody still enforces"
    wait_until(lambda: not_enforced(stopped), "the passive check's word", WITHIN_SECONDS)
    seconds = time.monotonic() - started
    proof.figure("seconds until the passive check told of the stopped enforcer", f"{seconds:.0f}")
    found = not_enforced(stopped)
    assert set(found) == {DENIED}
    event = found[DENIED]
    assert event["cause"] == "no network plug-in that enforces policies was recognised in this cluster"
    assert event["explanation"]
    assert event["nodes"]
    assert seconds < WITHIN_SECONDS


def test_with_the_enforcer_stopped_verify_says_so(stopped: World, tmp_path: Path, proof: Proof) -> None:
    """Every pair that should be denied was open, no other differs."""
    started = time.monotonic()
    pairs = verified(stopped, tmp_path)
    seconds = time.monotonic() - started
    proof.figure("seconds until `wattle verify` told of the stopped enforcer", f"{seconds:.0f}")
    assert [pair for pair in pairs if pair["expected"] == "denied"] == differing(pairs)
    assert {pair["outcome"] for pair in pairs} == {"open"}
    assert seconds < WITHIN_SECONDS


def test_started_again_both_are_silent_again(guarded: World, tmp_path: Path) -> None:
    """Nothing that happens from then on is told of."""
    wait_until(lambda: not attempt(guarded), "the enforcer's rules", 60)
    since = datetime.now(tz=UTC)
    assert not attempt(guarded)
    assert differing(verified(guarded, tmp_path)) == []
    time.sleep(WITHIN_SECONDS)
    assert by_their_services_addresses(guarded) == [], "a trial's servers are nobody behind a Service"
    assert [link for link, e in not_enforced(guarded).items() if datetime.fromisoformat(e["last_seen"]) >= since] == []
