"""A pod's status as its kubelet would report it. Enters: a Pod. Leaves: the `status` of its manifest. Pure."""

from typing import Any

from lab.cgroups import quality_of_service
from lab.pods import Container, Pod
from lab.scenario import Manifest


def status(pod: Pod) -> dict[str, Any]:
    """The pod's status as its kubelet would report it."""
    running = [c for c in pod.containers if c.process is not None]
    phase = "Running" if running else "Pending"
    if pod.finished_at:
        phase = "Succeeded" if all(c.exit_code == 0 for c in pod.containers) else "Failed"
    ready = "True" if pod.ready else "False"
    conditions = [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")]
    found: dict[str, Any] = {
        "phase": phase,
        "conditions": [*conditions, {"type": "PodScheduled", "status": "True"}],
        "hostIP": str(pod.node.addresses[0]),
        "hostIPs": [{"ip": str(address)} for address in pod.node.addresses],
        "qosClass": quality_of_service(pod.manifest),
    }
    if running:
        found["podIP"] = str(pod.addresses[0])
        found["podIPs"] = [{"ip": str(address)} for address in pod.addresses]
        found["startTime"] = running[0].started_at
        found["containerStatuses"] = [container_status(pod, container) for container in running]
    return found


def container_status(pod: Pod, container: Container) -> dict[str, Any]:
    identity = f"containerd://{container.container_id}"
    image = next(c.get("image", "") for c in pod.manifest["spec"]["containers"] if c["name"] == container.name)
    if container.exit_code is None:
        state: dict[str, Any] = {"running": {"startedAt": container.started_at}}
    else:
        state = {
            "terminated": {
                "containerID": identity,
                "exitCode": container.exit_code,
                "reason": "Completed" if container.exit_code == 0 else "Error",
                "startedAt": container.started_at,
                "finishedAt": container.finished_at,
            }
        }
    return {
        "name": container.name,
        "image": image,
        "containerID": identity,
        "ready": pod.ready,
        "started": container.exit_code is None,
        "restartCount": container.restarts,
        "state": state,
    }


def job_status(pod: Pod, started_at: str) -> Manifest:
    """A Job's status, from its one pod."""
    if not pod.finished_at:
        return {"active": 1, "startTime": started_at}
    well = pod.manifest["status"]["phase"] == "Succeeded"
    return {
        "startTime": started_at,
        "succeeded" if well else "failed": 1,
        "conditions": [{"type": "Complete" if well else "Failed", "status": "True"}],
        **({"completionTime": pod.finished_at} if well else {}),
    }
