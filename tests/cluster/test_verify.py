"""`wattle verify` on a real API server under its own Role: least rights, and nothing stays, also when it is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.cluster.transport import KubernetesApi
from aggregator.errors import ForbiddenError, InputError
from aggregator.model.verdict import Verdict
from aggregator.policy.profiles.known import GENERIC
from aggregator.services.verifying.verify import Asked, Report, verify
from tests.cluster.controlplane import Admin, ApiRefusal, ControlPlane, Raw, random_name, wait_until
from tests.cluster.kubelet import Kubelet, pod_spec

ROLE = Path(__file__).parents[2] / "deploy" / "rbac" / "verify.yaml"


class ProbeKubelet(Kubelet):
    """Lets clients of a trial end with what `enforced` says: the plug-in of this cluster that has none."""

    enforced = True

    def start(self, pod: Raw, ip: str) -> None:
        Kubelet.start(self, pod, ip)
        run_name, _, own_name = pod["metadata"]["name"].rpartition("-")  # a run's name may begin with any letter
        if not run_name or not own_name.startswith("c"):
            return
        targets = json.loads(pod["spec"]["containers"][0]["command"][-1])
        servers = {
            p["status"].get("podIP"): p["metadata"]["labels"]["app"]
            for p in self.admin.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
            if p["metadata"]["name"].startswith("wattle-verify")
        }
        own = pod["metadata"]["labels"]["app"]
        said = ["open" if not self.enforced or (own, servers[t[0][0]]) != ("c", "b") else "no-answer" for t in targets]
        state = {"exitCode": 0, "message": json.dumps(said), "startedAt": None, "finishedAt": None}
        container = {"name": "probe", "image": "none", "imageID": "", "ready": False, "restartCount": 0}
        self._status(
            pod["metadata"]["name"],
            {"phase": "Succeeded", "containerStatuses": [{**container, "state": {"terminated": state}}]},
        )


@pytest.fixture
def shop(admin: Admin) -> Iterator[str]:
    """a, b and c; only a may call b. Somebody has the Role, and nothing else."""
    name = random_name("verify")
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    wait_until(lambda: admin.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "the default ServiceAccount")
    admin.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "tester"}})
    role = yaml.safe_load(ROLE.read_text())
    admin.create(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/roles", role)
    admin.create(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings",
        {
            "metadata": {"name": "tester"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "wattle-verify"},
            "subjects": [{"kind": "ServiceAccount", "name": "tester", "namespace": name}],
        },
    )
    for app in ("a", "b", "c"):
        spec = pod_spec(containers=[{"name": "c", "image": "none", "ports": [{"containerPort": 80}]}])
        pod = {"metadata": {"name": app, "labels": {"app": app}}, "spec": spec}
        admin.create(f"/api/v1/namespaces/{name}/pods", pod)
    guard = {
        "metadata": {"name": "guard"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "b"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}],
        },
    }
    admin.create(f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies", guard)
    yield name
    for pod in admin.get(f"/api/v1/namespaces/{name}/pods")["items"]:  # nobody plays their kubelet any more
        with contextlib.suppress(ApiRefusal):  # the garbage collector may be quicker
            admin.delete(f"/api/v1/namespaces/{name}/pods/{pod['metadata']['name']}", now=True)
    admin.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def api(plane: ControlPlane, shop: str) -> Iterator[KubernetesApi]:
    """As the tester, with exactly the Role that is shipped."""
    opened = KubernetesApi.from_kubeconfig(kubeconfig(plane, shop))
    yield opened
    opened.close()


def kubeconfig(plane: ControlPlane, shop: str) -> Raw:
    return plane.kubeconfig({"token": plane.token(shop, "tester", expirationSeconds=3600)})


def asked(*namespaces: str, limit: int = 20, **more: Any) -> Asked:
    return Asked(
        namespaces=namespaces, limit=limit, image="none", profile=GENERIC, settle_seconds=0, poll_seconds=0.1, **more
    )


def run(api: KubernetesApi, shop: str) -> Report:
    return verify(api, asked(shop))


def left(admin: Admin, shop: str) -> list[str]:
    return [
        f"{kind}/{item['metadata']['name']}"
        for kind, path in (
            ("pod", f"/api/v1/namespaces/{shop}/pods"),
            ("configmap", f"/api/v1/namespaces/{shop}/configmaps"),
            ("job", f"/apis/batch/v1/namespaces/{shop}/jobs"),
        )
        for item in admin.get(path)["items"]
        if item["metadata"]["name"].startswith("wattle-verify")
    ]


def test_what_happens_is_compared_pair_by_pair_and_nothing_stays(api: KubernetesApi, admin: Admin, shop: str) -> None:
    with ProbeKubelet(admin, shop) as kubelet:
        wait_until(lambda: all(p["status"].get("podIP") for p in pods(admin, shop)), "addresses")
        report = run(api, shop)
        assert {(t.pair.src.name, t.pair.dst.name, t.pair.expected) for t in report.tried} == {
            ("a", "b", Verdict.ALLOWED),
            ("a", "c", Verdict.ALLOWED),
            ("b", "a", Verdict.ALLOWED),
            ("b", "c", Verdict.ALLOWED),
            ("c", "a", Verdict.ALLOWED),
            ("c", "b", Verdict.DENIED),
        }
        assert all(t.agrees for t in report.tried)
        kubelet.enforced = False
        differing = [t for t in run(api, shop).tried if not t.agrees]
        assert [(t.pair.src.name, t.pair.dst.name) for t in differing] == [("c", "b")]
        wait_until(lambda: left(admin, shop) == [], "everything gone", seconds=60)


def test_the_pods_are_no_services_and_no_replicasets_own(api: KubernetesApi, admin: Admin, shop: str) -> None:
    seen: dict[str, Raw] = {}

    class Watching(ProbeKubelet):
        def start(self, pod: Raw, ip: str) -> None:
            seen[pod["metadata"]["name"]] = pod
            ProbeKubelet.start(self, pod, ip)

    with Watching(admin, shop):
        wait_until(lambda: all(p["status"].get("podIP") for p in pods(admin, shop)), "addresses")
        run(api, shop)
    probes = [pod for name, pod in seen.items() if name.startswith("wattle-verify")]
    assert len(probes) == 6
    for pod in probes:
        (owner,) = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["controller"]) == ("ConfigMap", True)
        assert pod["spec"]["readinessGates"] == [{"conditionType": "wattle/never"}]
        assert pod["spec"]["activeDeadlineSeconds"] == 300
        assert set(pod["metadata"]["labels"]) == {"app"}


def test_killed_it_leaves_nothing(plane: ControlPlane, admin: Admin, shop: str, tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig(plane, shop)))
    program = """
