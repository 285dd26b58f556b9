"""The lab's control loop: keeps pods running, Services served, CronJobs due and the object directory true.

Enters: a Scenario and a state directory. Leaves: a running cluster and status.json, until it is killed. It needs no
orderly end: whatever it made is found again by the lab's name (lifecycle.py), which is also how it is taken down.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import pods, services
from lab.addresses import NodePlan, PodAddresses, ServiceAddresses, plan_nodes
from lab.cgroups import tree
from lab.controller import (
    Names,
    PodPlan,
    admit,
    admit_service,
    api_service,
    cluster_objects,
    expand,
    start_job,
    timestamp,
)
from lab.errors import LabError
from lab.files import write_atomically
from lab.network import NETNS_FOLDER, Wires, inside
from lab.objects import ObjectFolder
from lab.pods import Place, Pod
from lab.scenario import Manifest, Scenario, key_of
from lab.settings import WorldHost

LOOP_SECONDS = 0.1
RESTART_SECONDS = 1.0
KEEP_ENDED_SECONDS = 60.0
KEEP_ENDED_JOBS = 3


@dataclass(slots=True)
class Schedule:
    """One CronJob: when it is due, and the Jobs that its history still holds."""

    cron_job: Manifest
    every_seconds: float
    due_monotonic: float = 0.0
    jobs: list[tuple[Manifest, Pod]] = field(default_factory=list)
    succeeded: int = 0


class Supervisor:
    def __init__(self, scenario: Scenario, name: str, state: Path) -> None:
        lab = scenario.lab
        self.scenario = scenario
        self.state = state
        self.names = Names()
        self.wires = Wires(lab=name, cidrs=lab.cidrs)
        self.cgroups = tree(name)
        self.place = Place(
            state=state,
            wires=self.wires,
            cgroups=self.cgroups,
            driver=lab.cgroup_driver,
            domain=lab.domain,
            names=self.names,
        )
        node_names = [item["metadata"]["name"] for item in scenario.of_kind("Node")] or ["node-1"]
        self.nodes = plan_nodes(node_names, lab.cidrs)
        self.free = {node.name: PodAddresses(node) for node in self.nodes}
        self.objects = ObjectFolder(state / "objects")
        self.services: list[Manifest] = []
        self.slices: dict[str, Manifest] = {}
        self.pods: list[Pod] = []
        self.waiting: list[PodPlan] = []
        self.schedules: list[Schedule] = []
        self.world: list[subprocess.Popen[bytes]] = []
        self.applied: dict[str, str] = {}
        self.restart_at: dict[str, float] = {}
        self.rounds_when_ready: dict[tuple[str, str], int] | None = None

    # ---- once

    def build(self) -> None:
        lab = self.scenario.lab
        self.wires.make_world([host.address for host in lab.world])
        self.wires.make_nodes(self.nodes)
        for item in cluster_objects(self.scenario, self.nodes, self.names):
            self.objects.put(item)
        self._build_services()
        for index, host in enumerate(lab.world):
            self._start_world(index, host)
        waiting: list[PodPlan] = []
        for key, workload in self.scenario.workloads():
            stored = admit(workload, self.names)
            made, plans = expand(stored, self.scenario, self.nodes, self.names)
            for item in made:
                self.objects.put(item)
            waiting += plans
            every = lab.run[key].every_seconds
            if every is not None:
                self.schedules.append(Schedule(cron_job=stored, every_seconds=every))
        # DNS first: a resolver that finds no server waits a second before it asks again.
        self.waiting = sorted(waiting, key=lambda plan: not serves_dns(plan))

    def _build_services(self) -> None:
        declared = self.scenario.of_kind("Service")
        reserved = [s["spec"]["clusterIP"] for s in declared if s["spec"].get("clusterIP") not in (None, "None")]
        free = ServiceAddresses(self.scenario.lab.cidrs, reserved)
        api = api_service(self.scenario, self.names)
        self.services = [admit_service(service, free, self.names) for service in declared]
        for service in [api, *self.services]:
            self.objects.put(service)
        self.fixed_slice = admit(services.api_slice(api, [str(self.nodes[0].addresses[0])]), self.names)
        self.api = api
        self.objects.put(self.fixed_slice)

    def _start_world(self, index: int, host: WorldHost) -> None:
        folder = self.state / "run" / f"world-{index}"
        folder.mkdir(parents=True)
        (folder / "resolv.conf").write_text("")
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        address = str(host.address)
        name = host.program.process or "world"
        plan = {
            "cgroups": [str(path) for path in self.cgroups.make(f"world/{index}")],
            "netns": str(NETNS_FOLDER / self.wires.world),
            "binds": {"/etc/resolv.conf": str(folder / "resolv.conf"), "/etc/hosts": str(folder / "hosts")},
            "hostname": (host.names or ("world",))[0],
            "environment": {"PATH": pods.PATH},
            "inherit": False,
            "folder": str(folder),
            "command": list(host.program.command)
            or pods.workload_command(host.program, name, folder, lambda text: text, bind=address),
        }
        with (folder / "log").open("ab") as log:
            command = [pods.INTERPRETER, "-I", "-S", str(pods.HERE / "enter.py"), json.dumps(plan)]
            self.world.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            )

    # ---- over and over

    def turn(self) -> None:
        self._start_waiting()
        for pod in self.pods:
            self._look_after(pod)
        self._run_schedules()
        self._sync_services()
        self._write_objects()
        self._write_status()

    def _start_waiting(self) -> None:
        dns_ready = all(pod.ready for pod in self.pods if serves_dns(pod.plan))
        while self.waiting and (serves_dns(self.waiting[0]) or dns_ready):
            self._start_pod(self.waiting.pop(0))

    def _start_pod(self, plan: PodPlan) -> Pod:
        node = self._node_for(plan)
        addresses = () if plan.manifest["spec"].get("hostNetwork") else self.free[node.name].take()
        pod = pods.new_pod(plan, node, addresses, self._nameserver(plan), self.place)
        pod.manifest["status"] = pods.status(pod)
        self.objects.put(pod.manifest)
        pods.start(pod, self.place)
        self.pods.append(pod)
        return pod

    def _node_for(self, plan: PodPlan) -> NodePlan:
        wanted = plan.node or plan.manifest["spec"].get("nodeName")
        if wanted is not None:
            return next(node for node in self.nodes if node.name == wanted)
        return min(self.nodes, key=lambda node: sum(p.node is node and not p.finished_at for p in self.pods))

    def _nameserver(self, plan: PodPlan) -> str | None:
        """The DNS Service's address, as the kubelet writes it into each pod but those of dnsPolicy Default."""
        spec = plan.manifest["spec"]
        policy = spec.get("dnsPolicy", "ClusterFirst")
        if policy == "Default" or (spec.get("hostNetwork") and policy == "ClusterFirst"):
            return None
        for service in self.services:
            if any(port["port"] == 53 for port in service["spec"]["ports"]):
                address: str = service["spec"]["clusterIP"]
                return address
        return None

    def _look_after(self, pod: Pod) -> None:
        if pod.finished_at:
            return
        for container in pods.reap(pod):
            self.restart_at[container.container_id] = time.monotonic() + RESTART_SECONDS
        if is_job(pod):
            if all(container.exit_code is not None for container in pod.containers):
                self._finish(pod)
                return
        else:
            for container in pod.containers:
                if container.exit_code is not None and time.monotonic() >= self.restart_at[container.container_id]:
                    container.restarts += 1
                    pods.start_container(pod, container, self.place)
        pod.ready = all(container.listening() for container in pod.containers)

    def _finish(self, pod: Pod) -> None:
        pod.finished_at, pod.finished_monotonic, pod.ready = timestamp(), time.monotonic(), False
        pod.manifest["status"] = pods.status(pod)
        pods.tear_down(pod, self.place)
        self.free[pod.node.name].give_back(() if pod.host_network else pod.addresses)

    def _run_schedules(self) -> None:
        if self.rounds_when_ready is None:
            return
        now = time.monotonic()
        for schedule in self.schedules:
            if now >= schedule.due_monotonic and not any(not pod.finished_at for _, pod in schedule.jobs):
                schedule.due_monotonic = now + schedule.every_seconds
                job, plan = start_job(schedule.cron_job, self.scenario, int(time.time()), self.names)
                self.objects.put(job)
                schedule.cron_job["status"] = {"lastScheduleTime": timestamp(), "active": []}
                schedule.jobs.append((job, self._start_pod(plan)))
            for job, pod in schedule.jobs:
                if pod.finished_at and "active" in job["status"]:
                    schedule.succeeded += self._end_job(job, pod, schedule)
            while self._forgettable(schedule, now):
                self._forget(*schedule.jobs.pop(0))

    def _end_job(self, job: Manifest, pod: Pod, schedule: Schedule) -> int:
        well = pod.manifest["status"]["phase"] == "Succeeded"
        job["status"] = {
            "startTime": job["status"]["startTime"],
            "succeeded" if well else "failed": 1,
            "conditions": [{"type": "Complete" if well else "Failed", "status": "True"}],
        }
        if well:
            job["status"]["completionTime"] = pod.finished_at
            schedule.cron_job["status"]["lastSuccessfulTime"] = pod.finished_at
        return int(well)

    def _forgettable(self, schedule: Schedule, now: float) -> bool:
        """Kubernetes keeps three Jobs; the lab runs them faster, and so keeps each for a minute at least."""
        keep = schedule.cron_job["spec"].get("successfulJobsHistoryLimit", KEEP_ENDED_JOBS)
        if len(schedule.jobs) <= keep:
            return False
        oldest = schedule.jobs[0][1]
        return bool(oldest.finished_at) and now - oldest.finished_monotonic > KEEP_ENDED_SECONDS

    def _forget(self, job: Manifest, pod: Pod) -> None:
        self.pods.remove(pod)
        self.objects.remove(pod.manifest)
        self.objects.remove(job)
        shutil.rmtree(self.state / "pods" / pod.log_folder)
        shutil.rmtree(self.state / "run" / pod.manifest["metadata"]["uid"])

    def _backends(self) -> list[services.Backend]:
        return [
            services.Backend(manifest=pod.manifest, addresses=pod.addresses, node=pod.node.name, ready=pod.ready)
            for pod in self.pods
            if not pod.finished_at
        ]

    def _sync_services(self) -> None:
        backends = self._backends()
        found: dict[str, Manifest] = {}
        for service in self.services:
            for item in services.slices(service, backends):
                known = self.slices.get(f"{item['metadata']['namespace']}/{item['metadata']['name']}")
                if known is None:
                    item = admit(item, self.names)  # noqa: PLW2901  # the stored form takes the place of the computed one
                else:
                    item["metadata"] = known["metadata"]
                found[f"{item['metadata']['namespace']}/{item['metadata']['name']}"] = item
                self.objects.put(item)
        for gone in self.slices.keys() - found.keys():
            self.objects.remove(self.slices[gone])
        self.slices = found
        rules = services.ruleset(
            [self.api, *self.services], [self.fixed_slice, *found.values()], self.scenario.lab.cidrs
        )
        if self.applied.get("rules") != rules:
            for node in self.nodes:
                inside(self.wires.node(node.name), "nft", "-f", "-", given=rules)
            self.applied["rules"] = rules
        self._sync_names(backends)

    def _sync_names(self, backends: list[services.Backend]) -> None:
        lab = self.scenario.lab
        text = services.hosts([self.api, *self.services], backends, lab.world, lab.domain)
        servers = [pod for pod in self.pods if serves_dns(pod.plan) and pod.ready]
        # A server that has just become ready may have read the file before its last change.
        said = text + "".join(c.container_id for pod in servers for c in pod.containers)
        if self.applied.get("hosts") != said:
            write_atomically(self.state / "dns" / "hosts", text)
            for pod in servers:
                pods.hang_up(pod)
            self.applied["hosts"] = said

    def _write_objects(self) -> None:
        for pod in self.pods:
            pod.manifest["status"] = pods.status(pod)
            self.objects.put(pod.manifest)
        for schedule in self.schedules:
            self.objects.put(schedule.cron_job)
            for job, _ in schedule.jobs:
                self.objects.put(job)

    # ---- status

    def _clients(self) -> Iterator[dict[str, Any]]:
        for pod in self.pods:
            for container in pod.containers:
                if container.program.calls and not is_job(pod):
                    yield {
                        "pod": pod.name,
                        "workload": pod.plan.workload,
                        "container": container.name,
                        **pods.progress(pod, container, self.place),
                    }

    def _write_status(self) -> None:
        clients = list(self._clients())
        ready = not self.waiting and all(pod.ready for pod in self.pods if not is_job(pod))
        if ready and self.rounds_when_ready is None:
            self.rounds_when_ready = {(c["pod"], c["container"]): c["rounds"] for c in clients}
        # The round that was under way when the last pod became ready does not count: the second from there was full.
        before = self.rounds_when_ready or {}
        settled = (
            ready
            and bool(before or not clients)
            and all(c["rounds"] >= before.get((c["pod"], c["container"]), 0) + 2 for c in clients)
            and all(schedule.succeeded for schedule in self.schedules)
        )
        found = {
            "name": self.wires.lab,
            "settled": settled,
            "ready": ready,
            "waiting": [plan.manifest["metadata"]["name"] for plan in self.waiting],
            "clients": clients,
            "jobs": [
                {"workload": key_of(s.cron_job), "succeeded": s.succeeded, "kept": len(s.jobs)} for s in self.schedules
            ],
            "pods": [self._pod_status(pod) for pod in self.pods],
        }
        text = json.dumps(found, indent=1) + "\n"
        if self.applied.get("status") != text:
            write_atomically(self.state / "status.json", text)
            self.applied["status"] = text

    def _pod_status(self, pod: Pod) -> dict[str, Any]:
        return {
            "pod": pod.name,
            "workload": pod.plan.workload,
            "uid": pod.manifest["metadata"]["uid"],
            "node": pod.node.name,
            "phase": pod.manifest["status"]["phase"],
            "ready": pod.ready,
            "addresses": [str(address) for address in pod.addresses],
            "netns": None if pod.finished_at else pod.netns,
            "log_folder": pod.log_folder,
            "cgroups": {c.name: pod.cgroup(c, self.place.driver) for c in pod.containers},
            "pids": {c.name: c.process.pid for c in pod.containers if c.process and c.exit_code is None},
            "restarts": sum(c.restarts for c in pod.containers),
        }


def is_job(pod: Pod) -> bool:
    return pod.plan.workload.split("/")[1] in {"Job", "CronJob"}


def serves_dns(plan: PodPlan) -> bool:
    return any(program.dns is not None for program in plan.run.containers.values())


def supervise(scenario: Scenario, name: str, state: Path) -> None:
    """Run until killed. An error stands in error.txt, where `up` and `status` find it."""
    supervisor = Supervisor(scenario, name, state)
    try:
        supervisor.build()
        while True:
            supervisor.turn()
            time.sleep(LOOP_SECONDS)
    except LabError as error:
        write_atomically(state / "error.txt", f"{error}\n")
        sys.exit(1)
