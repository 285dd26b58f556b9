"""Dry runs: what the API server would say to a policy, without anything being kept.

Enters: a NetworkPolicy as an object. Leaves: a DryRunAnswer. Invariant: every request has dryRun=All, which is written
here and nowhere else; a refusal is an answer, only an API server that cannot be asked is an error.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from aggregator.cluster.transport import NO_ANSWER, ApiError
from aggregator.model.dryrun import DryRunAnswer

FIELD_OWNER = "wattle-dry-run"
_NO_RIGHT = 403


class Patching(Protocol):
    """What is asked of cluster.transport.KubernetesApi."""

    def apply(
        self, path: str, body: Mapping[str, Any], query: Mapping[str, object]
    ) -> tuple[int, dict[str, Any], tuple[str, ...]]:
        """Status, object, warnings. Raises ApiError."""
        ...


class ServerSideDryRun:
    """Server-side apply with dryRun=All: admission, quota and validation are the API server's own. Blocking."""

    def __init__(self, api: Patching) -> None:
        self._api = api

    def try_policy(self, policy: Mapping[str, Any]) -> DryRunAnswer:
        """Raises ApiError when nothing answers, or when the right to ask is missing."""
        namespace, name = policy["metadata"]["namespace"], policy["metadata"]["name"]
        path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}"
        query = {"dryRun": "All", "fieldManager": FIELD_OWNER, "force": "true"}
        try:
            status, _, warnings = self._api.apply(path, policy, query)
        except ApiError as error:
            if error.status in {NO_ANSWER, 401, 429} or error.status >= 500:
                raise
            if error.status == _NO_RIGHT and "cannot patch" in str(error):
                return DryRunAnswer(outcome="not-asked", message=f"the aggregator lacks the right to ask: {error}")
            return DryRunAnswer(outcome="refused", message=str(error))
        outcome: Literal["created", "accepted"] = "created" if status == 201 else "accepted"
        return DryRunAnswer(outcome=outcome, message="; ".join(warnings))
