"""Admin policy objects -> model.adminpolicy: AdminNetworkPolicy and BaselineAdminNetworkPolicy v1alpha1,
ClusterNetworkPolicy v1alpha2; and `parse_any`, which takes these and NetworkPolicies.

Raises InputError with the field's path for what the API refuses or what nobody here can give a meaning to.
"""

from collections.abc import Mapping
from typing import Any

from aggregator.model.adminpolicy import (
    Action,
    AdminPeer,
    AdminPolicy,
    AdminPort,
    AdminRule,
    DomainNamesPeer,
    NetworksPeer,
    NodesPeer,
    PodsPeer,
    Tier,
)
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Protocol
from aggregator.policy.manifest.field import Field
from aggregator.policy.manifest.parse import parse_cidr, parse_policy, parse_protocol, parse_selector

GROUP = "policy.networking.k8s.io"
_VERSIONS = {
    "AdminNetworkPolicy": (f"{GROUP}/v1alpha1",),
    "BaselineAdminNetworkPolicy": (f"{GROUP}/v1alpha1",),
    "ClusterNetworkPolicy": (f"{GROUP}/v1alpha2", f"{GROUP}/v1beta1"),
}
_ACTIONS = {
    "AdminNetworkPolicy": {"Allow": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS},
    "BaselineAdminNetworkPolicy": {"Allow": Action.ALLOW, "Deny": Action.DENY},
    "ClusterNetworkPolicy": {"Accept": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS},
}
_MAX_PRIORITY = 1000
KINDS = ("NetworkPolicy", *_VERSIONS)


def parse_any(obj: Mapping[str, Any], *, default_namespace: str = "default") -> NetworkPolicy | AdminPolicy:
    """A policy of any kind with a meaning here."""
    kind = Field(obj)["kind"]
    if kind.value == "NetworkPolicy":
        return parse_policy(obj, default_namespace=default_namespace)
    if isinstance(kind.value, str) and kind.value in _VERSIONS:
        return parse_admin_policy(obj)
    raise kind.refuse(f"must be one of {', '.join(KINDS)}, is {kind.value!r}")


def parse_admin_policy(obj: Mapping[str, Any]) -> AdminPolicy:
    root = Field(obj)
    kind = root["kind"].text()
    version, spec, name = root["apiVersion"], root["spec"], root["metadata"]["name"]
    if version.value not in _VERSIONS[kind]:
        raise version.refuse(f"must be {' or '.join(_VERSIONS[kind])}, is {version.value!r}")
    tier = _tier(kind, spec["tier"])
    if kind == "BaselineAdminNetworkPolicy" and name.value != "default":
        raise name.refuse("must be default: the cluster has one BaselineAdminNetworkPolicy")
    return AdminPolicy(
        kind=kind,
        name=name.text(),
        tier=tier,
        priority=0 if kind == "BaselineAdminNetworkPolicy" else _priority(spec["priority"]),
        subject=_subject(spec["subject"]),
        ingress=tuple(_rule(rule, kind, "from") for rule in spec["ingress"].items()),
        egress=tuple(_rule(rule, kind, "to") for rule in spec["egress"].items()),
    )


def _tier(kind: str, field: Field) -> Tier:
    if kind == "AdminNetworkPolicy":
        return Tier.ADMIN
    if kind == "BaselineAdminNetworkPolicy":
        return Tier.BASELINE
    try:
        return Tier(field.text())
    except ValueError as exc:
        raise field.refuse(f"{field.value!r} is not Admin or Baseline") from exc


def _priority(field: Field) -> int:
    priority = field.number()
    if not 0 <= priority <= _MAX_PRIORITY:
        raise field.refuse(f"must be 0 to {_MAX_PRIORITY}, is {priority}")
    return priority


def _only(field: Field, allowed: tuple[str, ...]) -> tuple[str, Field]:
    """The one member that is set: these unions take exactly one, and one that is not known must fail closed."""
    present = [key for key, value in field.mapping().items() if value is not None]
    if len(present) != 1 or present[0] not in allowed:
        raise field.refuse(f"must have exactly one of {', '.join(allowed)}, has {', '.join(present) or 'none'}")
    return present[0], field[present[0]]


def _subject(field: Field) -> PodsPeer:
    return _pods(*_only(field, ("namespaces", "pods")))


def _pods(key: str, field: Field) -> PodsPeer:
    if key == "namespaces":
        for unsupported in ("sameLabels", "notSameLabels", "namespaceSelector"):
            if not field[unsupported].absent:
                raise field[unsupported].refuse("is of an older version of the API that is not supported")
        return PodsPeer(namespace_selector=parse_selector(field))
    return PodsPeer(
        namespace_selector=parse_selector(field["namespaceSelector"]),
        pod_selector=parse_selector(field["podSelector"]),
    )


def _rule(field: Field, kind: str, peers_key: str) -> AdminRule:
    action = field["action"]
    actions = _ACTIONS[kind]
    if action.text() not in actions:
        raise action.refuse(f"{action.value!r} is not {', '.join(actions)}")
    protocols = field["protocols"]
    if kind != "ClusterNetworkPolicy" and not protocols.absent:
        raise protocols.refuse("is a field of ClusterNetworkPolicy; here it is called ports")
    return AdminRule(
        action=actions[action.text()],
        peers=tuple(_peer(peer, peers_key) for peer in field[peers_key].items()),
        # The first ClusterNetworkPolicies still had `ports`; dropping them unread would match every port.
        ports=(*map(_port_entry, field["ports"].items()), *map(_protocol_entry, protocols.items())),
        name=field["name"].text(default=""),
    )


def _peer(field: Field, peers_key: str) -> AdminPeer:
    allowed = ("namespaces", "pods") + (("nodes", "networks", "domainNames") if peers_key == "to" else ())
    key, value = _only(field, allowed)
    match key:
        case "nodes":
            return NodesPeer(selector=parse_selector(value))
        case "networks":
            return NetworksPeer(cidrs=tuple(parse_cidr(cidr) for cidr in value.items()))
        case "domainNames":
            return DomainNamesPeer(names=tuple(name.text() for name in value.items()))
        case _:
            return _pods(key, value)


def _port_entry(field: Field) -> AdminPort:
    """v1alpha1: portNumber | portRange | namedPort."""
    key, value = _only(field, ("portNumber", "portRange", "namedPort"))
    if key == "namedPort":
        return AdminPort(name=value.text())
    protocol = parse_protocol(value["protocol"])
    if key == "portNumber":
        number = value["port"].number()
        return AdminPort(protocol=protocol, first=number, last=number)
    return AdminPort(protocol=protocol, first=value["start"].number(), last=value["end"].number())


def _protocol_entry(field: Field) -> AdminPort:
    """v1alpha2: tcp | udp | sctp with an optional destinationPort, or destinationNamedPort."""
    key, value = _only(field, ("tcp", "udp", "sctp", "destinationNamedPort"))
    if key == "destinationNamedPort":
        return AdminPort(name=value.text())
    protocol, port = Protocol(key.upper()), value["destinationPort"]
    if port.absent:
        return AdminPort(protocol=protocol)
    kind, chosen = _only(port, ("number", "range"))
    if kind == "number":
        number = chosen.number()
        return AdminPort(protocol=protocol, first=number, last=number)
    return AdminPort(protocol=protocol, first=chosen["start"].number(), last=chosen["end"].number())
