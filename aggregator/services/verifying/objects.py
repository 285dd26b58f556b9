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
# A plug-in may take a while until its rules reach a new pod: what is not as expected is tried again for a while.
_TRY = """\
import json, socket, sys, time
settle, patience, targets = json.loads(sys.argv[1])
time.sleep(settle)
end = time.monotonic() + patience
said = [["" for _ in addresses] for addresses, _, _ in targets]
left = [(t, a) for t, (addresses, _, _) in enumerate(targets) for a in range(len(addresses))]
while True:
    for t, a in left:
        addresses, port, _ = targets[t]
        try:
            socket.create_connection((addresses[a], port), 3).close()
            said[t][a] = "o"
        except ConnectionRefusedError:
            said[t][a] = "r"
        except OSError:
            said[t][a] = "n"
    left = [(t, a) for t, a in left if (said[t][a] == "o") != targets[t][2]]
    if not left or time.monotonic() > end:
        break
    time.sleep(1)
open(sys.argv[2], "w").write(json.dumps(["".join(words) for words in said]))
"""
WORDS = {"o": "open", "r": "refused", "n": "no-answer"}  # a termination message has room for 4096 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One server as a client calls it: at each of its addresses."""

    addresses: Sequence[str]
    port: int
    open: bool  # what is expected


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


def client(
    probe: Probe, targets: Sequence[Target], *, settle_seconds: float, patience_seconds: float
) -> dict[str, Any]:
    return _pod(probe, trying(targets, settle_seconds, patience_seconds, "/dev/termination-log"), ())


def trying(targets: Sequence[Target], settle_seconds: float, patience_seconds: float, log: str) -> list[str]:
    """The command that tries them, and leaves in `log` a JSON list: for each target a letter of WORDS an address."""
    told = [[list(target.addresses), target.port, target.open] for target in targets]
    return ["python3", "-c", _TRY, json.dumps([settle_seconds, patience_seconds, told]), log]


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
