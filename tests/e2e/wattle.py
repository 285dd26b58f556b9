"""Wattle in the cluster, by its chart: released as a user would, asked as a user would, over REST with a token.

Enters: a Cluster. Leaves: rows, proposals, metrics. The database is a PostgreSQL of the test's own, as the chart wants.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import urllib3
import yaml

from tests.cluster.controlplane import Admin, wait_until
from tests.e2e.kube.cluster import Cluster
from tests.e2e.kube.images import APPLICATION
from tests.e2e.kube.machine import NAME
from tests.e2e.kube.objects import PROGRAMS_MOUNT, PROGRAMS_VOLUME, apply, is_ready, pods, programs, workload_ready

NAMESPACE = "wattle"
RELEASE = "wattle"
CHART = Path(__file__).parents[2] / "deploy" / "helm" / "wattle"
DATABASE = "wattle-db"
READY_SECONDS = 420.0  # a kubelet lets a container that ended often wait up to 5 minutes
# Nodes of one machine share a kernel: each agent takes the pods below its own kubelet's cgroup. Kubernetes fills the
# node's name in.
AGENT_SETTINGS = {"kubelet_cgroup": f"/{NAME}/$(WATTLE_NODE)"}
VALUES: dict[str, Any] = {
    "cluster": "e2e",
    "image": {"pullPolicy": "Never"},
    "agent": {"settings": AGENT_SETTINGS},
    "database": {"kind": "postgres", "postgres": {"secretName": DATABASE}},
}
MADE = (
    "/api/v1/secrets",
    "/api/v1/services",
    "/api/v1/serviceaccounts",
    "/api/v1/configmaps",
    "/api/v1/pods",
    "/api/v1/persistentvolumeclaims",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/daemonsets",
    "/apis/batch/v1/jobs",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
)


class RestError(Exception):
    """An answer that is none: status and what it said."""


class Wattle:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.admin = cluster.admin
        self._pool = urllib3.PoolManager(retries=False)
        self._token = ""

    # ---- release -----------------------------------------------------------------------------------------------------

    def install(self, **values: Any) -> None:
        self.admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        apply(self.admin, database_objects())
        wait_until(lambda: workload_ready(self.admin, NAMESPACE, "Deployment", DATABASE), "Wattle's database", 180)
        with self.helm() as helm:
            helm.install(str(CHART), RELEASE, {**VALUES, **values}, namespace=NAMESPACE)
        self.wait_ready()

    def helm(self) -> Any:
        """Helm's own SDK, as the cluster's administrator."""
        import helm_python  # its threads must be born in the cluster's network

        kubeconfig = Path(self.cluster.pki.kubeconfig("admin")).read_text()
        return helm_python.Config(kubeconfig_content=json.dumps(yaml.safe_load(kubeconfig)), namespace=NAMESPACE)

    def wait_ready(self) -> None:
        for kind, name in (("Deployment", "wattle-aggregator"), ("DaemonSet", "wattle-agent")):
            ready = partial(workload_ready, self.admin, NAMESPACE, kind, name)
            wait_until(ready, f"{kind} {name}", READY_SECONDS)
        self.login()

    # ---- REST --------------------------------------------------------------------------------------------------------

    def login(self) -> None:
        """As somebody to whom the chart's admin role is bound in the whole cluster: a token with Wattle's audience."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "olga", "namespace": NAMESPACE}}
        rbac = "rbac.authorization.k8s.io"
        binding = {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "wattle-olga"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "wattle-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "olga", "namespace": NAMESPACE}],
        }
        apply(self.admin, [account, binding])
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["wattle"], "expirationSeconds": 7200},
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/olga/token"
        self._token = self.admin.create(path, asked)["status"]["token"]

    def get(self, path: str) -> Any:
        return json.loads(self._ask("GET", f"/api/v1{path}"))

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return json.loads(self._ask("POST", f"/api/v1{path}", body, **headers) or "null")

    def put(self, path: str, body: Any, **headers: str) -> Any:
        return json.loads(self._ask("PUT", f"/api/v1{path}", body, **headers) or "null")

    def items(self, path: str) -> list[dict[str, Any]]:
        """Every page of a listing."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.get(f"{path}{'&' if '?' in path else '?'}limit=500{f'&cursor={cursor}' if cursor else ''}")
            found += page["items"]
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return found

    def _ask(self, method: str, path: str, body: Any = None, **headers: str) -> str:
        answer = self._pool.request(
            method,
            f"http://{self.address()}:8470{path}",
            body=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json", **headers},
            timeout=urllib3.Timeout(total=30),
        )
        if answer.status >= 400:
            raise RestError(f"{method} {path}: {answer.status} {answer.data.decode()[:500]}")
        return answer.data.decode()

    def address(self) -> str:
        found = pods(self.admin, NAMESPACE, "app.kubernetes.io/component=aggregator")
        ready = [pod for pod in found if is_ready(pod)]
        if not ready:
            raise OSError("no aggregator is ready")
        address: str = ready[0]["status"]["podIP"]
        return address

    def metrics(self) -> dict[str, float]:
        """The aggregator's, each by its name and labels as exposed."""
        lines = self._ask("GET", "/metrics").splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        }


def released(admin: Admin) -> list[str]:
    """Everything that carries the release's label, anywhere in the cluster."""
    found = []
    for path in MADE:
        listed = admin.get(f"{path}?labelSelector=app.kubernetes.io%2Finstance%3D{RELEASE}")
        found += [f"{path.rpartition('/')[2]}/{item['metadata']['name']}" for item in listed["items"]]
    return sorted(found)


def database_objects() -> list[dict[str, Any]]:
    labels = {"app": DATABASE}
    container = {
        "name": "main",
        "image": APPLICATION,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", "/app/postgres.py"],
        "ports": [{"containerPort": 5432}],
        "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 2},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, PROGRAMS_MOUNT],
        "resources": {"requests": {"cpu": "100m"}},
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}, PROGRAMS_VOLUME],
        "terminationGracePeriodSeconds": 3,
    }
    meta = {"name": DATABASE, "namespace": NAMESPACE}
    url = f"postgresql+psycopg://postgres@{DATABASE}/postgres"
    return [
        programs(NAMESPACE),
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"url": url}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": 5432, "targetPort": 5432}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
    ]
