"""NetworkPolicies as Calico v3 policies: tier, order, selectors, and aliases as GlobalNetworkSets.

Enters: NetworkPolicies, the cluster, aliases (a name for networks). Leaves: an Export. Invariant: one tier holds them
all, and its end denies (NP-62), which is what isolation means in NetworkPolicy.
Source: docs.tigera.io, "Network policy", "Global network set", "Tiered policy".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, assert_never

from aggregator.model.address import IPNetwork
from aggregator.model.cluster import ClusterSnapshot
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
from aggregator.policy.export.calico_judge import CalicoJudge
from aggregator.policy.export.proof import Export, ExportedFile, compare
from aggregator.policy.export.text import read, write

API_VERSION = "projectcalico.org/v3"
ALIAS_LABEL = "wattle-alias"
DEFAULT_TIER, DEFAULT_ORDER = "default", 1000
FIRST_ORDER = 100  # of a tier of its own: before most others, after what a security team puts first

Aliases = Mapping[str, Sequence[IPNetwork]]


def export_calico(
    policies: Iterable[NetworkPolicy],
    cluster: ClusterSnapshot,
    *,
    tier: str = DEFAULT_TIER,
    order: float = DEFAULT_ORDER,
    aliases: Aliases | None = None,
) -> Export:
    """One Calico NetworkPolicy for each NetworkPolicy, a GlobalNetworkSet for each alias that a rule uses."""
    given = tuple(policies)
    writer = _Writer(tier, order, aliases or {})
    objects = [writer.policy(policy) for policy in given]
    objects = [*writer.sets(), *objects]
    if tier != DEFAULT_TIER:
        spec = {"order": FIRST_ORDER}
        objects.insert(0, {"apiVersion": API_VERSION, "kind": "Tier", "metadata": {"name": tier}, "spec": spec})
    text = write(objects)
    judge = CalicoJudge(read(text), cluster)
    checked, differences = compare(given, cluster, judge.allows)
    notes = ["Remove the NetworkPolicies that these replace: both kinds add up in the default tier."]
    if tier != DEFAULT_TIER:
        notes = [f"The tier {tier} decides for every pod that it selects: NetworkPolicies are not asked any more."]
    return Export(
        kind="calico",
        files=(ExportedFile(path="calico-network-policies.yaml", text=text),),
        checked=checked,
        differences=differences,
        notes=tuple(notes),
    )


class _Writer:
    def __init__(self, tier: str, order: float, aliases: Aliases) -> None:
        self._tier, self._order, self._aliases = tier, order, aliases
        self._used: set[str] = set()

    def policy(self, policy: NetworkPolicy) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "tier": self._tier,
            "order": int(self._order),
            "selector": selector_text(policy.pod_selector),
            "types": [d.value for d in Direction if d in policy.directions],
        }
        for direction, key in ((Direction.INGRESS, "ingress"), (Direction.EGRESS, "egress")):
            if direction in policy.directions and policy.rules(direction):
                spec[key] = [r for rule in policy.rules(direction) for r in self._rules(rule, direction)]
        metadata: dict[str, Any] = {"name": f"{self._tier}.{policy.name}", "namespace": policy.namespace}
        if policy.labels:
            metadata["labels"] = dict(policy.labels)
        return {"apiVersion": API_VERSION, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}

    def sets(self) -> Iterator[dict[str, Any]]:
        for name in sorted(self._used):
            yield {
                "apiVersion": API_VERSION,
                "kind": "GlobalNetworkSet",
                "metadata": {"name": name, "labels": {ALIAS_LABEL: name}},
                "spec": {"nets": [str(network) for network in self._aliases[name]]},
            }

    def _rules(self, rule: Rule, direction: Direction) -> Iterator[dict[str, Any]]:
        """One of Calico's rules has one peer and one protocol."""
        for peer in self._peers(rule.peers):
            for protocol, ports in _by_protocol(rule.ports):
                found: dict[str, Any] = {"action": "Allow"}
                if protocol is not None:
                    found["protocol"] = protocol.value
                server = {"ports": ports} if ports else {}
                source, destination = (peer, server) if direction is Direction.INGRESS else ({}, peer | server)
                if source:
                    found["source"] = source
                if destination:
                    found["destination"] = destination
                yield found

    def _peers(self, peers: tuple[PolicyPeer, ...]) -> Iterator[dict[str, Any]]:
        if not peers:
            yield {}
        networks = {p.cidr for p in peers if isinstance(p, IPBlock) and not p.excepts}
        named: set[IPNetwork] = set()
        for name, members in sorted(self._aliases.items()):
            if members and set(members) <= networks:
                named.update(members)
                self._used.add(name)
                yield {"selector": f"{ALIAS_LABEL} == '{name}'", "namespaceSelector": "global()"}
        for peer in peers:
            match peer:
                case IPBlock(cidr=cidr, excepts=()) if cidr in named:
                    continue
                case IPBlock():
                    excepts = [str(network) for network in peer.excepts]
                    yield {"nets": [str(peer.cidr)]} | ({"notNets": excepts} if excepts else {})
                case SelectorPeer(namespace_selector=None, pod_selector=None):
                    continue  # matches nothing (NP-15)
                case SelectorPeer():
                    found = {"selector": selector_text(peer.pod_selector or LabelSelector())}
                    if peer.namespace_selector is not None:
                        found["namespaceSelector"] = selector_text(peer.namespace_selector)
                    yield found
                case _:
                    assert_never(peer)


def selector_text(selector: LabelSelector) -> str:
    """A selector in Calico's language."""
    terms = [f"{key} == {_quoted(value)}" for key, value in selector.match_labels]
    return " && ".join([*terms, *map(_requirement, selector.match_expressions)]) or "all()"


def _requirement(requirement: Requirement) -> str:
    values = "{" + ", ".join(map(_quoted, requirement.values)) + "}"
    match requirement.operator:
        case Operator.IN:
            return f"{requirement.key} in {values}"
        case Operator.NOT_IN:
            return f"{requirement.key} not in {values}"  # as in Kubernetes, also true where the label is absent
        case Operator.EXISTS:
            return f"has({requirement.key})"
        case Operator.DOES_NOT_EXIST:
            return f"!has({requirement.key})"
        case _:
            assert_never(requirement.operator)


def _quoted(value: str) -> str:
    return f"'{value}'"  # a label value holds no quote


def _by_protocol(ports: tuple[PolicyPort, ...]) -> Iterator[tuple[Protocol | None, list[int | str]]]:
    """Ports by protocol; an empty list is every port of it, no protocol is everything."""
    if not ports:
        yield None, []
    for protocol in Protocol:
        mine = [port for port in ports if port.protocol is protocol]
        if any(port.port is None for port in mine):
            yield protocol, []
        elif mine:
            yield protocol, [_port(port) for port in mine]


def _port(port: PolicyPort) -> int | str:
    assert port.port is not None
    wide = port.end_port is not None and port.end_port != port.port
    return f"{port.port}:{port.end_port}" if wide else port.port
