"""`make demo`, as a newcomer runs it: real pods, a real kernel, real traffic, the real aggregator."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.demo import ROOT, Shown, run_demo
from tests.plainuser import AS_NOBODY


def truth(scenario: str) -> list[dict[str, Any]]:
    return next(iter(yaml.safe_load_all((ROOT / "lab" / scenario).read_text())))["lab"]["truth"]


def seen(shown: Shown) -> set[tuple[str, str, str, int]]:
    """(from, to, protocol, port) of every established link, spelled like the scenario's truth."""

    def spelled(end: dict[str, Any]) -> str:
        if end["kind"] == "Address":
            return f"address/{end['address']['ip']}"
        return f"{end['namespace']}/{end['kind']}/{end['name']}"

    found = set()
    for row in shown.links:
        if row["established"]:
            ends = [spelled(row["workload"]), spelled(row["peer"])]
            source, target = ends if row["direction"] == "Egress" else reversed(ends)
            found.add((source, target, row["protocol"], row["port"]))
    return found


def expected(scenario: str, namespace: str) -> set[tuple[str, str, str, int]]:
    """The truth about one namespace."""
    return {
        (t["from"], t["to"], t.get("protocol", "TCP"), t["port"])
        for t in truth(scenario)
        if f"{namespace}/" in (t["from"][: len(namespace) + 1], t["to"][: len(namespace) + 1])
    }


def leftovers() -> list[str]:
    """Network namespaces, cgroups and state folders of the demo's labs."""
    return [
        str(found)
        for name in ("shop", "clinic")
        for folder, pattern in (
            ("/run/netns", f"wl-{name}.*"),
            ("/sys/fs/cgroup", f"wl-{name}"),
            ("/sys/fs/cgroup", f"*/wl-{name}"),
            ("/run/wattle-lab", name),
        )
        for found in Path(folder).glob(pattern)
    ]


# ---- the first scenario ---------------------------------------------------------------------------------------------


def test_the_demo_ends_well(shop: Shown) -> None:
    assert shop.code == 0, shop.text
    assert shop.certificate["holds"]
    assert shop.certificate["evaluators"] == ["compiled", "plain"]
    assert shop.certificate["disagreements"] == []


def test_every_link_of_the_truth_and_no_other(shop: Shown) -> None:
    assert seen(shop) == expected("shop.yaml", "example-java-app")


def test_the_same_policy_byte_for_byte(shop: Shown) -> None:
    assert run_demo("lab/shop.yaml").policy_yaml == shop.policy_yaml


