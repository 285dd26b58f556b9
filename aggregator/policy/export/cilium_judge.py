"""What CiliumNetworkPolicies allow: the part of Cilium's semantics that exports use (NP-63).

Enters: objects as read back from text, the cluster, addresses of names. Leaves: verdicts. Invariant: anything that is
not understood raises, so nothing is certified that was not judged. Denies, services and L7 rules but DNS are not part.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from aggregator.model.address import IPAddress
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.evaluation.matching import labels_of_namespace
from aggregator.policy.export.identities import api_server_addresses

_POD_NAMESPACE = "k8s:io.kubernetes.pod.namespace"
_NAMESPACE_LABEL = "k8s:io.cilium.k8s.namespace.labels."
_SECTIONS = {Direction.INGRESS: ("ingress", "from"), Direction.EGRESS: ("egress", "to")}
_PEER_FIELDS = ("Endpoints", "Entities", "CIDRSet", "FQDNs")

_Selecting = tuple[str, Sequence[Mapping[str, Any]]]  # a policy's namespace, and its rules of one direction


class CiliumJudge:
    """Verdicts of a set of CiliumNetworkPolicies."""

    def __init__(
        self, objects: Sequence[Mapping[str, Any]], cluster: ClusterSnapshot, names: Mapping[IPAddress, Sequence[str]]
    ) -> None:
        self._objects = objects
        self._cluster = cluster
        self._names = names
        self._nodes = {ip for node in cluster.nodes for ip in node.addresses}
        self._nodes |= {ip for pod in cluster.pods if pod.host_network for ip in pod.ips}
        self._api_server = set(api_server_addresses(cluster))
        self._selected: dict[tuple[Direction, int], tuple[Pod, list[_Selecting]]] = {}
        self._matched: dict[tuple[int, int], tuple[object, bool]] = {}

    def allows(self, direction: Direction, subject: Pod, far: Pod | IPAddress, protocol: Protocol, port: int) -> bool:
        """Allowed when no policy with this section selects the pod, or one rule of one that does matches."""
        selecting = self._selecting(direction, subject)
        server = subject if direction is Direction.INGRESS else far
        return not selecting or any(
            self._peer_once(rule, direction, namespace, far) and _ports(rule, server, protocol, port)
            for namespace, rules in selecting
            for rule in rules
        )

    def _selecting(self, direction: Direction, subject: Pod) -> list[_Selecting]:
        """The policies with this section that select the pod, asked once for each pod."""
        known = self._selected.get((direction, id(subject)))
        if known is not None and known[0] is subject:
            return known[1]
        section, _ = _SECTIONS[direction]
        identity = self._identity(subject)
        found = [
            (subject.namespace, obj["spec"][section])
            for obj in self._objects
            if obj["metadata"]["namespace"] == subject.namespace
            and section in obj["spec"]
            and _matches(obj["spec"]["endpointSelector"], identity)
        ]
        self._selected[(direction, id(subject))] = subject, found
        return found

    def _peer_once(self, rule: Mapping[str, Any], direction: Direction, namespace: str, far: Pod | IPAddress) -> bool:
        """`_peer`, asked once for each rule and far end; the far end is kept, so that its id stays its own."""
        key = (id(rule), id(far))
        known = self._matched.get(key)
        if known is None or known[0] is not far:
            known = self._matched[key] = far, self._peer(rule, _SECTIONS[direction][1], namespace, far)
        return known[1]

    def _identity(self, pod: Pod) -> dict[str, str]:
        """A pod's labels as Cilium's identity has them."""
        namespace = labels_of_namespace(self._cluster, pod.namespace)
        return (
            {f"k8s:{key}": value for key, value in pod.labels}
            | {_NAMESPACE_LABEL + key: value for key, value in namespace.items()}
            | {_POD_NAMESPACE: pod.namespace}
        )

    def _peer(self, rule: Mapping[str, Any], word: str, namespace: str, far: Pod | IPAddress) -> bool:
        """One peer field a rule; a rule without any allows nothing."""
        fields = [f"{word}{name}" for name in _PEER_FIELDS if f"{word}{name}" in rule]
        unknown = set(rule) - {*fields, "toPorts"}
        if unknown or len(fields) > 1:
            raise ValueError(f"not part of the judged subset: {sorted(unknown) or fields}")
        if not fields:
            return False
        values = rule[fields[0]]
        if fields[0].endswith("Endpoints"):
            return isinstance(far, Pod) and any(self._endpoint(value, namespace, far) for value in values)
        if fields[0].endswith("Entities"):
            return any(self._entity(value, far) for value in values)
        if isinstance(far, Pod) or far in self._nodes or far in self._api_server:
            return False  # an identity of its own: CIDR rules never apply (cilium/cilium#9209, #20550)
        if fields[0].endswith("FQDNs"):
            return any(value["matchName"] in self._names.get(far, ()) for value in values)
        return any(
            far in ip_network(value["cidr"]) and not any(far in ip_network(e) for e in value.get("except", ()))
            for value in values
        )

    def _endpoint(self, selector: Mapping[str, Any], namespace: str, pod: Pod) -> bool:
        """A selector that names no namespace means the policy's own."""
        keys = set(selector.get("matchLabels", {})) | {e["key"] for e in selector.get("matchExpressions", ())}
        own = pod.namespace == namespace or any(k == _POD_NAMESPACE or k.startswith(_NAMESPACE_LABEL) for k in keys)
        return own and not pod.host_network and _matches(selector, self._identity(pod))

    def _entity(self, entity: str, far: Pod | IPAddress) -> bool:
        match entity:
            case "all":
                return True
            case "host" | "remote-node":
                return not isinstance(far, Pod) and far in self._nodes
            case "kube-apiserver":
                return not isinstance(far, Pod) and far in self._api_server
            case _:
                raise ValueError(f"not part of the judged subset: entity {entity}")


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    plain = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return plain and all(_expression(e, labels) for e in selector.get("matchExpressions", ()))


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    match expression["operator"]:
        case "In":
            return labels.get(key) in values if key in labels else False
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _ports(rule: Mapping[str, Any], server: Pod | IPAddress, protocol: Protocol, port: int) -> bool:
    if "toPorts" not in rule:
        return True
    return any(_port(entry, server, protocol, port) for group in rule["toPorts"] for entry in group["ports"])


def _port(entry: Mapping[str, Any], server: Pod | IPAddress, protocol: Protocol, port: int) -> bool:
    if entry["protocol"] != protocol.value:
        return False
    text = entry["port"]
    if not text.isdecimal():
        declared = server.ports if isinstance(server, Pod) else ()
        return any((p.name, p.protocol, p.port) == (text, protocol, port) for p in declared)
    first = int(text)
    return first == 0 or first <= port <= entry.get("endPort", first)
