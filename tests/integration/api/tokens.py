"""Callers of the tests, by their tokens."""

from dataclasses import dataclass

from aggregator.api.limits import Rate
from aggregator.errors import UnauthenticatedError
from aggregator.services.authority.caller import Caller, Everything, Resource, Verb


@dataclass(frozen=True)
class Only:
    """May do these things in these namespaces, and nothing in the whole cluster."""

    verbs: frozenset[Verb]
    namespaces: frozenset[str]

    def may(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:
        return verb in self.verbs and namespace in self.namespaces


READING = frozenset({Verb.GET, Verb.LIST})
SHOP_ALONE = frozenset({"shop", "kube-system"})


@dataclass(frozen=True)
class Tokens:
    """`admin` may do everything, `viewer` and `editor` what their role may in one namespace; others are nobody."""

    namespaces: frozenset[str] = SHOP_ALONE

    def caller(self, token: str) -> Caller:
        match token:
            case "admin":
                return Caller(name="admin", authority=Everything())
            case "viewer":
                return Caller(name="viewer", authority=Only(READING, self.namespaces))
            case "editor":
                return Caller(name="editor", authority=Only(READING | {Verb.UPDATE}, self.namespaces))
            case _:
                raise UnauthenticatedError("the token is not known")


UNLIMITED = Rate(burst=10**9)
