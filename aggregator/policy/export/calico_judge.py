"""What Calico v3 policies of one tier allow: the part of Calico's semantics that exports use (NP-62).

Enters: objects as read back from text, and the cluster. Leaves: verdicts. Invariant: anything that is not understood
raises, so nothing is certified that was not judged.
"""

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from aggregator.model.address import IPAddress
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.evaluation.matching import labels_of_namespace

_TERM = re.compile(
    r"""\s*(?:
        (?P<all>all\(\))
      | (?P<absent>!\s*)?has\((?P<has>[^)]+)\)
      | (?P<key>[^\s=!{}()]+)\s*(?:(?P<op>==|!=)\s*'(?P<value>[^']*)'|(?P<in>not\s+in|in)\s*\{(?P<values>[^}]*)\})
    )\s*""",
    re.VERBOSE,
)
_ANYBODY: Mapping[str, Any] = {}
_VALUE = re.compile(r"'([^']*)'")


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Does a selector of Calico's language (terms joined by &&) match these labels?"""
    return all(_term(term, labels) for term in selector.split("&&"))


def _term(text: str, labels: Mapping[str, str]) -> bool:
    match = _TERM.fullmatch(text)
    if match is None:
        raise ValueError(f"not part of the judged subset: selector {text!r}")
    if match["all"]:
        return True
    if match["has"]:
        return (match["has"] in labels) != bool(match["absent"])
    key = match["key"]
    if match["op"]:
        return (labels.get(key) == match["value"]) == (match["op"] == "==")
    return (labels.get(key) in _VALUE.findall(match["values"])) == (match["in"] == "in")


class CalicoJudge:
    """Verdicts of one tier of policies, by their order and then their name."""

    def __init__(self, objects: Sequence[Mapping[str, Any]], cluster: ClusterSnapshot) -> None:
        policies = [obj for obj in objects if obj["kind"] == "NetworkPolicy"]
        self._policies = sorted(policies, key=lambda obj: (obj["spec"]["order"], obj["metadata"]["name"]))
        self._sets = [obj for obj in objects if obj["kind"] == "GlobalNetworkSet"]
        self._cluster = cluster
        self._selected: dict[tuple[Direction, int], tuple[Pod, list[Sequence[Mapping[str, Any]]]]] = {}
        self._matched: dict[tuple[int, int], tuple[object, bool]] = {}
        unknown = {obj["kind"] for obj in objects} - {"NetworkPolicy", "GlobalNetworkSet", "Tier"}
        if unknown or len({obj["spec"]["tier"] for obj in policies}) > 1:
            raise ValueError(f"not part of the judged subset: {sorted(unknown) or 'several tiers'}")

    def allows(self, direction: Direction, subject: Pod, far: Pod | IPAddress, protocol: Protocol, port: int) -> bool:
        """The first matching rule decides; selected and not matched is the tier's default: deny."""
        selecting = self._selecting(direction, subject)
        for rules in selecting:
            for rule in rules:
                if self._matches(rule, direction, subject, far, (protocol, port)):
                    return self._action(rule)
        return not selecting  # beyond the last tier the namespace's profile allows

    def _selecting(self, direction: Direction, subject: Pod) -> list[Sequence[Mapping[str, Any]]]:
        """The rules of each policy that selects the pod, asked once for each pod."""
        known = self._selected.get((direction, id(subject)))
        if known is not None and known[0] is subject:
            return known[1]
        labels = dict(subject.labels)
        found = [
            obj["spec"].get(direction.value.lower(), ())
            for obj in self._policies
            if obj["metadata"]["namespace"] == subject.namespace
            and direction.value in obj["spec"]["types"]
            and selects(obj["spec"]["selector"], labels)
        ]
        self._selected[(direction, id(subject))] = subject, found
        return found

    def _peer_once(self, peer: Mapping[str, Any], namespace: str, far: Pod | IPAddress) -> bool:
        """`_peer`, asked once for each entity and far end; the far end is kept, so that its id stays its own."""
        key = (id(peer), id(far))
        known = self._matched.get(key)
        if known is None or known[0] is not far:
            known = self._matched[key] = far, self._peer(peer, namespace, far)
        return known[1]

    def _action(self, rule: Mapping[str, Any]) -> bool:
        if rule["action"] not in {"Allow", "Deny"}:
            raise ValueError(f"not part of the judged subset: action {rule['action']}")
        return bool(rule["action"] == "Allow")

    def _matches(
        self,
        rule: Mapping[str, Any],
        direction: Direction,
        subject: Pod,
        far: Pod | IPAddress,
        asked: tuple[Protocol, int],
    ) -> bool:
        protocol, port = asked
        if "protocol" in rule and rule["protocol"] != protocol.value:
            return False
        source, destination = rule.get("source", _ANYBODY), rule.get("destination", _ANYBODY)
        peer, server = (source, subject) if direction is Direction.INGRESS else (destination, far)
        ports = destination.get("ports", ())
        return self._peer_once(peer, subject.namespace, far) and (
            not ports or any(_port(entry, server, protocol, port) for entry in ports)
        )

    def _peer(self, peer: Mapping[str, Any], namespace: str, far: Pod | IPAddress) -> bool:
        """An entity rule without a selector matches anybody; nets match addresses, also of pods."""
        if unknown := set(peer) - {"selector", "namespaceSelector", "nets", "notNets", "ports"}:
            raise ValueError(f"not part of the judged subset: {sorted(unknown)}")
        addresses = far.ips if isinstance(far, Pod) else (far,)
        if "nets" in peer:
            inside = [ip for ip in addresses if any(ip in ip_network(net) for net in peer["nets"])]
            return any(not any(ip in ip_network(net) for net in peer.get("notNets", ())) for ip in inside)
        if "selector" not in peer:
            return True
        if peer.get("namespaceSelector") == "global()":
            return any(
                ip in ip_network(net)
                for found in self._sets
                if selects(peer["selector"], found["metadata"]["labels"])
                for net in found["spec"]["nets"]
                for ip in addresses
            )
        if not isinstance(far, Pod) or far.host_network or not selects(peer["selector"], dict(far.labels)):
            return False
        if "namespaceSelector" not in peer:
            return far.namespace == namespace
        return selects(peer["namespaceSelector"], labels_of_namespace(self._cluster, far.namespace))


def _port(entry: int | str, server: Pod | IPAddress, protocol: Protocol, port: int) -> bool:
    if isinstance(entry, int):
        return entry == port
    first, _, last = entry.partition(":")
    if last:
        return int(first) <= port <= int(last)
    declared = server.ports if isinstance(server, Pod) else ()
    return any((p.name, p.protocol, p.port) == (entry, protocol, port) for p in declared)
