"""NetworkPolicies as CiliumNetworkPolicies: entities where Cilium has them, names where they are known.

Enters: NetworkPolicies, the cluster, and names of addresses. Leaves: an Export. Invariant: what Cilium says otherwise
(an ipBlock matches neither pods nor nodes nor the API server, NP-20, NP-40) becomes an entity, or a difference.
Source: docs.cilium.io, "Layer 3 Examples", "Kubernetes Constructs"; pkg/k8s/network_policy.go.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aggregator.model.address import IPAddress
from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot
from aggregator.model.networkpolicy import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Operator,
    PolicyPort,
    Rule,
    SelectorPeer,
)
from aggregator.model.protocol import Direction
from aggregator.policy.export.cilium_judge import CiliumJudge
from aggregator.policy.export.identities import api_server_addresses
from aggregator.policy.export.proof import Export, ExportedFile, compare
from aggregator.policy.export.text import read, write
from aggregator.policy.generation.dns import find_dns
from aggregator.policy.lint.universe import block_contains

API_VERSION = "cilium.io/v2"
POD_NAMESPACE = "k8s:io.kubernetes.pod.namespace"
NAMESPACE_LABEL = "k8s:io.cilium.k8s.namespace.labels."
MAX_PORTS = 40  # of one toPorts entry, by the CRD's own schema

Names = Mapping[IPAddress, Sequence[str]]


def export_cilium(policies: Iterable[NetworkPolicy], cluster: ClusterSnapshot, *, names: Names | None = None) -> Export:
    """One CiliumNetworkPolicy for each NetworkPolicy."""
    given = tuple(policies)
    known = names or {}
    writer = _Writer(cluster, known)
    text = write(writer.policy(policy) for policy in given)
    judge = CiliumJudge(read(text), cluster, known)
    checked, differences = compare(given, cluster, judge.allows, ipblock_matches_pods=False)
    notes = ["Remove the NetworkPolicies that these replace: both kinds add up."]
    if writer.used_names:
        notes.append("toFQDNs holds as the names resolve now; Cilium follows them by its DNS proxy.")
    if any(isinstance(peer, IPBlock) for p in given for d in p.directions for r in p.rules(d) for peer in r.peers):
        notes.append("Judged as Cilium has it: an ipBlock matches no pod.")
    return Export(
        kind="cilium",
        files=(ExportedFile(path="cilium-network-policies.yaml", text=text),),
        checked=checked,
        differences=differences,
        notes=tuple(notes),
    )


class _Writer:
    def __init__(self, cluster: ClusterSnapshot, names: Names) -> None:
        self._nodes = tuple(ip for node in cluster.nodes for ip in node.addresses)
        self._api_server = api_server_addresses(cluster)
        self._names = names
        self._dns = [(workload, sorted(ports)) for workload, ports in find_dns(cluster).servers]
        self._cluster = cluster
        self.used_names = False

    def policy(self, policy: NetworkPolicy) -> dict[str, Any]:
        spec: dict[str, Any] = {"endpointSelector": _selector(policy.pod_selector)}
        for direction, key in ((Direction.INGRESS, "ingress"), (Direction.EGRESS, "egress")):
            if direction in policy.directions:
                rules = [r for rule in policy.rules(direction) for r in self._rule(rule, direction)]
                spec[key] = rules or [{}]  # one empty rule: isolated, nothing allowed
        metadata: dict[str, Any] = {"name": policy.name, "namespace": policy.namespace}
        if policy.labels:
            metadata["labels"] = dict(policy.labels)
        return {"apiVersion": API_VERSION, "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}

    def _rule(self, rule: Rule, direction: Direction) -> Iterator[dict[str, Any]]:
        """Peers of different kinds cannot share one of Cilium's rules."""
        word = "from" if direction is Direction.INGRESS else "to"
        ports = _ports(rule.ports)
        if not rule.peers:
            yield {f"{word}Entities": ["all"]} | ports
            return
        endpoints = [_endpoints(p) for p in rule.peers if isinstance(p, SelectorPeer)]
        entities: dict[str, None] = {}
        cidrs, fqdns = [], dict[str, None]()
        for block in (p for p in rule.peers if isinstance(p, IPBlock)):
            found = self._entities(block)
            entities.update(dict.fromkeys(found))
            host = block.cidr.network_address if block.cidr.num_addresses == 1 else None
            if host is not None and found:
                continue
            if host is not None and direction is Direction.EGRESS and self._names.get(host):
                fqdns.update(dict.fromkeys(self._names[host]))
                continue
            excepts = [str(network) for network in block.excepts]
            cidrs.append({"cidr": str(block.cidr)} | ({"except": excepts} if excepts else {}))
        if chosen := [e for e in endpoints if e is not None]:
            yield {f"{word}Endpoints": chosen} | ports
        if entities:
            yield {f"{word}Entities": list(entities)} | ports
        if cidrs:
            yield {f"{word}CIDRSet": cidrs} | ports
        if fqdns:
            self.used_names = True
            yield {"toFQDNs": [{"matchName": name} for name in fqdns]} | ports
            yield from self._dns_proxy()

    def _entities(self, block: IPBlock) -> list[str]:
        """The entities that this block stands for: all nodes, the API server. Part of either is neither."""
        found = []
        if self._nodes and all(block_contains(block, ip) for ip in self._nodes):
            found += ["host", "remote-node"]
        if self._api_server and all(block_contains(block, ip) for ip in self._api_server):
            found.append("kube-apiserver")
        return found

    def _dns_proxy(self) -> Iterator[dict[str, Any]]:
        """Cilium learns a name's addresses from answers, so the questions must pass its proxy."""
        for workload, ports in self._dns:
            labels = next((pods[0].labels for pods in [self._cluster.pods_by_workload.get(workload, ())] if pods), ())
            chosen = {k: v for k, v in labels if k in {"k8s-app", "dns.operator.openshift.io/daemonset-dns"}}
            match = {POD_NAMESPACE: workload.namespace} | {f"k8s:{k}": v for k, v in chosen.items()}
            listed = [{"port": str(number), "protocol": protocol.value} for protocol, number in ports]
            yield {
                "toEndpoints": [{"matchLabels": match}],
                "toPorts": [{"ports": listed, "rules": {"dns": [{"matchPattern": "*"}]}}],
            }