def test_stores_are_peers_by_pod_selector_on_the_pods_ports(shop: Shown) -> None:
    egress = {
        (json.dumps(peer["podSelector"]["matchLabels"]), port["port"])
        for rule in shop.policy_of("javaapp")["spec"]["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
    }
    assert ('{"app": "redis"}', 6379) in egress
    assert ('{"app": "mongo"}', 27017) in egress
    assert "10.96." not in shop.policy_yaml
    assert "ipBlock" not in shop.policy_yaml


def test_the_outside_address_and_nothing_else_is_unresolved(shop: Shown) -> None:
    addresses = {row["peer"]["address"]["ip"] for row in shop.links if row["peer"]["address"]}
    assert addresses == {"203.0.113.10"}
    assert [row["peer"]["kind"] for row in shop.links if not row["proposal"]["included"]] == ["Address"]


def test_a_cron_job_whose_pods_are_gone_is_one_row(shop: Shown) -> None:
    rows = [r for r in shop.links if r["workload"]["name"] == "report" and r["port"] == 27017]
    assert [(r["workload"]["kind"], r["peer"]["name"]) for r in rows] == [("CronJob", "mongo")]


def test_replies_of_udp_servers_are_no_flows(shop: Shown) -> None:
    sources = {row["workload"]["name"] for row in shop.links if row["direction"] == "Egress"}
    assert not sources & {"statsd", "coredns"}


def test_nothing_is_left_behind(shop: Shown) -> None:
    assert shop.code == 0
    assert leftovers() == []


# ---- another scenario, to which nothing was tuned -------------------------------------------------------------------


def test_another_lab_gives_its_own_right_policy(clinic: Shown) -> None:
    assert clinic.code == 0, clinic.text
    assert seen(clinic) == expected("clinic.yaml", "clinic")
    assert clinic.certificate["holds"]


def test_a_caller_that_is_no_longer_run_loses_its_rule(shop: Shown) -> None:
    without = run_demo("lab/shop.yaml", "--without", "example-java-app/client")
    assert without.code == 0, without.text
    assert "wattle-client" in shop.policies
    assert "wattle-client" not in without.policies
    allowed = json.dumps(without.policy_of("javaapp")["spec"]["ingress"])
    assert '"client"' not in allowed
    assert "prometheus" in allowed


# ---- PITFALLS, by name: how such tools fail, and that this one does not ---------------------------------------------


def test_pitfall_1_direction_is_never_guessed_from_ports(clinic: Shown) -> None:
    """Every server of this lab listens above 1024, two of them in the ephemeral range's neighbourhood."""
    assert all(port > 1024 for *_, port in expected("clinic.yaml", "clinic"))
    assert seen(clinic) == expected("clinic.yaml", "clinic")


def test_pitfall_4_a_failed_attempt_is_not_learned(clinic: Shown) -> None:
    attempts = [row for row in clinic.links if not row["established"]]
    assert [(row["peer"]["name"], row["port"]) for row in attempts] == [("patientdb", 5433)]
    assert attempts[0]["failed_attempts"] > 0
    assert not attempts[0]["proposal"]["included"]
    assert "5433" not in clinic.policy_yaml


def test_pitfall_6_the_rule_has_the_target_port_not_the_service_port(shop: Shown) -> None:
    ports = {port["port"] for rule in shop.policy_of("javaapp")["spec"]["ingress"] for port in rule["ports"]}
    assert ports == {8080}
    via = {service for row in shop.links if row["peer"]["name"] == "javaapp" for service in row["services"]}
    assert via == {"example-java-app/javaapp:80"}


@pytest.mark.parametrize(("lab", "port"), [("shop", 53), ("clinic", 5353)])
def test_pitfall_11_dns_is_never_left_out(lab: str, port: int, request: pytest.FixtureRequest) -> None:
    shown = request.getfixturevalue(lab)
    for name, policy in shown.policies.items():
        if "Egress" in policy["spec"]["policyTypes"]:
            dns = [
                rule["ports"]
                for rule in policy["spec"]["egress"]
                if any(
                    peer.get("podSelector", {}).get("matchLabels", {}).get("k8s-app") == "kube-dns"
                    for peer in rule["to"]
                )
            ]
            assert dns == [[{"protocol": "TCP", "port": port}, {"protocol": "UDP", "port": port}]], name


@pytest.mark.parametrize("lab", ["shop", "clinic"])
def test_pitfall_19_no_empty_selector_and_no_empty_list(lab: str, request: pytest.FixtureRequest) -> None:
    def empties(value: Any, path: str) -> list[str]:
        if value in ({}, [], None):
            return [path]
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [found for key, child in children for found in empties(child, f"{path}.{key}")]

    policies = request.getfixturevalue(lab).policies
    assert policies
    assert [found for name, policy in policies.items() for found in empties(policy["spec"], name)] == []


def test_pitfall_20_silence_is_not_a_reason_to_block(shop: Shown) -> None:
    """Nobody called `client`, and `redis` called nobody: those directions stay open, and it is said so."""
    assert shop.policy_of("client")["spec"]["policyTypes"] == ["Egress"]
    assert shop.policy_of("redis")["spec"]["policyTypes"] == ["Ingress"]
    assert "example-java-app/Deployment/redis: egress is left open" in " ".join(shop.text.split())


def test_pitfall_36_the_protocol_is_part_of_a_link(shop: Shown) -> None:
    protocols = {r["protocol"] for r in shop.links if r["workload"]["name"] == "javaapp" and r["port"] == 53}
    assert protocols == {"TCP", "UDP"}


# ---- what can go wrong ----------------------------------------------------------------------------------------------


def test_another_server_on_the_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 8470)):
        shown = run_demo("lab/shop.yaml")
    assert shown.code == 2
    assert "another server listens on 127.0.0.1:8470" in " ".join(shown.text.split())
    assert leftovers() == []


def test_a_scenario_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("lab: {name: x}\n")
    shown = run_demo(str(broken))
    assert shown.code == 2
    assert "broken.yaml" in shown.text
    assert "Traceback" not in shown.text
    assert leftovers() == []


def test_without_root_the_way_out_is_named() -> None:
    ran = subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "lab.demo", "lab/shop.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/nonexistent:" + str(Path(sys.executable).parent), "HOME": "/nonexistent"},
    )
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "need root" in " ".join((ran.stdout + ran.stderr).split())
    assert leftovers() == []


def test_a_killed_demo_leaves_nothing() -> None:
    demo = subprocess.Popen([sys.executable, "-m", "lab.demo", "lab/shop.yaml"], cwd=ROOT, stdout=subprocess.DEVNULL)
    log = ROOT / "build" / "demo" / "agent.log"
    deadline = time.monotonic() + 90
    while not (log.exists() and "self-test passed" in log.read_text()):
        assert demo.poll() is None
        assert time.monotonic() < deadline, "the agent did not start"
        time.sleep(0.2)
    os.kill(demo.pid, signal.SIGKILL)
    demo.wait()
    while leftovers():
        assert time.monotonic() < deadline, leftovers()
        time.sleep(0.2)
    for port in (8470, 8471):
        with socket.create_server(("127.0.0.1", port)):
            pass
