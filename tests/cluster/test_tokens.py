"""Which agent a real token speaks for, asked under the aggregator's own rights."""

import asyncio
from collections.abc import Iterator

import pytest

from aggregator.cluster.identify import TokenReviewAuthenticator
from aggregator.cluster.transport import KubernetesApi
from aggregator.model.agent import Presented
from tests.cluster.controlplane import Admin, ControlPlane, random_name
from tests.cluster.kubelet import pod_spec


@pytest.fixture
def agent(plane: ControlPlane, admin: Admin) -> Iterator[str]:
    """A pod of the agents' ServiceAccount on node-2; its name."""
    name = random_name("agent")
    accounts = "/api/v1/namespaces/wattle/serviceaccounts"
    if "wattle-agent" not in {a["metadata"]["name"] for a in admin.get(accounts)["items"]}:
        admin.create(accounts, {"metadata": {"name": "wattle-agent"}})
    spec = pod_spec(nodeName="node-2", serviceAccountName="wattle-agent")
    admin.create("/api/v1/namespaces/wattle/pods", {"metadata": {"name": name}, "spec": spec})
    yield name
    admin.delete(f"/api/v1/namespaces/wattle/pods/{name}", now=True)


@pytest.fixture
def authenticator(plane: ControlPlane) -> Iterator[TokenReviewAuthenticator]:
    mine = plane.token("wattle", "wattle-aggregator", expirationSeconds=3600)
    api = KubernetesApi.from_kubeconfig(plane.kubeconfig({"token": mine}))
    yield TokenReviewAuthenticator(
        cluster="c", post=api.post, service_account="wattle/wattle-agent", node_of=lambda *_: ""
    )
    api.close()


def bound(pod: str) -> dict[str, str]:
    return {"kind": "Pod", "apiVersion": "v1", "name": pod}


def presented(token: str) -> Presented:
    return Presented(peer="ipv4:127.0.0.1:1", metadata={"authorization": f"Bearer {token}"})


async def test_a_pods_token_speaks_for_its_node(
    plane: ControlPlane, agent: str, authenticator: TokenReviewAuthenticator
) -> None:
    token = plane.token(
        "wattle", "wattle-agent", audiences=["wattle"], expirationSeconds=600, boundObjectRef=bound(agent)
    )
    found = await authenticator.authenticate(presented(token))
    assert found is not None
    assert (found.cluster, found.agent_id) == ("c", "node-2")
    assert found.expires_at is not None
    assert found.covers("c", "node-2")
    assert not found.covers("c", "node-1")


async def test_other_tokens_prove_nothing(
    plane: ControlPlane, agent: str, authenticator: TokenReviewAuthenticator
) -> None:
    other_audience = plane.token("wattle", "wattle-agent", audiences=["bank"], boundObjectRef=bound(agent))
    for_the_api = plane.token("wattle", "wattle-agent", boundObjectRef=bound(agent))
    unbound = plane.token("wattle", "wattle-agent", audiences=["wattle"])
    other_account = plane.token("default", "default", audiences=["wattle"])
    for token in (other_audience, for_the_api, unbound, other_account, "a.b.c"):
        assert await authenticator.authenticate(presented(token)) is None


async def test_a_deleted_pods_token_proves_nothing(
    plane: ControlPlane, admin: Admin, agent: str, authenticator: TokenReviewAuthenticator
) -> None:
    """The API server remembers a yes for ten seconds."""
    spec = pod_spec(nodeName="node-1", serviceAccountName="wattle-agent")
    admin.create("/api/v1/namespaces/wattle/pods", {"metadata": {"name": "gone"}, "spec": spec})
    token = plane.token("wattle", "wattle-agent", audiences=["wattle"], boundObjectRef=bound("gone"))
    assert await authenticator.authenticate(presented(token)) is not None
    admin.delete("/api/v1/namespaces/wattle/pods/gone", now=True)
    async with asyncio.timeout(60):
        while await authenticator.authenticate(presented(token)) is not None:  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(0.2)
