"""The application on the cluster, with Wattle beside it, and what both say of what happened."""

import json
import os
import random
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from tests.cluster.controlplane import Raw, wait_until
from tests.e2e import application
from tests.e2e.application import NODE_PORT, PARTNER_PORT, PARTS, Edge, at, edge_of
from tests.e2e.kube.cluster import Cluster
from tests.e2e.kube.layout import FAMILIES, NODES
from tests.e2e.kube.machine import STATE, start
from tests.e2e.kube.objects import PROGRAMS, apply, pods, workload_ready
from tests.e2e.manifests import objects
from tests.e2e.wattle import NAMESPACE, READY_SECONDS, RestError, Wattle

LASTING = [part for part in PARTS if part.kind not in {"Job", "CronJob"}]


# Calls over TCP, each of which is one connection: what was made can be counted to the last one.
COUNTED = {
    (part.key, call["to"]): edge_of(part, call["to"])
    for part in LASTING
    for call in part.calls
    if edge_of(part, call["to"]).protocol == "TCP" and not call.get("keep")
}
DRAIN_SECONDS = 5
Key = tuple[str, str, int]  # source, destination, port


def _key(edge: Edge) -> Key:
    return (edge.src, edge.dst, edge.port)


@dataclass(frozen=True, slots=True)
class Requests:
    """What one caller wrote down of one kind of request, in totals since its start."""

    ok: int
    failed: int
    connections: int
    error: str


