"""The chart against a real API server: install, upgrade, roll back, uninstall, and nothing is left."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.controlplane import Admin, ApiRefusal, ControlPlane, random_name, wait_until

helm_python = pytest.importorskip("helm_python", reason="Helm's SDK has no wheel for this machine")

SOURCE = Path(__file__).parents[2] / "deploy" / "helm" / "wattle"
RELEASE = "fence"
NAME = "fence-wattle"  # the tier's own wattle-aggregator roles are not the release's
NAMESPACED = (
    "/api/v1/namespaces/{}/secrets",
    "/api/v1/namespaces/{}/services",
    "/api/v1/namespaces/{}/serviceaccounts",
    "/api/v1/namespaces/{}/persistentvolumeclaims",
    "/apis/apps/v1/namespaces/{}/deployments",
    "/apis/apps/v1/namespaces/{}/daemonsets",
    "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
)
ELSEWHERE = (
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings",
)


@pytest.fixture
def chart(tmp_path: Path) -> str:
    """Without its word on versions: these programs, built from their module, say they are v0.0.0."""
    copy = tmp_path / "wattle"
    shutil.copytree(SOURCE, copy)
    about = copy / "Chart.yaml"
    kept = [line for line in about.read_text().splitlines() if not line.startswith("kubeVersion:")]
    about.write_text("\n".join(kept))
    values = copy / "values.yaml"
    values.write_text(values.read_text().replace('kubeVersion: ""', 'kubeVersion: "1.36.2"'))
    return str(copy)


@pytest.fixture
def place(admin: Admin) -> Iterator[str]:
    name = random_name("fence")
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    admin.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def helm(plane: ControlPlane, admin: Admin, place: str) -> Iterator[Any]:
    """As a cluster administrator, who alone may hand out rights."""
    account = random_name("installer")
    admin.create("/api/v1/namespaces/kube-system/serviceaccounts", {"metadata": {"name": account}})
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    admin.create(bindings, {"metadata": {"name": account}, "roleRef": role, "subjects": [subject]})
    kubeconfig = json.dumps(plane.kubeconfig({"token": plane.token("kube-system", account)}))
    with helm_python.Config(kubeconfig_content=kubeconfig, namespace=place) as config:
        yield config
        config.uninstall(RELEASE, ignore_not_found=True)
    admin.delete(f"{bindings}/{account}")
    admin.delete(f"/api/v1/namespaces/kube-system/serviceaccounts/{account}")


def made(admin: Admin, place: str) -> list[str]:
    """Everything that carries the release's label."""
    paths = [path.format(place) for path in NAMESPACED] + list(ELSEWHERE)
    found = []
    for path in paths:
        listed = admin.get(f"{path}?labelSelector=app.kubernetes.io%2Finstance%3D{RELEASE}")
        found += [f"{path.rpartition('/')[2]}/{item['metadata']['name']}" for item in listed["items"]]
    return sorted(found)


def certificate(admin: Admin, place: str) -> dict[str, str]:
    data: dict[str, str] = admin.get(f"/api/v1/namespaces/{place}/secrets/{NAME}-ingest-tls")["data"]
    return data


def test_a_release_comes_changes_goes_back_and_goes(helm: Any, chart: str, admin: Admin, place: str) -> None:
    helm.install(chart, RELEASE, {}, namespace=place)
    plain = made(admin, place)
    assert f"daemonsets/{NAME}-agent" in plain
    assert f"clusterroles/{NAME}-aggregator" in plain
    first = certificate(admin, place)
    assert sorted(first) == ["ca.crt", "tls.crt", "tls.key"]

    changed = {
        "networkPolicy": {"enabled": True},
        "database": {"kind": "postgres", "postgres": {"secretName": "db"}},
        "aggregator": {"replicas": 2},
        "ingress": {"enabled": True, "host": "wattle.example.com", "tlsSecretName": "web"},
        "agent": {"sysResource": True, "spool": {"medium": "hostPath"}},  # this API server forbids privileged
    }
    helm.upgrade(chart, RELEASE, changed, namespace=place)
    wait_until(lambda: f"persistentvolumeclaims/{NAME}-database" not in made(admin, place), "the claim's end")
    more = set(made(admin, place)) - set(plain)
    assert more == {
        f"networkpolicies/{NAME}-agent",
        f"networkpolicies/{NAME}-aggregator",
        f"poddisruptionbudgets/{NAME}-aggregator",
        f"ingresses/{NAME}",
    }
    assert certificate(admin, place) == first, "an upgrade must not take the certificate from under the agents"

    admin.delete(f"/api/v1/namespaces/{place}/secrets/{NAME}-ingest-tls")
    helm.upgrade(chart, RELEASE, changed, namespace=place)
    renewed = certificate(admin, place)
    assert set(renewed.values()).isdisjoint(first.values())

    helm.rollback(RELEASE, version=1)
    assert made(admin, place) == plain

    helm.uninstall(RELEASE)
    wait_until(lambda: made(admin, place) == [], "the release's end")


def test_a_contradiction_makes_nothing(helm: Any, chart: str, admin: Admin, place: str) -> None:
    with pytest.raises(helm_python.HelmError, match=r"needs database\.kind=postgres"):
        helm.install(chart, RELEASE, {"aggregator": {"replicas": 2}}, namespace=place)
    assert made(admin, place) == []


def test_the_released_account_has_the_rights_of_the_view_and_no_more(
    helm: Any, chart: str, plane: ControlPlane, admin: Admin, place: str
) -> None:
    helm.install(chart, RELEASE, {}, namespace=place)
    user = f"system:serviceaccount:{place}:{NAME}-aggregator"

    def may(verb: str, group: str, resource: str, namespace: str = "") -> bool:
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        answer = admin.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    # RBAC follows its objects at its own pace.
    wait_until(lambda: may("watch", "", "pods"), "the aggregator's right to see pods")
    assert may("create", "authentication.k8s.io", "tokenreviews")
    assert not may("get", "", "secrets", place)
    assert not may("create", "networking.k8s.io", "networkpolicies", place)
    user = f"system:serviceaccount:{place}:{NAME}-agent"
    assert not may("list", "", "pods")


def test_every_object_is_taken_strictly(helm: Any, chart: str, admin: Admin, place: str) -> None:
    """Also the fields that Helm's own way of writing would let pass with a warning."""
    with helm_python.Chart.load(chart) as loaded:
        rendered = loaded.render({"networkPolicy": {"enabled": True}}, name=RELEASE, namespace=place)
    refused = []
    plural = {"NetworkPolicy": "networkpolicies"}
    for text in rendered.values():
        for each in yaml.safe_load_all(text) if "kind:" in text else ():
            if not each:
                continue
            version, kind = each["apiVersion"], each["kind"]
            within = f"namespaces/{each['metadata']['namespace']}/" if "namespace" in each["metadata"] else ""
            root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
            path = f"{root}/{within}{plural.get(kind, kind.lower() + 's')}"
            try:
                admin.create(f"{path}?dryRun=All&fieldValidation=Strict", each)
            except ApiRefusal as refusal:
                refused.append(f"{kind}: {refusal}")
    assert refused == []
