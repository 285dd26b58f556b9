"""The smallest rule that would let a denied connection through, on the side that denies it.

Enters: a side's explanation and the connection. Leaves: a Fix: which policy to add a rule to, and the rule. Invariant:
the rule admits this peer on this port and nothing else; where the peer cannot be selected alone, there is no Fix.
"""

from dataclasses import dataclass
from ipaddress import ip_network

from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot
from aggregator.model.decision import LabelLists
from aggregator.model.endpoint import Connection, PodEndpoint
from aggregator.model.networkpolicy import IPBlock, LabelSelector, PolicyPeer, PolicyPort, Rule, SelectorPeer
from aggregator.model.protocol import Direction
from aggregator.model.verdict import DirectionExplanation, PolicyReason, Verdict
from aggregator.policy.generation.selectors import Selected, Selectors

# A policy that has a rule for this peer is the nearest one to change, then one that allows anything at all.
_DISTANCE = {PolicyReason.PORT_NOT_MATCHED: 0, PolicyReason.PEER_NOT_MATCHED: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """Add `rule` to the `direction` rules of `policy`."""

    policy: str
    direction: Direction
    rule: Rule


def minimal_fix(side: DirectionExplanation, connection: Connection, cluster: ClusterSnapshot) -> Fix | None:
    """The rule to add; None where this side does not deny, or no rule of a NetworkPolicy could help."""
    native = [
        finding
        for finding in side.policies
        if finding.reason not in {PolicyReason.DENIED, PolicyReason.PASSED, PolicyReason.UNKNOWN}
    ]
    if side.verdict is not Verdict.DENIED or not native or len(native) != len(side.policies):
        return None
    ends = (connection.src, connection.dst)
    own, far = ends if side.direction is Direction.EGRESS else ends[::-1]
    namespace = own.pod.namespace if isinstance(own, PodEndpoint) else ""
    peer: PolicyPeer
    if isinstance(far, PodEndpoint) and not far.pod.host_network:
        selection = Selectors(cluster, LabelLists()).select(far.pod.workload)
        if not isinstance(selection, Selected):
            return None
        elsewhere = LabelSelector(match_labels=((NAMESPACE_NAME_LABEL, far.pod.namespace),))
        peer = SelectorPeer(
            pod_selector=selection.selector,
            namespace_selector=None if far.pod.namespace == namespace else elsewhere,
        )
    else:
        peer = IPBlock(cidr=ip_network(far.ip))
    nearest = min(native, key=lambda finding: (_DISTANCE.get(finding.reason, len(_DISTANCE)), finding.policy))
    port = PolicyPort(protocol=connection.protocol, port=connection.port)
    return Fix(policy=nearest.policy, direction=side.direction, rule=Rule(peers=(peer,), ports=(port,)))