class World:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.admin = cluster.admin
        self.wattle = Wattle(cluster)
        self.outsiders: dict[str, subprocess.Popen[bytes]] = {}

    def up(self) -> None:
        self._outside("partner", {"listen": [f"tcp:{PARTNER_PORT}", f"tcp:{PARTNER_PORT + 1}"]})
        self.cluster.enforce()
        self.wattle.install()
        # Wattle is there first, as it would be for an application that is deployed anew: nothing is missed.
        apply(self.admin, objects())
        self.wait_running()
        calls = [
            {"to": f"http://{at(node.address(family))}:{NODE_PORT}", "source": family.visitor}
            for node in NODES
            for family in FAMILIES
        ]
        self._outside("visitor", {"calls": calls})

    def wait_running(self, seconds: float = 240) -> None:
        for part in LASTING:
            wait_until(
                lambda part=part: workload_ready(self.admin, part.namespace, part.kind, part.name), part.key, seconds
            )

    def _outside(self, name: str, plan: Raw) -> None:
        """A program outside the cluster."""
        environment = {"PLAN": json.dumps({"process": name, **plan}), "PYTHONDONTWRITEBYTECODE": "1"}
        self.outsiders[name] = start(name, ["/usr/bin/python3", str(PROGRAMS / "app.py")], environment=environment)

    # ---- what the application wrote down -----------------------------------------------------------------------------

    def ledger(self) -> dict[str, dict[str, Requests]]:
        """By the pod (or program outside) and the call: the last line that each wrote."""
        found = {}
        for part in LASTING:
            if not part.calls:
                continue
            for pod in pods(self.admin, part.namespace, f"app={part.name}"):
                if pod["metadata"].get("deletionTimestamp"):
                    continue
                found[f"{part.key}/{pod['metadata']['name']}"] = _last_line(self._log_of(pod))
        found["visitor"] = _last_line(STATE / "log" / "visitor.log")
        return found

    def failures(self, before: dict[str, dict[str, Requests]]) -> list[str]:
        """Requests that failed since; and callers that made none, which proves nothing."""
        found = []
        for who, calls in self.ledger().items():
            for to, now in calls.items():
                then = before.get(who, {}).get(to, Requests(0, 0, 0, ""))
                if now.failed > then.failed:
                    found.append(f"{who} -> {to}: {now.failed - then.failed} failed, the last: {now.error}")
                if now.ok == then.ok:
                    found.append(f"{who} -> {to}: none succeeded")
        return found

    @contextmanager
    def no_request_fails(self, seconds: float) -> Iterator[None]:
        """For that long at least, whatever is done meanwhile."""
        before = self.settled()
        started = time.monotonic()
        yield
        time.sleep(max(0.0, seconds - (time.monotonic() - started)))
        found = self.failures(before)
        assert not found, "\n".join(found)

    def settled(self) -> dict[str, dict[str, Requests]]:
        """Once every caller is answered again: the ledger to count from."""

        def quiet() -> dict[str, dict[str, Requests]] | None:
            before = self.ledger()
            time.sleep(4)
            return None if self.failures(before) else self.ledger()

        found: dict[str, dict[str, Requests]] = wait_until(quiet, "every caller to be answered", 120)
        return found

    def pid_of(self, pod: Raw) -> int:
        """The first process of its container."""
        node = self.cluster.nodes[pod["spec"]["nodeName"]]
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        for line in node.inside("ctr", "-n", "k8s.io", "tasks", "list").splitlines()[1:]:
            task, pid, *_ = line.split()
            if task == container:
                return int(pid)
        raise OSError(f"{pod['metadata']['name']} has no running container")

    def kill(self, namespace: str, selector: str, *, one: bool = False) -> None:
        """SIGKILL to the first process of each container (or of one, by chance) that the selector finds."""
        found = pods(self.admin, namespace, selector)
        for pod in [random.choice(found)] if one else found:
            with suppress(OSError):  # it is just being restarted
                os.kill(self.pid_of(pod), signal.SIGKILL)

    def restarts(self, namespace: str, selector: str) -> int:
        """How often containers of these pods were started anew, as their kubelets noticed."""
        statuses = (pod["status"].get("containerStatuses", []) for pod in pods(self.admin, namespace, selector))
        return sum(status["restartCount"] for found in statuses for status in found)

    def wattle_memory(self) -> dict[str, float]:
        """Resident MiB of what runs of Wattle, the agents by their nodes."""
        found = {}
        for component in ("agent", "aggregator"):
            for pod in pods(self.admin, NAMESPACE, f"app.kubernetes.io/component={component}"):
                name = f"the agent of {pod['spec']['nodeName']}" if component == "agent" else "the aggregator"
                with suppress(OSError):  # it is just being restarted
                    found[name] = _resident(self.pid_of(pod))
        return found

    def inside(self, pod: Raw, *command: str) -> subprocess.CompletedProcess[str]:
        """Run something in the pod's container, as the application itself would."""
        node = self.cluster.nodes[pod["spec"]["nodeName"]]
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        enter = ["nsenter", "--net", "--mount", "-t", str(node.pid), "--"]
        run = ["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", uuid.uuid4().hex[:12], container]
        return subprocess.run([*enter, *run, *command], capture_output=True, text=True, check=False, timeout=60)

    def _log_of(self, pod: Raw) -> Path:
        """The container's newest log, on its node's disk."""
        node = self.cluster.nodes[pod["spec"]["nodeName"]]
        meta = pod["metadata"]
        folder = node.own("/var/log/pods") / f"{meta['namespace']}_{meta['name']}_{meta['uid']}" / "main"
        return max(folder.glob("*.log"), key=lambda path: int(path.stem))

    def talking(self, *, yes: bool) -> None:
        """Let every caller go on, or stand still once what it was doing is done."""
        for part in LASTING:
            for pod in pods(self.admin, part.namespace, f"app={part.name}") if part.calls else ():
                os.kill(self.pid_of(pod), signal.SIGUSR2 if yes else signal.SIGUSR1)

    def at_rest(self) -> tuple[Counter[Key], Counter[Key]]:
        """(counted by Wattle, written down by the callers), by link, once both stand still; then the callers go on."""
        self.talking(yes=False)
        try:
            return self._once_still()
        finally:
            self.talking(yes=True)

    def _once_still(self) -> tuple[Counter[Key], Counter[Key]]:
        last: tuple[Counter[Key], Counter[Key]] = (Counter(), Counter())
        still_since = time.monotonic()
        deadline = still_since + READY_SECONDS
        while time.monotonic() - still_since < 3 * DRAIN_SECONDS:
            assert time.monotonic() < deadline, "the counts do not come to rest"
            time.sleep(1)
            try:
                now, pending = (self.counted(), self.written()), self.wattle.metrics().get("wattle_pending_flows")
            except (OSError, urllib3.exceptions.HTTPError, RestError):  # killed last, and often before: it is let wait
                now, pending = last, 1
            if now != last or pending:
                last, still_since = now, time.monotonic()
        return last

    def counted(self) -> Counter[Key]:
        """Connections of every TCP link that `written` tells of, as Wattle counts them."""
        wanted = {_key(edge) for edge in COUNTED.values()}
        found: Counter[Key] = Counter()
        for row in self.rows():
            key = _key(edge_of_row(row))
            if row["established"] and key in wanted:
                found[key] += row["connections"]
        return found

    def written(self) -> Counter[Key]:
        """Connections that the callers made, by link."""
        found: Counter[Key] = Counter()
        for who, calls in self.ledger().items():
            for to, numbers in calls.items():
                workload, _, pod = who.rpartition("/")
                edge = COUNTED.get((workload, to))
                # A pod that calls its own address never leaves itself: no link, and not counted.
                if edge is not None and f"//{pod}." not in to:
                    found[_key(edge)] += numbers.connections
        return found

    # ---- what Wattle says --------------------------------------------------------------------------------------------

    def rows(self, *namespaces: str) -> list[dict[str, Any]]:
        """The tables of these namespaces, each link once."""
        found = {}
        for namespace in namespaces or application.NAMESPACES:
            for row in self.wattle.items(f"/namespaces/{namespace}/links"):
                found[row["id"]] = row
        return list(found.values())

    def learned(self) -> dict[Edge, set[str]]:
        """The established links of the application's namespaces and their processes; a node's probes of its own pods
        are no links of the application.
        """
        found: dict[Edge, set[str]] = {}
        for row in self.rows():
            if not row["established"] or row["proposal"]["reason"] == "same-node-probe":
                continue
            found.setdefault(edge_of_row(row), set()).update(row["processes"])
        return found

    def told_of(self, edges: AbstractSet[Edge]) -> str:
        """What Wattle has of links that should not be, and why it could not name an end of any: for an error's text."""
        rows = [row for row in self.rows() if edge_of_row(row) in edges]
        told = [{name: row[name] for name in ("first_seen", "last_seen", "connections", "established")} for row in rows]
        why = {name: value for name, value in self.wattle.metrics().items() if "settled_flows_total{" in name}
        return f"{told}, {why}"


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status (proc_pid_status(5)), by its names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _resident(pid: int) -> float:
    found = status_of(pid).get("VmRSS")
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return int(found.split()[0]) / 1024


def edge_of_row(row: dict[str, Any]) -> Edge:
    ends = [spelled(row["workload"]), spelled(row["peer"])]
    source, target = ends if row["direction"] == "Egress" else reversed(ends)
    return Edge(source, target, row["protocol"], row["port"])


def spelled(end: dict[str, Any]) -> str:
    match end["kind"]:
        case "Address":
            return f"address/{end['address']['ip']}"
        case "Nodes":
            return "nodes"
        case "ApiServer":
            return "api-server"
        case kind:
            return f"{end['namespace']}/{kind}/{end['name']}"


def _last_line(log: Path) -> dict[str, Requests]:
    """containerd's log format (time, stream, F, text) or a plain one."""
    with log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - 65536))
        lines = opened.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        start_of_json = line.find('{"at"')
        if start_of_json >= 0:
            try:
                calls = json.loads(line[start_of_json:])["calls"]
            except ValueError:
                continue
            return {to: Requests(*numbers) for to, numbers in calls.items()}
    return {}
