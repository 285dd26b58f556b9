"""Kubernetes objects by their manifests: create or replace, wait, and those that every cluster has."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster.controlplane import Admin, ApiRefusal, Raw
from tests.e2e.kube.images import APPLICATION

PROGRAMS = Path(__file__).parents[1] / "programs"
PLURALS = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses", "StorageClass": "storageclasses"}
CLUSTER_WIDE = {"Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "PersistentVolume", "StorageClass"}


def collection(manifest: Raw) -> str:
    version, kind = manifest["apiVersion"], manifest["kind"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    if kind in CLUSTER_WIDE:
        return f"{root}/{plural}"
    return f"{root}/namespaces/{manifest['metadata'].get('namespace', 'default')}/{plural}"


def apply(admin: Admin, manifests: Iterable[Raw]) -> None:
    """Each created, or, where it is there, replaced in what the manifest says. Unknown fields are refused."""
    for manifest in manifests:
        path = collection(manifest)
        try:
            admin.create(f"{path}?fieldValidation=Strict", manifest)
        except ApiRefusal as refusal:
            # A Service that is there is refused for its port's sake (422) before it is for its name's (409).
            if refusal.status not in {409, 422}:
                raise
            admin.patch(f"{path}/{manifest['metadata']['name']}?fieldValidation=Strict", manifest)


def delete(admin: Admin, manifest: Raw) -> None:
    admin.delete(f"{collection(manifest)}/{manifest['metadata']['name']}")


def is_ready(found: Raw) -> bool:
    """A pod or a node, by its own word."""
    conditions = found["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def workload_ready(admin: Admin, namespace: str, kind: str, name: str) -> bool:
    """Every replica of the newest generation runs and is ready, and none of an older one is left."""
    found = admin.get(f"/apis/apps/v1/namespaces/{namespace}/{kind.lower()}s/{name}")
    status = found["status"]
    if status.get("observedGeneration", 0) < found["metadata"]["generation"]:
        return False
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(wanted) and status.get("numberReady") == wanted == status.get("updatedNumberScheduled")
    wanted = found["spec"]["replicas"]
    return bool(
        status.get("readyReplicas", 0) == wanted
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
    )


def pods(admin: Admin, namespace: str, labels: str = "") -> list[dict[str, Any]]:
    asked = f"?labelSelector={labels.replace('=', '%3D')}" if labels else ""
    found: list[dict[str, Any]] = admin.get(f"/api/v1/namespaces/{namespace}/pods{asked}")["items"]
    return found


def programs(namespace: str) -> Raw:
    """What runs in the image's Debian: mounted at /app."""
    data = {path.name: path.read_text() for path in sorted(PROGRAMS.glob("*.py"))}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "programs", "namespace": namespace},
        "data": data,
    }


PROGRAMS_VOLUME: Raw = {"name": "programs", "configMap": {"name": "programs"}}
PROGRAMS_MOUNT: Raw = {"name": "programs", "mountPath": "/app", "readOnly": True}


def dns_objects(address: str) -> list[Raw]:
    """dnsmasq behind the Service kube-dns, told by a program that watches Services and their endpoints."""
    namespace, name = "kube-system", "kube-dns"
    labels = {"k8s-app": "kube-dns"}
    account = {"metadata": {"name": name, "namespace": namespace}}
    rules = [
        {"apiGroups": [""], "resources": ["services"], "verbs": ["list"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    container = {
        "name": "dns",
        "image": APPLICATION,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", "/app/dns.py"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1},
        "volumeMounts": [PROGRAMS_MOUNT],
        "resources": {"requests": {"cpu": "100m"}},  # as CoreDNS asks for; without, a busy node lets it starve
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "serviceAccountName": name,
            "dnsPolicy": "Default",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [PROGRAMS_VOLUME],
        },
    }
    return [
        programs(namespace),
        {"apiVersion": "v1", "kind": "ServiceAccount", **account},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "clusterIP": address,
                "selector": labels,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": "dns-tcp"},
                ],
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
    ]
