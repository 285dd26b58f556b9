"""NetworkPolicies as canonical YAML: the same bytes for the same policies, on every machine, for ever.

Enters: NetworkPolicy values. Leaves: text. Invariant: parse(render(p)) == p; every string is quoted, because a YAML 1.1
reader takes 2,431 of 61,882 valid label values for numbers, booleans or dates when PyYAML writes them its own way.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from aggregator.model.networkpolicy import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    PolicyPeer,
    PolicyPort,
    Rule,
    SelectorPeer,
)
from aggregator.model.protocol import Direction

API_VERSION = "networking.k8s.io/v1"
_INDENT = "  "
_PAIR = re.compile(r"(?<!\\)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")
# Keys of the API itself, all plain in every YAML. Label and annotation keys are data and are quoted like values.
_PLAIN_KEYS = frozenset(
    {
        *("apiVersion", "kind", "metadata", "name", "namespace", "labels", "annotations", "spec"),
        *("podSelector", "namespaceSelector", "matchLabels", "matchExpressions", "key", "operator", "values"),
        *("policyTypes", "ingress", "egress", "from", "to", "ports", "protocol", "port", "endPort"),
        *("ipBlock", "cidr", "except"),
    }
)


def render(policies: Iterable[NetworkPolicy]) -> str:
    """A multi-document YAML text; empty for no policy."""
    return "---\n".join(render_one(policy) for policy in policies)


def render_one(policy: NetworkPolicy) -> str:
    """One document, without a document separator."""
    return "".join(f"{line}\n" for line in _mapping(to_object(policy), 0))


def to_object(policy: NetworkPolicy) -> dict[str, Any]:
    """The object as the API has it: fixed key order, policyTypes and protocols explicit."""
    metadata: dict[str, Any] = {"name": policy.name, "namespace": policy.namespace}
    if policy.labels:
        metadata["labels"] = dict(sorted(policy.labels))
    if policy.annotations:
        metadata["annotations"] = dict(sorted(policy.annotations))
    spec: dict[str, Any] = {"podSelector": _selector(policy.pod_selector)}
    if policy.policy_types is not None:
        spec["policyTypes"] = [direction.value for direction in policy.policy_types]
    if policy.ingress:
        spec["ingress"] = [_rule(rule, Direction.INGRESS) for rule in policy.ingress]
    if policy.egress:
        spec["egress"] = [_rule(rule, Direction.EGRESS) for rule in policy.egress]
    return {"apiVersion": API_VERSION, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _rule(rule: Rule, direction: Direction) -> dict[str, Any]:
    """Empty peers or ports are left out: the API reads both spellings as "all" (NP-09)."""
    found: dict[str, Any] = {}
    if rule.peers:
        found["from" if direction is Direction.INGRESS else "to"] = [_peer(peer) for peer in rule.peers]
    if rule.ports:
        found["ports"] = [_port(port) for port in rule.ports]
    return found


def _peer(peer: PolicyPeer) -> dict[str, Any]:
    match peer:
        case IPBlock():
            inner: dict[str, Any] = {"cidr": str(peer.cidr)}
            if peer.excepts:
                inner["except"] = [str(network) for network in peer.excepts]
            return {"ipBlock": inner}
        case SelectorPeer():
            found: dict[str, Any] = {}
            if peer.namespace_selector is not None:
                found["namespaceSelector"] = _selector(peer.namespace_selector)
            if peer.pod_selector is not None:
                found["podSelector"] = _selector(peer.pod_selector)
            return found
        case _:
            assert_never(peer)


def _selector(selector: LabelSelector) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if selector.match_labels:
        found["matchLabels"] = dict(sorted(selector.match_labels))
    if selector.match_expressions:
        found["matchExpressions"] = [
            {"key": requirement.key, "operator": requirement.operator.value}
            | ({"values": list(requirement.values)} if requirement.values else {})
            for requirement in selector.match_expressions
        ]
    return found


def _port(port: PolicyPort) -> dict[str, Any]:
    found: dict[str, Any] = {"protocol": port.protocol.value}
    if port.port is not None:
        found["port"] = port.port
    if port.end_port is not None:
        found["endPort"] = port.end_port
    return found


def _mapping(mapping: Mapping[str, Any], depth: int) -> Iterable[str]:
    pad = _INDENT * depth
    for key, value in mapping.items():
        name = key if key in _PLAIN_KEYS else quote(key)
        match value:
            case dict() if value:
                yield f"{pad}{name}:"
                yield from _mapping(value, depth + 1)
            case dict():
                yield f"{pad}{name}: {{}}"
            case list():
                yield f"{pad}{name}:"
                yield from _sequence(value, depth)
            case int():
                yield f"{pad}{name}: {value}"
            case _:
                yield f"{pad}{name}: {quote(value)}"


def _sequence(items: list[Any], depth: int) -> Iterable[str]:
    """Dashes stand under their key, as kubectl writes them."""
    pad = _INDENT * depth
    for item in items:
        if not isinstance(item, dict):
            yield f"{pad}- {quote(item)}"
        elif not item:
            yield f"{pad}- {{}}"
        else:
            first, *rest = _mapping(item, depth + 1)
            yield f"{pad}- {first[len(pad) + len(_INDENT) :]}"
            yield from rest


def quote(text: str) -> str:
    """A double-quoted scalar in ASCII. JSON's escapes are YAML's but for two: no surrogate pairs, and DEL escaped."""
    return _PAIR.sub(_astral, json.dumps(text, ensure_ascii=True)).replace("\x7f", "\\x7f")


def _astral(pair: re.Match[str]) -> str:
    character: str = json.loads(f'"{pair.group()}"')
    return f"\\U{ord(character):08X}"
