"""CronJobs: when one is due, how its Jobs end, and which of them the API server still remembers.

Enters: the clock and the state of each run's pod. Leaves: Jobs to start and to forget.
"""

from dataclasses import dataclass, field

from lab.controller import timestamp
from lab.pods import Pod
from lab.podstatus import job_status
from lab.scenario import Manifest

KEEP_ENDED_SECONDS = 60.0
KEEP_ENDED_JOBS = 3


@dataclass(slots=True, kw_only=True)
class Schedule:
    """One CronJob and the Jobs that its history holds, oldest first. Runs never overlap."""

    cron_job: Manifest
    every_seconds: float
    due_monotonic: float = 0.0
    runs: list[tuple[Manifest, Pod]] = field(default_factory=list)
    succeeded: int = 0

    def due(self, now_monotonic: float) -> bool:
        return now_monotonic >= self.due_monotonic and all(pod.finished_at for _, pod in self.runs)

    def started(self, job: Manifest, pod: Pod, now_monotonic: float) -> None:
        self.runs.append((job, pod))
        self.due_monotonic = now_monotonic + self.every_seconds
        self.cron_job["status"] = {**self.cron_job.get("status", {}), "lastScheduleTime": timestamp()}

    def look(self) -> None:
        """Take over what became of each run."""
        for job, pod in self.runs:
            if not pod.finished_at or "active" not in job["status"]:
                continue
            job["status"] = job_status(pod, job["status"]["startTime"])
            if "completionTime" in job["status"]:
                self.succeeded += 1
                self.cron_job["status"]["lastSuccessfulTime"] = pod.finished_at

    def forgotten(self, now_monotonic: float) -> list[tuple[Manifest, Pod]]:
        """Kubernetes keeps three Jobs; the lab runs them faster, and so keeps each for a minute at least."""
        keep = self.cron_job["spec"].get("successfulJobsHistoryLimit", KEEP_ENDED_JOBS)
        gone = []
        while len(self.runs) > keep:
            pod = self.runs[0][1]
            if not pod.finished_at or now_monotonic - pod.finished_monotonic < KEEP_ENDED_SECONDS:
                break
            gone.append(self.runs.pop(0))
        return gone
