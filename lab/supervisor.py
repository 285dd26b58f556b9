"""The lab's control loop: keeps pods running, Services served, CronJobs due and the object folder true.

Enters: a Scenario and a state directory. Leaves: a running cluster and status.json, until it is killed. It needs no
orderly end: whatever it made is found again by the lab's name (lifecycle.py), which is also how it is taken down.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lab import pods
from lab.addresses import NodePlan, PodAddresses, plan_nodes
from lab.cgroups import tree
from lab.cluster import cluster_objects
from lab.controller import Names, PodPlan, admit, expand, owner_reference, start_job, timestamp
from lab.cronjobs import Schedule
from lab.errors import LabError
from lab.files import write_atomically
from lab.network import NETNS_FOLDER, PATH, Wires
from lab.objects import ObjectFolder
from lab.pods import Place, Pod, is_job, serves_dns
from lab.podstatus import status as pod_status
from lab.proxy import Proxy
from lab.report import Report, workload_status
from lab.scenario import Manifest, Scenario
from lab.settings import WorldHost

if TYPE_CHECKING:
    import subprocess

LOOP_SECONDS = 0.1
RESTART_SECONDS = 1.0
READINESS_SECONDS = 2.0
STATUS_SECONDS = 0.5


class Supervisor:
    def __init__(self, scenario: Scenario, name: str, state: Path) -> None:
        lab = scenario.lab
        self.scenario = scenario
        self.state = state
        self.names = Names()
        self.wires = Wires(lab=name, cidrs=lab.cidrs)
        self.place = Place(
            state=state,
            wires=self.wires,
            cgroups=tree(name),
            driver=lab.cgroup_driver,
            domain=lab.domain,
            names=self.names,
        )
        self.nodes = plan_nodes(scenario.node_names(), lab.cidrs)
        self.free = {node.name: PodAddresses(node) for node in self.nodes}
        self.objects = ObjectFolder(state / "objects")
        self.proxy = Proxy(scenario, self.nodes, self.wires, self.objects, self.names)
        self.report = Report(name, self.place)
        self.pods: list[Pod] = []
        self.waiting: list[PodPlan] = []
        self.schedules: list[Schedule] = []
        self.owners: dict[str, list[Manifest]] = {}
        """Of each workload with replicas: the object itself and its ReplicaSet, whose statuses count pods."""
        self.world: list[subprocess.Popen[bytes]] = []
        self.restart_at: dict[str, float] = {}
        self.visible: list[tuple[object, ...]] = []
        self.settled = False
        self.status_monotonic = 0.0

    # ---- once

    def build(self) -> None:
        lab = self.scenario.lab
        self.wires.make_world([host.address for host in lab.world])
        self.wires.make_nodes(self.nodes)
        found = cluster_objects(self.scenario, self.nodes, self.names)
        for item in found:
            self.objects.put(item)
        node_objects = {item["metadata"]["name"]: item for item in found if item["kind"] == "Node"}
        for index, host in enumerate(lab.world):
            self._start_world(index, host)
        for key, workload in self.scenario.workloads():
            stored = admit(workload, self.names)
            made, plans = expand(stored, self.scenario, self.nodes, self.names)
            for item in made:
                self.objects.put(item)
            for plan in plans:
                if pods.is_static(plan.manifest):
                    plan.manifest["metadata"]["ownerReferences"] = [
                        owner_reference(node_objects[self._node_for(plan).name])
                    ]
            self.waiting += plans
            every_seconds = lab.run[key].every_seconds
            if every_seconds is not None:
                self.schedules.append(Schedule(cron_job=stored, every_seconds=every_seconds))
            elif stored["kind"] in {"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"}:
                self.owners[key] = made
        self.proxy.sync([], self.state / "dns" / "hosts")
        # DNS first: a resolver that finds no server waits a second before it asks again.
        self.waiting.sort(key=lambda plan: not serves_dns(plan))

    def _start_world(self, index: int, host: WorldHost) -> None:
        folder = self.state / "run" / f"world-{index}"
        folder.mkdir(parents=True)
        (folder / "resolv.conf").write_text("")
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        name = host.program.process or "world"
        command = list(host.program.command) or pods.workload_command(
            host.program, name, folder, lambda text: text, bind=str(host.address)
        )
        plan = {
            "cgroups": [str(path) for path in self.place.cgroups.make(f"world/{index}")],
            "netns": str(NETNS_FOLDER / self.wires.world),
            "binds": pods.own_files(folder),
            "hostname": (host.names or ("world",))[0],
            "environment": {"PATH": PATH},
            "inherit": False,
            "folder": str(folder),
            "command": command,
        }
        self.world.append(pods.launch(plan, folder / "log"))

    # ---- over and over

    def turn(self) -> None:
        self._start_waiting()
        for pod in self.pods:
            if not pod.finished_at:
                self._look_after(pod)
        if self.report.ready:
            for schedule in self.schedules:
                self._keep_up(schedule, time.monotonic())
        visible = [pod.visible() for pod in self.pods]
        if visible != self.visible:
            self.visible = visible
            self.proxy.sync([pod for pod in self.pods if not pod.finished_at], self.state / "dns" / "hosts")
            self._write_objects()
        now_monotonic = time.monotonic()
        if not self.settled or now_monotonic >= self.status_monotonic + STATUS_SECONDS:
            self.status_monotonic = now_monotonic
            self._write_status()

    def _start_waiting(self) -> None:
        while self.waiting and serves_dns(self.waiting[0]):
            self._start_pod(self.waiting.pop(0))
        if all(pod.ready for pod in self.pods if serves_dns(pod.plan)):
            while self.waiting:
                self._start_pod(self.waiting.pop(0))

    def _start_pod(self, plan: PodPlan) -> Pod:
        node = self._node_for(plan)
        addresses = () if plan.manifest["spec"].get("hostNetwork") else self.free[node.name].take()
        nameserver = self.proxy.nameserver() if pods.asks_cluster_dns(plan.manifest) else None
        pod = pods.new_pod(plan, node, addresses, nameserver, self.place)
        pod.manifest["status"] = pod_status(pod)
        self.objects.put(pod.manifest)
        pods.start(pod, self.place)
        self.pods.append(pod)
        return pod

    def _node_for(self, plan: PodPlan) -> NodePlan:
        wanted = plan.node or plan.manifest["spec"].get("nodeName")
        if wanted is not None:
            return next(node for node in self.nodes if node.name == wanted)
        return min(self.nodes, key=lambda node: sum(p.node is node and not p.finished_at for p in self.pods))

    def _look_after(self, pod: Pod) -> None:
        now_monotonic = time.monotonic()
        for container in pods.reap(pod):
            self.restart_at[container.container_id] = now_monotonic + RESTART_SECONDS
            pod.ready = False
        ended = [container for container in pod.containers if container.exit_code is not None]
        if is_job(pod.plan):
            if len(ended) == len(pod.containers):
                self._finish(pod)
                return
        else:
            for container in ended:
                if now_monotonic >= self.restart_at[container.container_id]:
                    del self.restart_at[container.container_id]
                    container.restarts += 1
                    pods.start_container(pod, container, self.place)
        if not pod.ready or now_monotonic >= pod.checked_monotonic + READINESS_SECONDS:
            # A second look: /proc/net/tcp, read while it changes, may skip a line.
            pod.ready = pods.listening(pod) or (pod.ready and pods.listening(pod))
            pod.checked_monotonic = now_monotonic

    def _finish(self, pod: Pod) -> None:
        pod.finished_at, pod.finished_monotonic, pod.ready = timestamp(), time.monotonic(), False
        pod.manifest["status"] = pod_status(pod)
        pods.tear_down(pod, self.place)
        self.free[pod.node.name].give_back(() if pod.host_network else pod.addresses)

    def _keep_up(self, schedule: Schedule, now_monotonic: float) -> None:
        schedule.look()
        if schedule.due(now_monotonic):
            job, plan = start_job(schedule.cron_job, self.scenario, int(time.time()), self.names)
            self.objects.put(job)
            schedule.started(job, self._start_pod(plan), now_monotonic)
        for job, pod in schedule.forgotten(now_monotonic):
            self.pods.remove(pod)
            self.objects.remove(pod.manifest)
            self.objects.remove(job)
            shutil.rmtree(self.state / "pods" / pod.log_folder)
            shutil.rmtree(self.state / "run" / pod.manifest["metadata"]["uid"])

    def _write_objects(self) -> None:
        for pod in self.pods:
            pod.manifest["status"] = pod_status(pod)
            self.objects.put(pod.manifest)
        for key, owners in self.owners.items():
            mine = [pod for pod in self.pods if pod.plan.workload == key]
            for owner in owners:
                owner["status"] = workload_status(owner["kind"], mine)
                self.objects.put(owner)
        for schedule in self.schedules:
            self.objects.put(schedule.cron_job)
            for job, _ in schedule.runs:
                self.objects.put(job)

    def _write_status(self) -> None:
        waiting = [plan.manifest["metadata"]["name"] for plan in self.waiting]
        content = self.report.content(self.pods, waiting, self.schedules)
        self.settled = content["settled"]
        write_atomically(self.state / "status.json", json.dumps(content, indent=1) + "\n")


def supervise(scenario: Scenario, name: str, state: Path) -> None:
    """Run until killed. An error stands in error.txt, where `up` and `status` find it."""
    try:
        supervisor = Supervisor(scenario, name, state)
        supervisor.build()
        while True:
            supervisor.turn()
            time.sleep(LOOP_SECONDS)
    except LabError as error:
        write_atomically(state / "error.txt", f"{error}\n")
        sys.exit(1)
