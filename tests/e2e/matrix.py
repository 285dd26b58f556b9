"""The full matrix: every pod to every declared port of every pod, and the ports beside it; tried, and judged.

Enters: the running application. Leaves: for each pair what the enforcer did, in each family, what our evaluator says,
and whether the real graph has it. A port where nobody listens is given a listener first, so that a refusal is the
enforcer's alone.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import yaml

from aggregator.model.endpoint import Connection
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.evaluation.endpoints import pair
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.profiles.known import KUBE_ROUTER
from aggregator.services.offline.load import Offline, load
from tests.cluster.controlplane import Raw
from tests.e2e.application import LISTED, PARTS, Part, graph
from tests.e2e.kube.layout import FAMILIES
from tests.e2e.kube.machine import PATH, make_group
from tests.e2e.kube.objects import PROGRAMS, pods
from tests.e2e.world import World

PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    src: str  # namespace/pod
    dst: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.src} -> {self.dst} {self.protocol}/{self.port}"


@dataclass(frozen=True, slots=True)
class Tried:
    pair: Pair
    enforced: dict[str, bool]  # let through, by family
    evaluated: Verdict
    in_graph: bool


@dataclass(frozen=True, slots=True)
class _Pod:
    name: str  # namespace/name
    part: Part
    addresses: tuple[str, ...]  # one of each family
    pid: int


def try_all(world: World, folder: Path) -> list[Tried]:
    there = _pods(world)
    targets = [(pod, protocol, port) for pod in there for protocol, port in _ports(pod.part)]
    links = {(edge.src, edge.dst, edge.protocol, edge.port) for edge in graph()}
    offline = snapshot(world, folder)
    with _listeners(there), ThreadPoolExecutor(4) as pool:
        answers = dict(zip((p.name for p in there), pool.map(lambda pod: _ask(pod, targets), there), strict=True))
    found = []
    for src in there:
        for (dst, protocol, port), words in zip(targets, answers[src.name], strict=True):
            if src.name == dst.name:
                continue  # no policy is asked about a pod and itself
            found.append(
                Tried(
                    pair=Pair(src.name, dst.name, protocol, port),
                    enforced={
                        family.name: word == "open" or (word == "silent" and dst.part.name == "metrics")
                        for family, word in zip(FAMILIES, words, strict=True)
                    },
                    evaluated=_judged(offline, src.name, dst.name, protocol, port),
                    in_graph=(src.part.key, dst.part.key, protocol, port) in links,
                )
            )
    return found


def _judged(offline: Offline, src: str, dst: str, protocol: str, port: int) -> Verdict:
    there = {str(pod): pod for pod in offline.cluster.pods}
    ends = pair(offline.cluster, there[src], there[dst])
    connection = Connection(src=ends[0], dst=ends[1], protocol=Protocol(protocol), port=port)
    return evaluate(offline.policies, offline.cluster, connection, KUBE_ROUTER).verdict


def snapshot(world: World, folder: Path) -> Offline:
    """The cluster as it stands, by way of files: as anybody's `kubectl get -o yaml` would be judged."""
    found: list[Raw] = []
    for version, kind, path in LISTED:
        found += [{"apiVersion": version, "kind": kind, **item} for item in world.admin.get(path)["items"]]
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump_all(found))
    [offline] = load(folder)
    return offline


def _pods(world: World) -> list[_Pod]:
    """Those on the pod network: what sits on the node's own is beyond policies."""
    found = []
    for part in PARTS:
        if part.host_network or part.kind in {"Job", "CronJob"}:
            continue
        for pod in pods(world.admin, part.namespace, f"app={part.name}"):
            if pod["metadata"].get("deletionTimestamp"):
                continue
            name = f"{part.namespace}/{pod['metadata']['name']}"
            found.append(_Pod(name, part, _addresses(pod), world.pid_of(pod)))
    return found


def _addresses(pod: Raw) -> tuple[str, ...]:
    """In the families' order, as Kubernetes lists them."""
    found = tuple(each["ip"] for each in pod["status"]["podIPs"])
    assert [ip_address(address).version for address in found] == [family.version for family in FAMILIES]
    return found


def _ports(part: Part) -> list[tuple[str, int]]:
    declared = {(part.protocol_of(port), port) for port in part.ports.values()}
    return sorted({(protocol, port + step) for protocol, port in declared for step in (-1, 0, 1)})


def _ask(pod: _Pod, targets: list[tuple[_Pod, str, int]]) -> list[tuple[str, ...]]:
    """A word for each target's each family."""
    wanted = [[address, protocol, port] for dst, protocol, port in targets for address in dst.addresses]
    done = subprocess.run(
        _program(pod, "ask"), input=json.dumps(wanted), capture_output=True, text=True, check=True, timeout=120
    )
    words: list[str] = json.loads(done.stdout)
    each = len(FAMILIES)
    return [tuple(words[at : at + each]) for at in range(0, len(words), each)]


@contextlib.contextmanager
def _listeners(there: list[_Pod]) -> Iterator[None]:
    started: list[subprocess.Popen[str]] = []
    try:
        for pod in there:
            wanted = [[address, protocol, port] for protocol, port in _ports(pod.part) for address in pod.addresses]
            process = subprocess.Popen(
                _program(pod, "answer"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            started.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(wanted))
            process.stdin.close()
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _program(pod: _Pod, verb: str) -> list[str]:
    """In the pod's network, not in its cgroup: a test's probe is none of the application's."""
    join = "; ".join(f"echo 0 > {group / 'cgroup.procs'}" for group in make_group("system"))
    enter = f"exec nsenter --net -t {pod.pid} -- {PYTHON} {PROGRAMS / 'probe.py'} {verb}"
    return ["env", "-i", f"PATH={PATH}", "PYTHONDONTWRITEBYTECODE=1", "sh", "-c", f"{join}; {enter}"]
