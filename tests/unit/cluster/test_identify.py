"""Which agent a pod's token may speak for."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from aggregator.cluster.identify import TokenReviewAuthenticator, expiry
from aggregator.cluster.transport import ApiError
from aggregator.model.agent import AgentIdentity, Presented

USER = "system:serviceaccount:wattle:wattle-agent"
ENDS = datetime(2026, 1, 1, tzinfo=UTC)


def token(claims: object = None) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims or {"exp": ENDS.timestamp()}).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


def review(**changes: Any) -> dict[str, Any]:
    extra = changes.pop("extra", {"authentication.kubernetes.io/node-name": ["node-1"]})
    status = {"authenticated": True, "audiences": ["wattle"], "user": {"username": USER, "extra": extra}}
    return {"status": status | changes}


def asked(answer: dict[str, Any] | Exception, node: str = "") -> tuple[TokenReviewAuthenticator, list[Any]]:
    posts: list[Any] = []

    def post(path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        posts.append((path, body))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def node_of(namespace: str, pod: str, uid: str) -> str:
        return node if (namespace, pod, uid) == ("wattle", "agent-x", "u1") else ""

    return (
        TokenReviewAuthenticator(cluster="c", post=post, service_account="wattle/wattle-agent", node_of=node_of),
        posts,
    )


def presented(bearer: str) -> Presented:
    return Presented(peer="ipv4:10.0.0.1:1", metadata={"authorization": bearer})


async def test_the_node_is_the_tokens_own() -> None:
    authenticator, posts = asked(review())
    found = await authenticator.authenticate(presented(f"Bearer {token()}"))
    assert found == AgentIdentity(cluster="c", agent_id="node-1", expires_at=ENDS)
    assert posts[0][1]["spec"] == {"token": token(), "audiences": ["wattle"]}


async def test_else_it_is_that_of_the_pod_the_token_is_bound_to() -> None:
    bound = {"authentication.kubernetes.io/pod-name": ["agent-x"], "authentication.kubernetes.io/pod-uid": ["u1"]}
    authenticator, _ = asked(review(extra=bound), node="node-2")
    found = await authenticator.authenticate(presented(f"Bearer {token()}"))
    assert found is not None
    assert found.agent_id == "node-2"


@pytest.mark.parametrize(
    "answer",
    [
        review(authenticated=False),
        review(audiences=[]),
        review(audiences=["https://kubernetes.default.svc"]),
        review(user={"username": "system:serviceaccount:shop:default", "extra": {}}),
        review(user={"username": "system:serviceaccount:wattle:wattle-agent-2"}),
        review(extra={}),
        {},
        ApiError("POST", 500, "no"),
        ApiError("POST", 0, "no answer"),
    ],
)
async def test_anything_else_proves_nothing(answer: dict[str, Any] | Exception) -> None:
    authenticator, _ = asked(answer)
    assert await authenticator.authenticate(presented(f"Bearer {token()}")) is None


@pytest.mark.parametrize("bearer", ["", "Bearer ", "Basic abc", "token"])
async def test_no_token_is_not_asked_about(bearer: str) -> None:
    authenticator, posts = asked(review())
    assert await authenticator.authenticate(presented(bearer)) is None
    assert posts == []


@pytest.mark.parametrize(
    "odd", ["", "a.b", "a.%%%.c", token({"exp": "soon"}), token({"iat": 1}), token({"exp": 1e300})]
)
def test_a_token_that_says_no_end_has_none(odd: str) -> None:
    assert expiry(odd) is None
