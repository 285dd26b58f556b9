"""Drift where it happens: real pods, the real agent and aggregator. A stranger is one event; noise is none."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import pytest

from lab.client import LabHandle, running
from lab.demo import OUTPUT, agent, aggregator_environment, check_ports, prepare_output
from lab.parts import ROOT, Part, as_owner, as_root, python
from lab.review import Review, ReviewError

API = "http://127.0.0.1:8470/api/v1"
REDIS = "/workloads/example-java-app/Deployment/redis"
NOISE = range(20_000, 21_000)
SERVE = """
import socket, sys
kept = []
for port in range(int(sys.argv[1]), int(sys.argv[2])):
    server = socket.socket(); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("", port)); server.listen(); kept.append(server)
print("ready", flush=True)
sys.stdin.read()
"""
CALL = """
import socket, sys
for port in range(int(sys.argv[2]), int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], port), 2):
            pass
    except OSError:
        pass
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    lab: LabHandle
    review: Review

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json", "If-Match": "*"}
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(API + path, method=method, headers=headers, data=data), timeout=20) as answer:
            return json.load(answer)

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/events?state=all")["items"]
        return found

    def pod(self, name: str) -> dict[str, Any]:
        return self.lab.pod(f"example-java-app/Deployment/{name}")

    def run(self, name: str, script: str, *arguments: object) -> None:
        done = self.lab.execute(_name(self.pod(name)), ["/usr/bin/python3", "-c", script, *map(str, arguments)])
        assert done.returncode == 0, done.stderr


def _name(pod: dict[str, Any]) -> str:
    return str(pod["pod"])


def until(condition: Callable[[], Any], what: str, deadline_seconds: float = 90.0) -> Any:
    end = time.monotonic() + deadline_seconds
    while True:
        with contextlib.suppress(ReviewError, OSError):
            if found := condition():
                return found
        assert time.monotonic() < end, f"never: {what}; see {OUTPUT}/*.log"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    check_ports()
    prepare_output()
    with running(ROOT / "lab" / "shop.yaml") as lab, contextlib.ExitStack() as stack:
        watcher = Part("agent", as_root(python("lab.tether", "--", *agent(lab))), log=OUTPUT / "agent.log")
        stack.callback(watcher.stop)
        environment = aggregator_environment(lab) | {"WATTLE_KEEPING_SECONDS": "1"}
        aggregator = Part(
            "aggregator",
            as_owner(python("lab.tether", "--", *python("aggregator"))),
            log=OUTPUT / "aggregator.log",
            environment=environment,
        )
        stack.callback(aggregator.stop)
        made = Stage(lab=lab, review=Review(API))
        until(made.review.agent_reports, "the agent's first batch")
        until(lambda: made.review.workload_links("example-java-app", "Deployment", "redis"), "a link of redis")
        rounds = {c["pod"]: c["rounds"] for c in lab.status()["clients"]}
        until(lambda: all(c["rounds"] >= rounds[c["pod"]] + 2 for c in lab.status()["clients"]), "two rounds")
        time.sleep(3)  # what the last round left on its way
        made.ask("PUT", f"{REDIS}/baseline", {"frozen": True, "reason": "known"})
        yield made


def test_a_thousand_links_of_others_and_attempts_raise_nothing(stage: Stage) -> None:
    command = python("lab", "exec", stage.lab.name, _name(stage.pod("mongo")), "--", "/usr/bin/python3", "-c", SERVE)
    with subprocess.Popen(
        as_root([*command, str(NOISE.start), str(NOISE.stop)]),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        stage.run("javaapp", CALL, stage.pod("mongo")["addresses"][0], NOISE.start, NOISE.stop)
        stage.run("client", CALL, stage.pod("redis")["addresses"][0], 7000, 7050)  # nobody listens there
        seen = stage.review
        until(
            lambda: len(seen.workload_links("example-java-app", "Deployment", "mongo")) >= len(NOISE),
            "a thousand links of mongo",
        )
        server.stdin.close()
    time.sleep(4)
    assert stage.events() == []


def test_a_stranger_is_one_event_with_process_and_pod_and_accepted_it_is_in_the_proposal(stage: Stage) -> None:
    assert '"client"' not in stage.ask("GET", f"{REDIS}/policy")["yaml"]
    for _ in range(3):
        stage.run("client", CALL, stage.pod("redis")["addresses"][0], 6379, 6380)
    (event,) = until(stage.events, "an event")
    until(lambda: stage.events()[0]["processes"] and stage.events()[0]["src_pods"], "its evidence")
    stage.run("client", CALL, stage.pod("redis")["addresses"][0], 6379, 6380)
    time.sleep(4)
    (event,) = stage.events()
    assert (event["kind"], event["src"], event["dst"], event["port"]) == (
        "new-link",
        "example-java-app/Deployment/client",
        "example-java-app/Deployment/redis",
        6379,
    )
    assert any("python3" in process for process in event["processes"])
    assert event["src_pods"] == [_name(stage.pod("client"))]
    assert event["dst_pods"] == [_name(stage.pod("redis"))]
    (answered,) = stage.ask("POST", "/events/answers", {"ids": [event["id"]], "answer": "accept", "reason": "a report"})
    assert answered["ended"] == "accepted"
    assert '"client"' in stage.ask("GET", f"{REDIS}/policy")["yaml"]
    time.sleep(3)
    assert [e["id"] for e in stage.events()] == [event["id"]]
