"""The words that descriptions of policies of all kinds share, and how a description is laid out.

Enters: selectors and ports; a Description. Leaves: nouns; lines for a person.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from aggregator.model.cluster import NAMESPACE_NAME_LABEL, Pod
from aggregator.model.networkpolicy import LabelSelector, Operator, PolicyPort, Requirement
from aggregator.model.protocol import Direction

DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedRule:
    """One rule: its peers and ports, each a phrase; `action` where rules do not just allow."""

    peers: tuple[str, ...]
    ports: tuple[str, ...]
    action: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedDirection:
    direction: Direction
    isolated: bool
    says: str
    rules: tuple[DescribedRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """`kind` is the object's own; `namespace` is "" for a cluster-wide policy."""

    kind: str
    name: str
    namespace: str
    selects: str
    workloads: tuple[str, ...]
    directions: tuple[DescribedDirection, ...]
    does_not: tuple[str, ...]


def text(description: Description) -> str:
    """Lines for a person."""
    lines = [f"Name:       {description.name}"]
    if description.namespace:
        lines.append(f"Namespace:  {description.namespace}")
    else:
        lines.append(f"Kind:       {description.kind}, for the whole cluster")
    lines.append(f"Selects:    {description.selects}")
    for number, workload in enumerate(description.workloads):
        lines.append(f"{'  now:' if not number else '':<12}{workload}")
    for part in description.directions:
        lines.append(f"{part.direction.value}:".ljust(12) + part.says)
        for number, rule in enumerate(part.rules, start=1):
            word = "from" if part.direction is Direction.INGRESS else "to"
            action = f"{rule.action} " if rule.action else ""
            lines.append(f"  {number}. {action}{word} {listed(rule.peers, ' or ')}")
            lines.append(f"     on {listed(rule.ports, ' or ')}")
    lines.append("It does not:")
    lines += [f"  - {line}" for line in description.does_not]
    return "\n".join(lines) + "\n"


def selector_words(selector: LabelSelector) -> str:
    """A label selector as a noun."""
    if selector.is_empty:
        return "every pod"
    return f"pods with {terms(selector)}"


def terms(selector: LabelSelector) -> str:
    """What a selector asks for, as a phrase."""
    terms = [f"{key}={value}" if value else f"{key} empty" for key, value in selector.match_labels]
    return listed([*terms, *map(_requirement, selector.match_expressions)], " and ")


def _requirement(requirement: Requirement) -> str:
    match requirement.operator:
        case Operator.IN:
            return f"{requirement.key}={listed(requirement.values, ' or ')}"
        case Operator.NOT_IN:
            return f"{requirement.key} absent or not {listed(requirement.values, ' or ')}"
        case Operator.EXISTS:
            return f"any {requirement.key}"
        case Operator.DOES_NOT_EXIST:
            return f"no {requirement.key}"
        case _:
            assert_never(requirement.operator)


def counted_workloads(pods: Iterable[Pod]) -> tuple[str, ...]:
    """The workloads of these pods with the pods of each; the namespace is in the name where there are several."""
    chosen = list(pods)
    several = len({pod.namespace for pod in chosen}) > 1
    found: dict[str, int] = {}
    for pod in chosen:
        workload = pod.workload
        place = f"{workload.namespace}/" if several else ""
        name = f"{workload.kind} {place}{workload.name}"
        found[name] = found.get(name, 0) + 1
    if not found:
        return ("no pod: it has no effect now",)
    return tuple(f"{name} ({count} pod{'s' if count > 1 else ''})" for name, count in sorted(found.items()))


def namespace_words(selector: LabelSelector) -> str:
    """A namespace selector as a noun."""
    if selector.is_empty:
        return "every namespace"
    if not selector.match_expressions and len(selector.match_labels) == 1:
        key, value = selector.match_labels[0]
        if key == NAMESPACE_NAME_LABEL:
            return f"the namespace {value}"
    return f"namespaces with {terms(selector)}"


def port_words(port: PolicyPort) -> str:
    """A port entry as a noun."""
    if port.port is None:
        return f"every {port.protocol} port"
    if isinstance(port.port, str):
        return f"{port.protocol} port named {port.port}"
    return f"{port.protocol} {port.port}" + (f" to {port.end_port}" if port.end_port else "")


def listed(words: Iterable[str], last: str) -> str:
    """A, b or c."""
    *most, final = words
    return ", ".join(most) + last + final if most else final
