"""What is wrong with a policy as it is written, whatever else applies beside it.

Enters: one policy and the cluster's CIDRs, Services and pods. Leaves: Findings on directions, labels, ipBlocks, the
AND/OR dash.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from aggregator.model.address import IPAddress, IPNetwork
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.finding import Finding, Severity
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, PolicyPort, Rule, SelectorPeer
from aggregator.model.protocol import Direction
from aggregator.policy.generation.labels import LabelClass, classify, classify_key
from aggregator.policy.lint.codes import Code


class Owners:
    """Who in the cluster has an address, in words."""

    def __init__(self, cluster: ClusterSnapshot) -> None:
        self.cluster = cluster
        self.pods: dict[IPAddress | None, str] = {
            ip: f"the pod {pod}" for pod in cluster.pods if not pod.host_network and not pod.ended for ip in pod.ips
        }
        self.services: dict[IPAddress | None, str] = {
            ip: f"the Service {service}" for service in cluster.services for ip in service.cluster_ips
        }


def check_static(policy: NetworkPolicy, owners: Owners) -> Iterator[Finding]:
    """Everything that can be said of one policy by reading it."""
    yield from _directions(policy)
    yield from _labels(policy)
    for direction in sorted(policy.directions, key=lambda d: d.value):
        for index, rule in enumerate(policy.rules(direction)):
            subject = f"{policy}:{direction.value.lower()}:{index}"
            yield from _peers(subject, rule)
            yield from _blocks(subject, rule, owners)
        yield from _mergeable(policy, direction)


def _directions(policy: NetworkPolicy) -> Iterator[Finding]:
    for direction in Direction:
        if direction not in policy.directions and policy.rules(direction):
            yield Finding(
                code=Code.IGNORED_DIRECTION,
                severity=Severity.ERROR,
                subject=f"{policy}:{direction.value.lower()}",
                message=f"has {direction.value.lower()} rules, but policyTypes does not list {direction.value}: "
                "they are ignored",
                way_out=f"add {direction.value} to policyTypes, or remove the rules",
            )
    if policy.policy_types is None:
        isolated = " and ".join(sorted(d.value.lower() for d in policy.directions))
        yield Finding(
            code=Code.MISSING_POLICY_TYPES,
            severity=Severity.WARNING,
            subject=str(policy),
            message=f"has no policyTypes, so it isolates {isolated}: ingress always, egress only because of rules",
            way_out="write policyTypes",
        )


def selector_keys(selector: LabelSelector | None) -> Iterator[tuple[str, str | None]]:
    """The keys that a selector names, with the value where there is one."""
    if selector is not None:
        yield from selector.match_labels
        for requirement in selector.match_expressions:
            yield from ((requirement.key, value) for value in requirement.values or (None,))


def _labels(policy: NetworkPolicy) -> Iterator[Finding]:
    places: list[tuple[str, LabelSelector | None]] = [(f"{policy}:podSelector", policy.pod_selector)]
    for direction in Direction:
        for index, rule in enumerate(policy.rules(direction)):
            for number, peer in enumerate(rule.peers):
                if isinstance(peer, SelectorPeer):
                    where = f"{policy}:{direction.value.lower()}:{index}:{number}"
                    places.append((f"{where}:podSelector", peer.pod_selector))
                    places.append((f"{where}:namespaceSelector", peer.namespace_selector))
    for where, selector in places:
        for key, value in dict.fromkeys(selector_keys(selector)):
            kind = classify_key(key) if value is None else classify(key, value)
            if kind is LabelClass.GENERATED:
                yield Finding(
                    code=Code.GENERATED_LABEL,
                    severity=Severity.ERROR,
                    subject=f"{where}:{key}",
                    message=f"{key} is made by a controller for one rollout, pod or run: the policy dies with it",
                    way_out="select by the owner's own spec.selector labels",
                )
            elif kind is LabelClass.VOLATILE:
                yield Finding(
                    code=Code.UNSTABLE_LABEL,
                    severity=Severity.WARNING,
                    subject=f"{where}:{key}",
                    message=f"{key}={value or ''} changes with an upgrade",
                    way_out="select by a label that stays",
                )


def _peers(subject: str, rule: Rule) -> Iterator[Finding]:
    selectors = [(i, p) for i, p in enumerate(rule.peers) if isinstance(p, SelectorPeer)]
    for index, peer in selectors:
        if peer.pod_selector is None and peer.namespace_selector is None:
            yield Finding(
                code=Code.PEER_WITHOUT_FIELDS,
                severity=Severity.ERROR,
                subject=f"{subject}:{index}",
                message="a peer without any field: the API rejects it, and it matches nothing",
                way_out="use podSelector: {} for every pod of the namespace, or remove the peer",
            )
    bare_pods = [i for i, p in selectors if p.pod_selector is not None and p.namespace_selector is None]
    bare_namespaces = [i for i, p in selectors if p.namespace_selector is not None and p.pod_selector is None]
    if any(abs(i - j) == 1 for i in bare_pods for j in bare_namespaces):
        yield Finding(
            code=Code.AND_OR_DASH,
            severity=Severity.WARNING,
            subject=subject,
            message="a podSelector alone beside a namespaceSelector alone: any pod of those namespaces OR those pods "
            "of this namespace",
            way_out="remove the second dash if you meant those pods of those namespaces",
        )


def _blocks(subject: str, rule: Rule, owners: Owners) -> Iterator[Finding]:
    cluster = owners.cluster
    for block in (peer for peer in rule.peers if isinstance(peer, IPBlock)):
        cidr = block.cidr
        host = cidr.network_address if cidr.num_addresses == 1 else None
        if inside := owners.pods.get(host) or _inside(cidr, cluster.pod_cidrs, "the pod CIDR"):
            yield Finding(
                code=Code.IPBLOCK_ON_POD_IP,
                severity=Severity.WARNING,
                subject=f"{subject}:{cidr}",
                message=f"{cidr} is {inside}: pod addresses change, and some CNIs never match pods by ipBlock",
                way_out="select pods by label",
            )
        elif inside := owners.services.get(host) or _inside(cidr, cluster.service_cidrs, "the Service CIDR"):
            yield Finding(
                code=Code.IPBLOCK_ON_SERVICE_IP,
                severity=Severity.WARNING,
                subject=f"{subject}:{cidr}",
                message=f"{cidr} is {inside}: a Service address is translated before policies see it",
                way_out="select the Service's pods by label, with their own port",
            )


def _inside(cidr: IPNetwork, networks: tuple[IPNetwork, ...], name: str) -> str:
    return next((f"inside {name} {n}" for n in networks if contains(n, cidr)), "")


def contains(outer: IPNetwork, inner: IPNetwork) -> bool:
    """Whether every address of `inner` is one of `outer`."""
    return outer.version == inner.version and inner.network_address in outer and inner.broadcast_address in outer


def _mergeable(policy: NetworkPolicy, direction: Direction) -> Iterator[Finding]:
    by_ports: dict[tuple[PolicyPort, ...], list[IPNetwork]] = {}
    for rule in policy.rules(direction):
        networks = [p.cidr for p in rule.peers if isinstance(p, IPBlock) and not p.excepts]
        by_ports.setdefault(rule.ports, []).extend(networks)
    for networks in by_ports.values():
        v4 = collapse_addresses([n for n in networks if isinstance(n, IPv4Network)])
        v6 = collapse_addresses([n for n in networks if isinstance(n, IPv6Network)])
        together: list[IPNetwork] = [*v4, *v6]
        for merged in together:
            parts = [n for n in networks if contains(merged, n)]
            if merged not in parts:
                yield Finding(
                    code=Code.MERGEABLE_CIDRS,
                    severity=Severity.INFO,
                    subject=f"{policy}:{direction.value.lower()}:{merged}",
                    message=f"{', '.join(map(str, parts))} are together {merged}",
                    way_out=f"write {merged}",
                )
