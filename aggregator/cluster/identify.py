"""Who an agent is, by the token of its pod: the Kubernetes authenticator of FlowLink.

Enters: a connection's bearer token (a projected ServiceAccount token for our audience). Leaves: the one agent that it
may speak for, its node. Invariant: the API server has said that the token is good for our audience and belongs to the
agents' ServiceAccount; the node is the token's own, else that of the pod it is bound to; else it proves nothing.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aggregator import metrics
from aggregator.errors import ClusterError
from aggregator.model.agent import AgentIdentity, Presented

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
AUDIENCE = "wattle"
# https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#additional-metadata-in-pod-bound-tokens
NODE_NAME = "authentication.kubernetes.io/node-name"
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"

Post = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


class TokenReviewAuthenticator:
    """Implements AgentAuthenticator. `node_of(namespace, pod, uid)`: the node of a pod, "" when it is not known."""

    def __init__(
        self,
        *,
        cluster: str,
        post: Post,
        service_account: str,
        node_of: Callable[[str, str, str], str],
        audience: str = AUDIENCE,
    ) -> None:
        self._cluster = cluster
        self._post = post
        namespace, _, name = service_account.partition("/")
        self._user = f"system:serviceaccount:{namespace}:{name}"
        self._namespace = namespace
        self._node_of = node_of
        self._audience = audience

    async def authenticate(self, presented: Presented) -> AgentIdentity | None:
        scheme, _, token = presented.metadata.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return self._nobody("no-token")
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            answer = await asyncio.to_thread(self._post, PATH, review)
        except ClusterError:
            return self._nobody("no-answer")
        status = answer.get("status") or {}
        user = status.get("user") or {}
        if not status.get("authenticated") or self._audience not in (status.get("audiences") or ()):
            return self._nobody("not-authenticated")
        if user.get("username") != self._user:
            return self._nobody("other-account")
        extra = user.get("extra") or {}
        node = _first(extra, NODE_NAME) or self._node_of(
            self._namespace, _first(extra, POD_NAME), _first(extra, POD_UID)
        )
        if not node:
            return self._nobody("no-node")
        self._count("authenticated")
        return AgentIdentity(cluster=self._cluster, agent_id=node, expires_at=expiry(token))

    def _nobody(self, reason: str) -> AgentIdentity | None:
        self._count(reason)
        return None

    def _count(self, outcome: str) -> None:
        metrics.CLUSTER_TOKEN_REVIEWS.labels(self._cluster, outcome).inc()


def _first(extra: Mapping[str, Any], key: str) -> str:
    values = extra.get(key) or [""]
    return str(values[0])


def expiry(token: str) -> datetime | None:
    """When a token that the API server has vouched for ends, by its own claim; None when it says nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
