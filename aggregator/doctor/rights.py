"""Does the API server answer, and may the aggregator read what it needs?

Enters: an API. Leaves: findings. Each right is asked for by a SelfSubjectAccessReview, which everybody may make:
nothing is tried out.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from aggregator.cluster.kinds import WATCHED, Watched
from aggregator.doctor.finding import Finding, ill, poor, well
from aggregator.errors import ClusterError

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
# What is not watched, but created: (group, resource).
CREATED = (("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews"))
WAY_OUT = "install the chart's ClusterRole (rbac.create=true), or give the rights in deploy/rbac/aggregator.yaml"


class Api(Protocol):
    def get(self, path: str) -> Any: ...

    def post(self, path: str, body: dict[str, Any]) -> Any: ...


def check_api(api: Api) -> Iterator[Finding]:
    try:
        version = api.get("/version")
    except ClusterError as exc:
        yield ill(
            "API server", str(exc), "is the ServiceAccount mounted, and may this pod reach the API server's port?"
        )
        return
    yield well("API server", f"Kubernetes {version.get('gitVersion', 'of unknown version')}")
    yield from check_rights(api)


def check_rights(api: Api) -> Iterator[Finding]:
    lacking = 0
    for watched in WATCHED:
        verbs = [verb for verb in ("list", "watch") if not _may(api, verb, watched)]
        if verbs:
            lacking += 1
            what = f"may not {' and '.join(verbs)} {watched.resource}{f' of {watched.group}' if watched.group else ''}"
            yield (
                ill("rights", f"{what}: nothing works without", WAY_OUT)
                if watched.needed
                else poor("rights", f"{what}: {watched.kind} is not in the view", WAY_OUT)
            )
    for group, resource in CREATED:
        if not _allowed(api, {"verb": "create", "group": group, "resource": resource}):
            lacking += 1
            yield ill("rights", f"may not create {resource}: nobody is known, neither agents nor people", WAY_OUT)
    if not lacking:
        yield well("rights", f"may read all {len(WATCHED)} kinds, and ask who somebody is")


def _may(api: Api, verb: str, watched: Watched) -> bool:
    attributes = {"verb": verb, "group": watched.group, "resource": watched.resource}
    parts = watched.path.split("/")
    if "namespaces" in parts[:-1]:
        attributes["namespace"] = parts[parts.index("namespaces") + 1]
        attributes["name"] = watched.field_selector.partition("=")[2]
    return _allowed(api, attributes)


def _allowed(api: Api, attributes: dict[str, str]) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        return bool(api.post(REVIEWS, review)["status"].get("allowed"))
    except ClusterError:
        return False
