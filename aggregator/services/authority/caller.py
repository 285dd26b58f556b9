"""Caller: who asks, and what they may see and say.

Enters: a name and an Authority (Kubernetes' own, or everything in development mode). Leaves: yes, or ForbiddenError.
Invariant: a namespace that a caller may not see and one that does not exist give the same answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from aggregator.errors import ForbiddenError

EVERY_NAMESPACE = ""


class Verb(StrEnum):
    GET = "get"
    LIST = "list"
    UPDATE = "update"
    APPROVE = "approve"


class Resource(StrEnum):
    """The virtual resources of the API group `wattle`."""

    LINKS = "links"
    BASELINES = "baselines"
    POLICIES = "policies"
    DECISIONS = "decisions"
    ADDRESSES = "addresses"
    SETTINGS = "settings"
    AGENTS = "agents"


class Authority(Protocol):
    """Asked once for every right; implementations remember their answers for a short time."""

    def may(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:
        """Namespace "" asks for the right in the whole cluster."""
        ...


class Everything:
    """Development mode: everybody may do everything. Only ever wired on a loopback address."""

    def may(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:  # noqa: ARG002  # the Protocol's signature
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    name: str
    authority: Authority = field(repr=False, compare=False)
    groups: tuple[str, ...] = ()
    development: bool = False

    def may(self, verb: Verb, resource: Resource, namespace: str = EVERY_NAMESPACE) -> bool:
        """A right in the whole cluster is one in each namespace, as in Kubernetes."""
        if self.authority.may(self.name, self.groups, verb, resource, namespace):
            return True
        return bool(namespace) and self.authority.may(self.name, self.groups, verb, resource, EVERY_NAMESPACE)

    def must(self, verb: Verb, resource: Resource, namespace: str = EVERY_NAMESPACE) -> None:
        """Raises ForbiddenError."""
        if not self.may(verb, resource, namespace):
            where = f"in the namespace {namespace}" if namespace else "in the whole cluster"
            raise ForbiddenError(
                f"{self.name} may not {verb} {resource}.wattle {where}: ask for a role that has this right"
            )

    def sees(self, namespace: str) -> bool:
        return self.may(Verb.LIST, Resource.LINKS, namespace)

    def seen_of(self, namespaces: Iterable[str]) -> frozenset[str]:
        """Those of the namespaces whose links this caller may see."""
        names = frozenset(namespaces)
        return names if self.sees(EVERY_NAMESPACE) else frozenset(name for name in names if self.sees(name))


def developer() -> Caller:
    """The one caller of development mode."""
    return Caller(name="developer", authority=Everything(), development=True)
