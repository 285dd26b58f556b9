"""Lint as one object: for every kind of finding the things that it is about, for programs to compare.

Enters: the VerdictTable and its Findings. Leaves: JSON-shaped lists under stable keys (docs/findings.md names them).
Policies are `namespace/name`, rules `namespace/name:direction:index` (0-based), pods `namespace/name`.
"""

from collections.abc import Iterable
from typing import Any

from aggregator.model.finding import Finding
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.lint.codes import Code
from aggregator.policy.lint.reach import dns_blocked, half_open, uncovered_pods
from aggregator.policy.lint.table import VerdictTable
from aggregator.policy.lint.universe import PeerClass

SUMMARY_KEYS: dict[str, tuple[Code, ...]] = {
    "unused": (Code.UNUSED, Code.UNUSED_HOST_NETWORK),
    "hostnetwork_only": (Code.UNUSED_HOST_NETWORK,),
    "dormant": (Code.DORMANT,),
    "poorly_scoped": (Code.POORLY_SCOPED,),
    "mixed_kinds": (Code.MIXED_KINDS,),
    "equal_priority": (Code.EQUAL_PRIORITY,),
    "baseline_never_asked": (Code.BASELINE_NEVER_ASKED,),
    "allows_everything": (Code.ALLOWS_EVERYTHING,),
    "redundant_policies": (Code.REDUNDANT_POLICY, Code.SHADOWED_POLICY),
    "redundant_rules": (Code.REDUNDANT_RULE, Code.SHADOWED_RULE),
    "shadowed": (Code.SHADOWED_POLICY, Code.SHADOWED_RULE),
    "empty_rules": (Code.EMPTY_RULE,),
    "empty_peers": (Code.EMPTY_PEER,),
    "dormant_peers": (Code.DORMANT_PEER,),
    "peers_without_fields": (Code.PEER_WITHOUT_FIELDS,),
    "unresolved_named_ports": (Code.UNRESOLVED_NAMED_PORT,),
    "and_or_dash": (Code.AND_OR_DASH,),
    "ignored_directions": (Code.IGNORED_DIRECTION,),
    "missing_policy_types": (Code.MISSING_POLICY_TYPES,),
    "generated_labels": (Code.GENERATED_LABEL,),
    "unstable_labels": (Code.UNSTABLE_LABEL,),
    "ipblock_on_pod_ip": (Code.IPBLOCK_ON_POD_IP,),
    "ipblock_on_service_ip": (Code.IPBLOCK_ON_SERVICE_IP,),
    "invalid": (Code.INVALID,),
    "host_bits": (Code.HOST_BITS,),
    "missing_namespace": (Code.MISSING_NAMESPACE,),
    "unknown_fields": (Code.UNKNOWN_FIELD,),
    "over_broad": (Code.OVER_BROAD, Code.METADATA_REACHABLE),
    "ipblock_on_host": (Code.IPBLOCK_ON_HOST,),
    "end_port_ignored": (Code.END_PORT_IGNORED,),
    "protocol_not_enforced": (Code.PROTOCOL_NOT_ENFORCED,),
    "metadata_reachable": (Code.METADATA_REACHABLE,),
}


def summary(table: VerdictTable, findings: Iterable[Finding]) -> dict[str, Any]:
    """What each kind of finding is about."""
    found = tuple(findings)
    result: dict[str, Any] = {
        key: sorted({finding.subject for finding in found if finding.code in codes})
        for key, codes in SUMMARY_KEYS.items()
    }
    result["vacuous"] = any(finding.code == Code.VACUOUS for finding in found)
    result["mergeable"] = sorted(_last(f.subject) for f in found if f.code == Code.MERGEABLE_CIDRS)
    result["isolates"] = [
        d.value.lower() for d in Direction if any(d in policy.directions for policy in table.universe.policies)
    ]
    blocked = dns_blocked(table)
    result["dns_blocked"] = _pods(blocked[Protocol.UDP])
    result["dns_tcp_blocked"] = _pods(blocked[Protocol.TCP])
    result["uncovered"] = {d.value.lower(): list(pods) for d, pods in uncovered_pods(table).items()}
    result["half_open"] = [
        {
            "from": str(h.src.pods[0]),
            "to": str(h.dst.pods[0]),
            "port": h.port,
            "protocol": h.protocol.value,
            "allowed_by": h.allowed_by.value.lower(),
            "blocked_by": h.allowed_by.opposite.value.lower(),
        }
        for h in half_open(table)
    ]
    return result


def _last(subject: str) -> str:
    """The network at the end of namespace/name:direction:network; the network may hold colons itself."""
    return subject.split(":", 2)[2]


def _pods(classes: Iterable[PeerClass]) -> list[str]:
    return sorted(str(pod) for c in classes for pod in c.pods)
