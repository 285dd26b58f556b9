"""`wattle` with a real API server: who may, gets a token that opens Wattle and nothing else."""

from collections.abc import Iterator

import pytest

from aggregator.cluster.reach import Reach
from aggregator.cluster.transport import ApiError, KubernetesApi
from aggregator.errors import ClusterError
from aggregator.services.authority.caller import Resource, Verb
from aggregator.services.authority.kubernetes import TokenReviews
from tests.cluster.controlplane import Admin, ControlPlane

RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
def reach(plane: ControlPlane) -> Iterator[Reach]:
    """As the tests' own administrator."""
    found = Reach.of(plane._admin_kubeconfig())
    yield found
    found.close()


@pytest.fixture
def reviews(plane: ControlPlane) -> Iterator[TokenReviews]:
    mine = plane.token("wattle", "wattle-aggregator", expirationSeconds=3600)
    api = KubernetesApi.from_kubeconfig(plane.kubeconfig({"token": mine}))
    ticks = iter(range(0, 10**9, 3600))  # nothing is remembered
    yield TokenReviews(api.post, lambda: float(next(ticks)))
    api.close()


def test_the_token_is_for_wattle_alone_and_has_the_rights_of_its_binding(
    plane: ControlPlane, admin: Admin, namespace: str, reach: Reach, reviews: TokenReviews
) -> None:
    admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "wattle"}})
    token = reach.token(namespace, "wattle")
    caller = reviews.caller(token)
    assert caller.name == f"system:serviceaccount:{namespace}:wattle"
    assert not caller.may(Verb.LIST, Resource.LINKS, namespace)
    role = {"apiGroups": ["wattle"], "resources": ["links"], "verbs": ["get", "list"]}
    admin.create(f"{RBAC}/namespaces/{namespace}/roles", {"metadata": {"name": "viewer"}, "rules": [role]})
    binding = {
        "metadata": {"name": "viewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "viewer"},
        "subjects": [{"kind": "ServiceAccount", "name": "wattle", "namespace": namespace}],
    }
    admin.create(f"{RBAC}/namespaces/{namespace}/rolebindings", binding)
    assert caller.may(Verb.LIST, Resource.LINKS, namespace)
    assert not caller.may(Verb.LIST, Resource.LINKS, "kube-system")
    assert not caller.may(Verb.UPDATE, Resource.LINKS, namespace)
    as_wattle = KubernetesApi.from_kubeconfig(plane.kubeconfig({"token": token}))
    with pytest.raises(ApiError) as refused:
        as_wattle.get("/api/v1/namespaces")
    assert refused.value.status == 401, "the API server itself does not take it"
    as_wattle.close()


def test_a_missing_account_is_named_with_the_way_out(reach: Reach, namespace: str) -> None:
    with pytest.raises(ClusterError, match=r"there is no ServiceAccount nobody .* --service-account"):
        reach.token(namespace, "nobody")