import sys
from pathlib import Path
from aggregator.cluster.transport import KubernetesApi
from aggregator.policy.profiles.known import GENERIC
from aggregator.services.verifying.verify import Asked, verify
api = KubernetesApi.from_kubeconfig(Path(sys.argv[1]))
asked = Asked(
    namespaces=(sys.argv[2],), limit=4, image="none", profile=GENERIC, lifetime_seconds=20, poll_seconds=0.1
)
verify(api, asked)
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program, str(tmp_path / "kubeconfig"), shop]
    with subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}) as running:
        try:  # nobody plays the kubelet: it waits for its servers
            wait_until(lambda: any(n.startswith("pod/") for n in left(admin, shop)), "a pod of the trial", seconds=60)
        finally:
            running.send_signal(signal.SIGKILL)
    with ProbeKubelet(admin, shop):  # pods that are deleted go when their kubelet says so
        wait_until(lambda: left(admin, shop) == [], "everything gone by itself", seconds=120)


def test_without_a_scope_a_limit_or_the_role_nothing_is_started(
    plane: ControlPlane, api: KubernetesApi, admin: Admin, shop: str
) -> None:
    with pytest.raises(InputError, match="name the namespaces"):
        verify(api, asked())
    for limit in (0, 201):
        with pytest.raises(InputError, match="how many pairs"):
            verify(api, asked(shop, limit=limit))
    with pytest.raises(ForbiddenError, match="may not verify in the namespace kube-system"):
        verify(api, asked("kube-system"))
    with pytest.raises(ForbiddenError, match="may not verify in the namespace kube-system"):
        verify(api, asked(shop, "kube-system"))
    assert left(admin, shop) == []


def test_every_right_of_the_role_is_needed(plane: ControlPlane, admin: Admin, shop: str, api: KubernetesApi) -> None:
    """Least rights: without any one verb a run is refused with a sentence."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{shop}/roles/wattle-verify"
    whole = admin.get(path)["rules"]
    with ProbeKubelet(admin, shop):
        wait_until(lambda: all(p["status"].get("podIP") for p in pods(admin, shop)), "addresses")
        for number, rule in enumerate(whole):
            for verb in rule["verbs"]:
                if verb == "delete":
                    continue  # without it the run ends well and the Job goes by itself
                less = [
                    {**r, "verbs": [v for v in r["verbs"] if (n, v) != (number, verb)]} for n, r in enumerate(whole)
                ]
                less = [r for r in less if r["verbs"]]
                admin.patch(path, {"rules": less})
                with pytest.raises((ForbiddenError, Exception), match=r"may not verify|forbidden"):
                    run(api, shop)
        admin.patch(path, {"rules": whole})


def pods(admin: Admin, shop: str) -> list[Raw]:
    found: list[Raw] = admin.get(f"/api/v1/namespaces/{shop}/pods")["items"]
    return [pod for pod in found if pod["metadata"]["name"] in {"a", "b", "c"}]
