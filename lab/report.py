"""What the lab says of itself: pods, rounds of each client, runs of each CronJob, and whether everything was said once.

Enters: pods, schedules, the clients' own progress files. Leaves: the content of status.json.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lab import pods
from lab.cronjobs import Schedule
from lab.pods import Place, Pod, is_job
from lab.podstatus import job_status
from lab.scenario import Manifest, key_of

Client = dict[str, Any]


class Report:
    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self.place = place
        self.ready = False
        """Whether every pod was ready once. CronJobs wait for it."""
        self._rounds_when_ready: dict[tuple[str, str], int] = {}

    def content(self, running: Sequence[Pod], waiting: Sequence[str], schedules: Sequence[Schedule]) -> dict[str, Any]:
        clients = self._clients(running)
        all_ready = not waiting and all(pod.ready for pod in running if not is_job(pod.plan))
        if all_ready and not self.ready:
            self.ready = True
            self._rounds_when_ready = {(c["pod"], c["container"]): c["rounds"] for c in clients}
        jobs_done = all(s.succeeded for s in schedules) and all(
            pod.finished_at for pod in running if pod.plan.workload.split("/")[1] == "Job"
        )
        return {
            "name": self.name,
            "settled": all_ready and self._came_round(clients) and jobs_done,
            "ready": all_ready,
            "waiting": list(waiting),
            "clients": clients,
            "jobs": [
                {"workload": key_of(s.cron_job), "succeeded": s.succeeded, "kept": len(s.runs)} for s in schedules
            ],
            "pods": [self._pod(pod) for pod in running],
        }

    def _came_round(self, clients: Sequence[Client]) -> bool:
        # The round under way when the last pod became ready does not count: the second from there was a full one.
        before = self._rounds_when_ready
        return all(c["rounds"] >= before.get((c["pod"], c["container"]), 0) + 2 for c in clients)

    def _clients(self, running: Iterable[Pod]) -> list[Client]:
        return [
            {
                "pod": pod.name,
                "workload": pod.plan.workload,
                "container": container.name,
                **pods.progress(pod, container, self.place),
            }
            for pod in running
            if not is_job(pod.plan)
            for container in pod.containers
            if container.program.calls
        ]

    def _pod(self, pod: Pod) -> dict[str, Any]:
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


def workload_status(kind: str, pods_of_it: Sequence[Pod]) -> Manifest:
    if kind == "Job":
        return job_status(pods_of_it[0], pods_of_it[0].manifest["status"].get("startTime", "")) if pods_of_it else {}
    ready, wanted = sum(pod.ready for pod in pods_of_it), len(pods_of_it)
    if kind == "DaemonSet":
        return {"desiredNumberScheduled": wanted, "currentNumberScheduled": wanted, "numberReady": ready}
    return {"replicas": wanted, "readyReplicas": ready, "availableReplicas": ready}