def _endpoints(peer: SelectorPeer) -> dict[str, Any] | None:
    """None for a peer without fields, which matches nothing (NP-15)."""
    namespaces = peer.namespace_selector
    if namespaces is None:
        return None if peer.pod_selector is None else _selector(peer.pod_selector)
    found = _selector(peer.pod_selector or LabelSelector())
    labels: dict[str, str] = found.setdefault("matchLabels", {})
    expressions: list[dict[str, Any]] = found.setdefault("matchExpressions", [])
    named = dict(namespaces.match_labels).get(NAMESPACE_NAME_LABEL)
    if named is not None:
        labels[POD_NAMESPACE] = named
    else:
        expressions.append({"key": POD_NAMESPACE, "operator": "Exists"})
    labels.update({NAMESPACE_LABEL + k: v for k, v in namespaces.match_labels if k != NAMESPACE_NAME_LABEL})
    expressions += [_expression(NAMESPACE_LABEL + r.key, r.operator, r.values) for r in namespaces.match_expressions]
    return {key: value for key, value in found.items() if value}


def _selector(selector: LabelSelector) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if selector.match_labels:
        found["matchLabels"] = {f"k8s:{key}": value for key, value in selector.match_labels}
    if selector.match_expressions:
        found["matchExpressions"] = [
            _expression(f"k8s:{r.key}", r.operator, r.values) for r in selector.match_expressions
        ]
    return found


def _expression(key: str, operator: Operator, values: tuple[str, ...]) -> dict[str, Any]:
    return {"key": key, "operator": operator.value} | ({"values": list(values)} if values else {})


def _ports(ports: tuple[PolicyPort, ...]) -> dict[str, Any]:
    if not ports:
        return {}
    entries = []
    for port in ports:
        # "0" is every port of the protocol, as Cilium writes it for a NetworkPolicy itself.
        entry: dict[str, Any] = {"port": str(port.port if port.port is not None else 0)}
        if port.end_port is not None and port.end_port != port.port:
            entry["endPort"] = port.end_port
        entries.append(entry | {"protocol": port.protocol.value})
    return {"toPorts": [{"ports": entries[i : i + MAX_PORTS]} for i in range(0, len(entries), MAX_PORTS)]}
