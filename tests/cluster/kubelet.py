"""Plays scheduler and kubelet: binds pods, gives them addresses, lets them finish and go; and remembers the truth."""

import itertools
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any, Self

import urllib3

from tests.cluster.controlplane import POD_CIDR, Admin, ApiRefusal, Raw


@dataclass(slots=True)
class Life:
    """When a pod really had its address (epoch seconds)."""

    uid: str
    name: str
    namespace: str
    ip: str
    since: float
    until: float = float("inf")


@dataclass(slots=True)
class Kubelet:
    """One player for the pods of one namespace. `finish`: pods whose name starts so end as soon as they run."""

    admin: Admin
    namespace: str
    node: str = "node-1"
    finish: str = "-"
    lives: dict[str, Life] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _addresses: Any = field(default_factory=lambda: (str(ip) for ip in itertools.islice(_hosts(), 10, None)))
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(10)

    def _play(self) -> None:
        while not self._stop.wait(0.03):
            try:
                for pod in self.admin.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]:
                    self._step(pod)
            except (ApiRefusal, OSError, urllib3.exceptions.HTTPError):
                continue

    def _step(self, pod: Raw) -> None:
        metadata, status = pod["metadata"], pod.get("status") or {}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{metadata['name']}"
        if metadata.get("deletionTimestamp"):
            self.let_go(metadata["uid"])
            self.admin.delete(path, now=True)
        elif not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
            binding = {"metadata": {"name": metadata["name"]}, "target": target}
            self.admin.create(f"{path}/binding", binding)
        elif not status.get("podIP"):
            self.start(pod, next(self._addresses))
        elif metadata["name"].startswith(self.finish) and status["phase"] == "Running":
            self.end(pod)

    def start(self, pod: Raw, ip: str) -> None:
        metadata = pod["metadata"]
        self.lives[metadata["uid"]] = Life(metadata["uid"], metadata["name"], self.namespace, ip, time.time())
        now = stamp()
        self._status(
            metadata["name"],
            {
                "phase": "Running",
                "startTime": now,
                "podIP": ip,
                "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
                "containerStatuses": [_container({"running": {"startedAt": now}})],
            },
        )

    def end(self, pod: Raw) -> None:
        self.let_go(pod["metadata"]["uid"])
        done = {"terminated": {"exitCode": 0, "startedAt": stamp(), "finishedAt": stamp()}}
        self._status(
            pod["metadata"]["name"],
            {
                "phase": "Succeeded",
                "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}],
                "containerStatuses": [_container(done)],
            },
        )

    def let_go(self, uid: str) -> None:
        life = self.lives.get(uid)
        if life is not None:
            life.until = min(life.until, time.time())

    def _status(self, name: str, status: Raw) -> None:
        self.admin.patch(f"/api/v1/namespaces/{self.namespace}/pods/{name}/status", {"status": status})


def _container(state: Raw) -> Raw:
    return {
        "name": "c",
        "image": "none",
        "imageID": "",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
    }


def _hosts() -> Any:
    return ip_network(POD_CIDR).hosts()


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_spec(**more: Any) -> Raw:
    return {"containers": [{"name": "c", "image": "none"}], "automountServiceAccountToken": False, **more}


def template(app: str, **labels: str) -> Raw:
    return {"metadata": {"labels": {"app": app, **labels}}, "spec": pod_spec()}


def deployment(name: str, replicas: int = 2) -> Raw:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name),
        },
    }
