"""Parts of an application as Kubernetes objects.

Enters: a Part. Leaves: its Service and its workload; `objects` is the whole application.
"""

import json

from tests.cluster.controlplane import Raw
from tests.e2e.application import NAMESPACES, PARTS, Part
from tests.e2e.kube.images import APPLICATION
from tests.e2e.kube.objects import PROGRAMS_MOUNT, PROGRAMS_VOLUME, programs


def objects(*, version: str = "1") -> list[Raw]:
    """Every object of the application; another `version` labels every pod anew: a rolling update."""
    found: list[Raw] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}}
        for name in NAMESPACES
    ]
    found += [programs(name) for name in NAMESPACES]
    return found + [manifest for part in PARTS for manifest in manifests_of(part, version=version)]


def manifests_of(part: Part, *, version: str = "1") -> list[Raw]:
    return [*([_service(part)] if part.service else []), _workload(part, version)]


def _service(part: Part) -> Raw:
    spec: Raw = {
        "selector": {"app": part.name},
        "ports": [
            {
                "name": target,
                "port": port,
                "targetPort": target,
                "protocol": part.protocol_of(part.ports[target]),
                **({"nodePort": part.node_port} if part.node_port else {}),
            }
            for port, target in part.service.items()
        ],
    }
    spec["ipFamilies"] = [family.name for family in part.families]
    spec["ipFamilyPolicy"] = "SingleStack" if len(part.families) == 1 else "RequireDualStack"
    if part.headless:
        spec["clusterIP"] = "None"
    if part.node_port:
        spec["type"] = "NodePort"
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(part), "spec": spec}


def _meta(part: Part) -> Raw:
    return {"name": part.name, "namespace": part.namespace}


def _workload(part: Part, version: str) -> Raw:
    labels = {"app": part.name}
    template = {"metadata": {"labels": {**labels, "version": version}}, "spec": _pod(part)}
    match part.kind:
        case "CronJob":
            job = {"template": template, "backoffLimit": 3}
            spec: Raw = {
                "schedule": "* * * * *",
                "jobTemplate": {"spec": job},
                "successfulJobsHistoryLimit": 1,
                "concurrencyPolicy": "Forbid",
            }
            return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": _meta(part), "spec": spec}
        case "Job":
            spec = {"template": template, "backoffLimit": 10, "ttlSecondsAfterFinished": 0}
            return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _meta(part), "spec": spec}
        case "DaemonSet":
            spec = {"selector": {"matchLabels": labels}, "template": template}
        case "StatefulSet":
            spec = {
                "selector": {"matchLabels": labels},
                "template": template,
                "replicas": part.replicas,
                "serviceName": part.name,
                "podManagementPolicy": "Parallel",
            }
        case _:
            spec = {"selector": {"matchLabels": labels}, "template": template, "replicas": part.replicas}
    return {"apiVersion": "apps/v1", "kind": part.kind, "metadata": _meta(part), "spec": spec}


def _pod(part: Part) -> Raw:
    once = part.kind in {"Job", "CronJob"}
    container: Raw = {
        "name": "main",
        "image": APPLICATION,
        "imagePullPolicy": "Never",
        "command": list(part.command),
        "ports": [
            {"name": name, "containerPort": port, "protocol": part.protocol_of(port)}
            for name, port in part.ports.items()
        ],
        "volumeMounts": [PROGRAMS_MOUNT],
        # Without a request a busy node would give it next to nothing beside those who asked.
        "resources": {"requests": {"cpu": "20m"}},
    }
    if part.command[-1] == "/app/app.py":
        plan = {"process": part.comm, "listen": part.listen, "calls": part.calls, "once": once}
        container["env"] = [{"name": "PLAN", "value": json.dumps(plan)}]
    probed = next((port for port in part.ports.values() if part.protocol_of(port) == "TCP"), None)
    if probed is not None and not once:
        container["readinessProbe"] = {"tcpSocket": {"port": probed}, "periodSeconds": 2}
    spec: Raw = {
        "containers": [container],
        "volumes": [PROGRAMS_VOLUME],
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
    }
    if part.kind == "DaemonSet":
        spec["hostNetwork"] = part.host_network
        spec["dnsPolicy"] = "ClusterFirstWithHostNet"
        spec["tolerations"] = [{"operator": "Exists"}]
    if once:
        spec["restartPolicy"] = "Never"
    if part.replicas > 1:
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": part.name}},
            }
        ]
    return spec
