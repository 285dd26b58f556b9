"""Findings of generation in words, each with its way out; and the evidence as an annotation.

Enters: what generation met. Leaves: Findings with stable codes, documented by the names in this module.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aggregator.model.cluster import NAMESPACE_NAME_LABEL
from aggregator.model.decision import TypedCIDR
from aggregator.model.finding import Finding, Severity
from aggregator.model.link import Link
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.proposal import IncludedLink, Reason
from aggregator.model.protocol import Direction
from aggregator.model.workload import Address, LinkEnd, Workload
from aggregator.policy.generation.ports import PortRange
from aggregator.policy.generation.selectors import NotSeparable

if TYPE_CHECKING:
    from aggregator.policy.generation.addresses import Addresses
    from aggregator.policy.generation.facts import Judged

EVIDENCE_ANNOTATION = "wattle/evidence"
MAX_ANNOTATION_BYTES = 64 * 1024

WORKLOAD_WITHOUT_USABLE_LABELS = "workload-without-usable-labels"
SELECTOR_NOT_SEPARABLE = "selector-not-separable"
NAMESPACE_WITHOUT_LABELS = "namespace-without-labels"
WORKLOAD_UNKNOWN = "workload-unknown"
UNRESOLVED_IP = "unresolved-ip"
DIRECTION_LEFT_OPEN = "direction-left-open"
DYNAMIC_PORT_RANGE = "dynamic-port-range"
SNAT_SOURCE_IS_NODE = "snat-source-is-node"
DNS_NOT_FOUND = "dns-not-found"
DNS_EXCLUDED = "dns-excluded"
DNS_NOT_SEPARABLE = "dns-not-separable"
FAILED_ATTEMPTS = "failed-attempts"
LOW_CONFIDENCE = "low-confidence"
VOLATILE_SELECTOR = "volatile-selector"
CLUSTER_SUBNETS_INCOMPLETE = "cluster-subnets-incomplete"
PEER_UNKNOWN = "peer-unknown"
CIDR_BUDGET_TOO_SMALL = "cidr-budget-too-small"
DECIDED_NOT_SEEN = "decided-not-seen"


def of_rows(rows: Iterable["Judged"], addresses: "Addresses") -> list[Finding]:
    """One finding for each row that is left out for a reason that a person can do something about."""
    found: list[Finding] = []
    unsure = False
    for row in rows:
        if row.included:
            unsure = unsure or row.reason is Reason.EXTERNAL_ACCEPTED
            continue
        finding = _of_row(row)
        if finding is not None:
            found.append(finding)
            unsure = unsure or row.reason is Reason.UNRESOLVED
    if unsure and not addresses.complete:
        found.append(
            Finding(
                code=CLUSTER_SUBNETS_INCOMPLETE,
                severity=Severity.WARNING,
                subject="cluster",
                message="the cluster's pod and Service CIDRs are not completely known, so an address that nobody owns "
                "cannot be called external",
                way_out="set the cluster's CIDRs",
            )
        )
    return found


def _of_row(row: "Judged") -> Finding | None:
    link = row.observed.link
    subject, severity, message = str(link), Severity.WARNING, row.text
    match row.reason:
        case Reason.UNRESOLVED | Reason.INTERNAL_UNRESOLVED:
            address = next((end for end in (link.dst, link.src) if isinstance(end, Address)), None)
            code, message = UNRESOLVED_IP, f"{address} is left out: {row.text}"
            way_out = "include the row, give the address an alias, or set the cluster's CIDRs"
        case Reason.FAILED_ATTEMPTS:
            code, severity = FAILED_ATTEMPTS, Severity.INFO
            way_out = "include the row if the connection is meant to work"
        case Reason.LOW_CONFIDENCE:
            code, way_out = LOW_CONFIDENCE, "include the row if the server is right"
        case Reason.PEER_UNKNOWN:
            code, way_out = PEER_UNKNOWN, "wait until the cluster shows it again, or type a CIDR"
        case Reason.SELECTOR_NOT_SEPARABLE:
            code, message = SELECTOR_NOT_SEPARABLE, f"this connection was seen and is left out: {row.text}"
            way_out = "add a label of its own to the other end's pod template before this policy is applied"
        case Reason.NAMESPACE_NOT_NAMEABLE:
            code, subject, message = NAMESPACE_WITHOUT_LABELS, row.detail, f"{link} is left out: {row.text}"
            way_out = f"permit {NAMESPACE_NAME_LABEL} in the namespace label lists"
        case _:
            return None
    return Finding(code=code, severity=severity, subject=subject, message=message, way_out=way_out)


def decided_not_seen(link: Link) -> Finding:
    return Finding(
        code=DECIDED_NOT_SEEN,
        severity=Severity.INFO,
        subject=str(link),
        message="a person included this row, and it was not seen in the span",
        way_out="take the decision back if it is no longer wanted",
    )


def not_separable(workload: Workload, selection: NotSeparable, *, known: bool) -> Finding:
    if not known:
        return Finding(
            code=WORKLOAD_UNKNOWN,
            severity=Severity.INFO,
            subject=str(workload),
            message=f"no policy: {selection.reason}",
            way_out="its rows age out; nothing needs to be done when it was deleted",
        )
    if selection.no_labels:
        return Finding(
            code=WORKLOAD_WITHOUT_USABLE_LABELS,
            severity=Severity.ERROR,
            subject=str(workload),
            message=f"no policy: {selection.reason}, and an empty selector would select the whole namespace",
            way_out=f'add a label of its own to the pod template, such as "app: {workload.name}"',
        )
    return Finding(
        code=SELECTOR_NOT_SEPARABLE,
        severity=Severity.ERROR,
        subject=str(workload),
        message=f"no policy: {selection.reason}",
        way_out=f'add a label of its own to the pod template, such as "app.kubernetes.io/name: {workload.name}", '
        "or permit more label keys",
    )


def left_open(workload: Workload, direction: Direction) -> Finding:
    return Finding(
        code=DIRECTION_LEFT_OPEN,
        severity=Severity.INFO,
        subject=str(workload),
        message=f"{direction.value.lower()} is left open: nothing was seen in it",
        way_out=f"block {direction.value.lower()} by a general rule if nothing is wanted",
    )


def volatile_selector(workload: Workload, keys: Sequence[str]) -> Finding:
    return Finding(
        code=VOLATILE_SELECTOR,
        severity=Severity.WARNING,
        subject=str(workload),
        message=f"only {', '.join(keys)} tells it from other workloads, and that changes with an upgrade",
        way_out="add a label that lasts to the pod template",
    )


def dynamic_ports(src: LinkEnd, dst: LinkEnd, wide: PortRange) -> Finding:
    return Finding(
        code=DYNAMIC_PORT_RANGE,
        severity=Severity.WARNING,
        subject=f"{src} -> {dst}",
        message=f"the many ports between {wide.first} and {wide.last} ({wide.protocol}) look dynamic; only those seen "
        "are allowed, the next one will be cut",
        way_out=f"accept the range {wide.first}-{wide.last}, or fix the server's ports in its own configuration",
    )


def nodes_as_source(workload: Workload) -> Finding:
    return Finding(
        code=SNAT_SOURCE_IS_NODE,
        severity=Severity.WARNING,
        subject=str(workload),
        message="callers arrive with the address of a node (hostNetwork pods, or a NodePort or LoadBalancer Service "
        "with externalTrafficPolicy: Cluster): every node is allowed, the callers themselves cannot be told apart",
        way_out="type the CIDR of callers from outside, too: where the pod runs on the node that they call, many "
        "plug-ins judge their own address; externalTrafficPolicy: Local on the Service shows it",
    )


def dns_not_found(workload: Workload) -> Finding:
    return Finding(
        code=DNS_NOT_FOUND,
        severity=Severity.WARNING,
        subject=str(workload),
        message="egress is isolated, and the cluster shows no DNS Service and no DNS pods: no DNS rule could be made",
        way_out="include the row of the DNS server, or type its CIDR with port 53, UDP and TCP",
    )


def dns_excluded(workload: Workload) -> Finding:
    return Finding(
        code=DNS_EXCLUDED,
        severity=Severity.WARNING,
        subject=str(workload),
        message="a person excluded a row to the cluster's DNS, so no DNS rule is made",
        way_out="include the row again if the workload resolves names",
    )


def dns_not_separable(server: Workload) -> Finding:
    return Finding(
        code=DNS_NOT_SEPARABLE,
        severity=Severity.ERROR,
        subject=str(server),
        message="no selector is exactly the DNS pods, so no DNS rule could be made for them",
        way_out="add a label of its own to the pod template of the DNS server",
    )


def budget_too_small(budget: int) -> Finding:
    return Finding(
        code=CIDR_BUDGET_TOO_SMALL,
        severity=Severity.WARNING,
        subject="settings",
        message=f"the outside addresses of a rule cannot be covered by {budget} prefixes without an address that must "
        "not be touched: they are listed exactly",
        way_out="raise the budget of prefixes",
    )


def words_of(typed: TypedCIDR) -> str:
    """A typed CIDR as a person would say it."""
    if typed.protocol is None:
        return f"{typed.cidr}, every port"
    if typed.port is None:
        return f"{typed.cidr}, every {typed.protocol} port"
    last = f"-{typed.end_port}" if typed.end_port is not None else ""
    return f"{typed.cidr}, {typed.protocol} {typed.port}{last}"


def annotated(policy: NetworkPolicy, rows: Iterable[IncludedLink]) -> NetworkPolicy:
    """The policy with its evidence in an annotation: links, counts and times, as much as fits."""
    lines: list[str] = []
    size = 0
    for row in rows:
        evidence = row.observed.evidence
        line = json.dumps(
            {
                "link": str(row.observed.link),
                "connections": evidence.connections,
                "first": evidence.first_seen.isoformat() if evidence.first_seen else None,
                "last": evidence.last_seen.isoformat() if evidence.last_seen else None,
                "why": row.reason.value,
            },
            sort_keys=True,
        )
        size += len(line) + 1
        if size > MAX_ANNOTATION_BYTES:
            break
        lines.append(line)
    return replace(policy, annotations=(*policy.annotations, (EVIDENCE_ANNOTATION, "\n".join(lines))))
