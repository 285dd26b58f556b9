"""What a trial puts into a cluster: one Job that ends at once and is cleared away, and everything else owned by it.

Invariant: the Job has no pod and is complete when it is made, so Kubernetes itself deletes it after its lifetime, and
with it the ConfigMaps and pods, whatever became of who made them. The ConfigMap is the pods' controller: no ReplicaSet
adopts a pod that has one. A readiness gate that nobody opens keeps Services from sending anything to these pods.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aggregator.model.cluster import Pod
from aggregator.model.workload import TRIAL

PREFIX = TRIAL
GATE = "wattle/never"
MARK = "wattle-verify"  # an annotation: labels are the workload's own, no more and no less

_SERVE = """\
import socket, sys, time
for port in map(int, sys.argv[2:]):
    server = socket.socket(socket.AF_INET6)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("::", port))
    server.listen()
time.sleep(float(sys.argv[1]))
"""
# A message may have 4096 bytes: what is alike at every address is said once.
_TRY = """\
import json, socket, sys, time
from concurrent.futures import ThreadPoolExecutor

def fate(target):
    for _ in range(3):
        try:
            socket.create_connection(target, 3).close()
            return "open"
        except ConnectionRefusedError:
            last = "refused"
        except OSError:
            last = "no-answer"
        time.sleep(2)
    return last

time.sleep(float(sys.argv[1]))
said = []
with ThreadPoolExecutor(2) as pool:
    for addresses, port in json.loads(sys.argv[2]):
        words = list(pool.map(fate, [(address, port) for address in addresses]))
        said.append(words[0] if len(set(words)) == 1 else ",".join(words))
open("/dev/termination-log", "w").write(json.dumps(said))
"""


def job(name: str, lifetime_seconds: int) -> dict[str, Any]:
    """Complete as soon as it is made: zero completions are wanted."""
    container = {"name": "none", "image": "none"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": PREFIX}},
        "spec": {
            "completions": 0,
            "parallelism": 0,
            "backoffLimit": 0,
            "activeDeadlineSeconds": lifetime_seconds,
            "ttlSecondsAfterFinished": lifetime_seconds,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def config_map(name: str, owner: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": PREFIX},
            "ownerReferences": [_owner("batch/v1", "Job", owner, controller=False)],
        },
        "data": {"what": "owns the pods of one run of `wattle verify`; goes with its Job"},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One pod to start: named so, with the labels of `like`, owned by this ConfigMap."""

    name: str
    like: Pod
    owner: Mapping[str, Any]
    image: str
    seconds: int


def server(probe: Probe, ports: Sequence[int]) -> dict[str, Any]:
    declared = [
        {"containerPort": port.port, "protocol": port.protocol.value, **({"name": port.name} if port.name else {})}
        for port in probe.like.ports
    ]
    return _pod(probe, ["python3", "-c", _SERVE, str(probe.seconds), *map(str, ports)], declared)


def client(probe: Probe, targets: Sequence[tuple[Sequence[str], int]], *, settle_seconds: float) -> dict[str, Any]:
    """A target is every address of a server, and the port."""
    return _pod(probe, ["python3", "-c", _TRY, str(settle_seconds), json.dumps(targets)], ())


def _pod(probe: Probe, command: Sequence[str], ports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": probe.name,
            "labels": dict(probe.like.labels),
            "annotations": {MARK: str(probe.like)},
            "ownerReferences": [_owner("v1", "ConfigMap", probe.owner, controller=True)],
        },
        "spec": {
            "activeDeadlineSeconds": probe.seconds,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "readinessGates": [{"conditionType": GATE}],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "containers": [
                {
                    "name": "probe",
                    "image": probe.image,
                    "command": command,
                    **({"ports": list(ports)} if ports else {}),
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def _owner(version: str, kind: str, owner: Mapping[str, Any], *, controller: bool) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": controller,
        "blockOwnerDeletion": False,
    }
