"""Kubernetes' own authority: TokenReview says who calls, SubjectAccessReview what they may do.

Enters: a bearer token, a right. Leaves: a Caller, or yes and no. Invariant: nothing is allowed that the API server did
not allow within the last minute; a token is never kept or logged, only its hash is remembered; when the API server
cannot be asked, the answer is an error, never yes.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

from aggregator.errors import ClusterError, UnauthenticatedError
from aggregator.services.authority.caller import Caller, Resource, Verb

AUDIENCE = "wattle"
GROUP = "wattle"
REMEMBER_SECONDS = 60.0
REMEMBER_ANSWERS = 10_000
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105  # a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

Post = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""POST of a JSON object to a path of the API server, with the aggregator's own credential. Raises ClusterError."""

Answer = TypeVar("Answer")


class Remembered(Generic[Answer]):
    """Answers for a short time, the oldest forgotten first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, tuple[float, Answer]] = OrderedDict()

    def get(self, key: Hashable, ask: Callable[[], Answer]) -> Answer:
        now = self._clock()
        with self._lock:
            found = self._answers.get(key)
        if found is not None and now - found[0] < REMEMBER_SECONDS:
            return found[1]
        answer = ask()
        with self._lock:
            self._answers[key] = (now, answer)
            self._answers.move_to_end(key)
            while len(self._answers) > REMEMBER_ANSWERS:
                self._answers.popitem(last=False)
        return answer


class SubjectAccess:
    """Implements Authority: one SubjectAccessReview a right, on the virtual resources of the group `wattle`."""

    def __init__(self, post: Post, clock: Callable[[], float]) -> None:
        self._post = post
        self._remembered: Remembered[bool] = Remembered(clock)

    def may(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:
        key = (name, groups, verb, resource, namespace)
        return self._remembered.get(key, lambda: self._ask(name, groups, verb, resource, namespace))

    def _ask(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:
        attributes = {"group": GROUP, "resource": resource.value, "verb": verb.value}
        if namespace:
            attributes["namespace"] = namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": name, "groups": list(groups), "resourceAttributes": attributes},
        }
        status = _status(self._post(ACCESS_REVIEWS, review))
        return status.get("allowed") is True and status.get("denied") is not True


class TokenReviews:
    """Implements the doors' Authenticator."""

    def __init__(self, post: Post, clock: Callable[[], float]) -> None:
        self._post = post
        self._authority = SubjectAccess(post, clock)
        self._remembered: Remembered[Caller | None] = Remembered(clock)

    def caller(self, token: str) -> Caller:
        if not token:
            raise UnauthenticatedError("a bearer token is needed: `wattle login` asks the API server for one")
        key = hashlib.sha256(token.encode()).digest()
        found = self._remembered.get(key, lambda: self._ask(token))
        if found is None:
            raise UnauthenticatedError("the API server does not accept this token for Wattle: log in again")
        return found

    def _ask(self, token: str) -> Caller | None:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        status = _status(self._post(TOKEN_REVIEWS, review))
        user = status.get("user") or {}
        # An authenticator that knows no audiences leaves the list out: then the token was not made for Wattle.
        if status.get("authenticated") is not True or AUDIENCE not in (status.get("audiences") or ()):
            return None
        name = user.get("username")
        if not isinstance(name, str) or not name:
            return None
        groups = tuple(sorted(str(group) for group in user.get("groups") or ()))
        return Caller(name=name, groups=groups, authority=self._authority)


def _status(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    status = answer.get("status")
    if not isinstance(status, Mapping):
        raise ClusterError("the API server answered a review without a status")
    return status
