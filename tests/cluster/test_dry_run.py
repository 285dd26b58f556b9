"""What a real API server says to policies that it is asked about and does not keep."""

from collections.abc import Iterator
from typing import Any

import pytest

from aggregator.cluster.dryrun import ServerSideDryRun
from aggregator.cluster.transport import KubernetesApi
from tests.cluster.controlplane import Admin, ControlPlane, random_name


def policy(namespace: str, name: str = "wattle-web", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], **spec},
    }


@pytest.fixture
def account(admin: Admin) -> Iterator[str]:
    """A ServiceAccount with what the chart's rbac.dryRun grants."""
    name = random_name("trying")
    admin.create("/api/v1/namespaces/wattle/serviceaccounts", {"metadata": {"name": name}})
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rule = {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create", "patch"]}
    admin.create(f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": [rule]})
    admin.create(
        f"{rbac}/clusterrolebindings",
        {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "wattle"}],
        },
    )
    yield name
    admin.delete(f"{rbac}/clusterrolebindings/{name}")
    admin.delete(f"{rbac}/clusterroles/{name}")


def trying(plane: ControlPlane, account: str) -> ServerSideDryRun:
    return ServerSideDryRun(KubernetesApi.from_kubeconfig(plane.kubeconfig({"token": plane.token("wattle", account)})))


def test_nothing_is_kept_whatever_is_tried(plane: ControlPlane, admin: Admin, namespace: str, account: str) -> None:
    policies = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    server = trying(plane, account)
    assert server.try_policy(policy(namespace)).outcome == "created"
    assert admin.get(policies)["items"] == []
    admin.create(policies, policy(namespace, name="wattle-db"))
    assert server.try_policy(policy(namespace, name="wattle-db", policyTypes=["Egress"])).outcome == "accepted"
    assert admin.get(f"{policies}/wattle-db")["spec"]["policyTypes"] == ["Ingress"]


def test_a_refusal_is_the_servers_own_sentence(plane: ControlPlane, namespace: str, account: str) -> None:
    answer = trying(plane, account).try_policy(policy(namespace, policyTypes=["Sideways"]))
    assert answer.outcome == "refused"
    assert 'Unsupported value: "Sideways"' in answer.message
    assert trying(plane, account).try_policy(policy("no-such-namespace")).outcome == "refused"


def test_without_the_right_it_says_that_it_was_not_asked(plane: ControlPlane, namespace: str) -> None:
    answer = trying(plane, "wattle-aggregator").try_policy(policy(namespace))
    assert answer.outcome == "not-asked"
    assert "lacks the right" in answer.message
