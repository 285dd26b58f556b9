"""Parse: a NetworkPolicy object as the API takes it -> model.NetworkPolicy.

Tolerant where the API is: null and missing lists, null list items, defaulted protocols, CIDRs with host bits. What the
model can hold but the API refuses (an empty peer, port 0) passes: `validate` names it, `evaluate` fails closed on it.
What it cannot hold raises InputError with the field's path.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from aggregator.model.address import IPNetwork
from aggregator.model.networkpolicy import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Operator,
    PolicyPeer,
    PolicyPort,
    Requirement,
    Rule,
    SelectorPeer,
)
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.manifest.field import Field

API_VERSIONS = ("networking.k8s.io/v1", "extensions/v1beta1")  # the second has the same meaning; gone since 1.16
_CIDR = re.compile(r"([0-9a-fA-F:.]+)/([0-9]{1,3})")
_V4_MAPPED_BITS = 96
_KUBECTLS_OWN = "kubectl.kubernetes.io/last-applied-configuration"  # a copy of the object; applying writes it anew


def parse_policy(obj: Mapping[str, Any], *, default_namespace: str = "default") -> NetworkPolicy:
    """The policy that `obj` says. Raises InputError naming the field."""
    root = Field(obj)
    kind, version = root["kind"], root["apiVersion"]
    if kind.value != "NetworkPolicy":
        raise kind.refuse(f"must be NetworkPolicy, is {kind.value!r}")
    if version.value not in API_VERSIONS:
        raise version.refuse(f"must be {API_VERSIONS[0]}, is {version.value!r}")
    metadata, spec = root["metadata"], root["spec"]
    name = metadata["name"].text(default="")
    if not name:
        raise metadata["name"].refuse("is required")
    return NetworkPolicy(
        namespace=metadata["namespace"].text(default="") or default_namespace,
        name=name,
        pod_selector=parse_selector(spec["podSelector"]),
        policy_types=_policy_types(spec["policyTypes"]),
        ingress=tuple(_rule(rule, "from") for rule in spec["ingress"].items()),
        egress=tuple(_rule(rule, "to") for rule in spec["egress"].items()),
        labels=metadata["labels"].labels(),
        annotations=tuple(pair for pair in metadata["annotations"].labels() if pair[0] != _KUBECTLS_OWN),
    )


def parse_selector(field: Field) -> LabelSelector:
    """A LabelSelector; absent reads as the empty one, so look at `field.absent` where that differs."""
    return LabelSelector(
        match_labels=field["matchLabels"].labels(),
        match_expressions=tuple(_requirement(item) for item in field["matchExpressions"].items()),
    )


def parse_cidr(field: Field) -> IPNetwork:
    """An address and a prefix length: host bits masked, leading zeros decimal, v4-mapped read as IPv4 (NP-60)."""
    text = field.text()
    match = _CIDR.fullmatch(text)
    if match is None:
        raise field.refuse(f"{text!r} is not a CIDR such as 10.0.0.0/8")
    address, length = match.groups()
    if ":" not in address:
        address = ".".join(octet.lstrip("0") or "0" for octet in address.split("."))
    try:
        network = ip_network(f"{address}/{int(length)}", strict=False)
    except ValueError as exc:
        raise field.refuse(f"{text!r} is not a CIDR: {exc}") from exc
    return _unmapped(network)


def _unmapped(network: IPNetwork) -> IPNetwork:
    """Go's net.IPNet.Contains treats ::ffff:a.b.c.d/96+n as a.b.c.d/n."""
    if isinstance(network, IPv6Network) and network.prefixlen >= _V4_MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _V4_MAPPED_BITS))
    return network


def _requirement(field: Field) -> Requirement:
    operator = field["operator"]
    try:
        parsed = Operator(operator.text())
    except ValueError as exc:
        raise operator.refuse(f"{operator.value!r} is not In, NotIn, Exists or DoesNotExist") from exc
    return Requirement(
        key=field["key"].text(),
        operator=parsed,
        values=tuple(value.text(default="") for value in field["values"].items()),
    )


def _policy_types(field: Field) -> tuple[Direction, ...] | None:
    """NP-03: an empty list is defaulted like an absent one."""
    found = []
    for item in field.items():
        try:
            found.append(Direction(item.text()))
        except ValueError as exc:
            raise item.refuse(f"{item.value!r} is not Ingress or Egress") from exc
    return tuple(found) or None


def _rule(field: Field, peers_key: str) -> Rule:
    return Rule(
        peers=tuple(_peer(peer) for peer in field[peers_key].items()),
        ports=tuple(_port(port) for port in field["ports"].items()),
    )


def _peer(field: Field) -> PolicyPeer:
    block, pods, namespaces = field["ipBlock"], field["podSelector"], field["namespaceSelector"]
    if block.absent:
        return SelectorPeer(
            pod_selector=None if pods.absent else parse_selector(pods),
            namespace_selector=None if namespaces.absent else parse_selector(namespaces),
        )
    if not (pods.absent and namespaces.absent):
        raise field.refuse("ipBlock excludes podSelector and namespaceSelector")
    return IPBlock(
        cidr=parse_cidr(block["cidr"]),
        excepts=tuple(parse_cidr(item) for item in block["except"].items()),
    )


def _port(field: Field) -> PolicyPort:
    port, end_port = field["port"], field["endPort"]
    return PolicyPort(
        protocol=parse_protocol(field["protocol"]),
        port=None if port.absent else port.value if isinstance(port.value, str) else port.number(),
        end_port=None if end_port.absent else end_port.number(),
    )


def parse_protocol(field: Field) -> Protocol:
    """NP-22, NP-54: absent is TCP; names are case sensitive."""
    if field.absent:
        return Protocol.TCP
    try:
        return Protocol(field.text())
    except ValueError as exc:
        raise field.refuse(f"{field.value!r} is not TCP, UDP or SCTP") from exc
