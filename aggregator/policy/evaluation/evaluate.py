"""Evaluate: may this new connection be opened, and why? NetworkPolicy v1 exactly, admin tiers around it.

Enters: policies, a snapshot, a Connection and a plug-in's Profile. Leaves: an Explanation whose verdict is ALLOWED,
DENIED, or UNKNOWN with its cause. Plain and slow on purpose: `compiled` is fast, shares no code with this, and agrees.
"""

from collections.abc import Iterable, Mapping, Sequence

from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy, Policy, Tier
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.endpoint import Connection, Endpoint, NodeEndpoint, PodEndpoint
from aggregator.model.networkpolicy import NetworkPolicy, Rule
from aggregator.model.protocol import Direction
from aggregator.model.verdict import (
    DirectionExplanation,
    DirectionOutcome,
    Explanation,
    PolicyFinding,
    PolicyReason,
)
from aggregator.policy.evaluation.matching import (
    Match,
    Unknown,
    View,
    acts_as_node,
    any_of,
    both,
    peer_matches,
    port_matches,
    unowned_pod_address,
)
from aggregator.policy.evaluation.tiers import asked, layered
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Profile

_OUTCOMES: Mapping[Match, DirectionOutcome] = {True: DirectionOutcome.ALLOWED, False: DirectionOutcome.DENIED}


def evaluate(
    policies: Iterable[Policy], cluster: ClusterSnapshot, connection: Connection, profile: Profile = GENERIC
) -> Explanation:
    """The verdict on a new connection with its reasons: both sides must allow (NP-05)."""
    everything = tuple(policies)
    return Explanation(
        egress=explain_direction(Direction.EGRESS, everything, cluster, connection, profile),
        ingress=explain_direction(Direction.INGRESS, everything, cluster, connection, profile),
    )


def explain_direction(
    direction: Direction,
    policies: Sequence[Policy],
    cluster: ClusterSnapshot,
    connection: Connection,
    profile: Profile = GENERIC,
) -> DirectionExplanation:
    """What the policies of one side say: the source's for EGRESS, the destination's for INGRESS."""
    ends = (connection.src, connection.dst)
    end, other = ends if direction is Direction.EGRESS else ends[::-1]
    # 1. Some ends are beyond policies: no pod, a pod and itself, a pod and its own node.
    if not isinstance(end, PodEndpoint) or acts_as_node(end.pod) or end.pod.ended:
        gap = None if end == other else unowned_pod_address(cluster, end)  # whose it is, it may reach itself
        outcome = DirectionOutcome.UNKNOWN if gap else DirectionOutcome.NOT_A_POD
        return DirectionExplanation(direction=direction, outcome=outcome, cause=gap.cause if gap else "")
    if (exempt := exemption(end.pod, other)) is not None:
        return DirectionExplanation(direction=direction, outcome=exempt)
    view = View(
        direction=direction, subject=end.pod, other=other, connection=connection, cluster=cluster, profile=profile
    )
    # 2. The admin tier is asked first, then NetworkPolicies, then the baseline tier; whoever decides, decides.
    native = [policy for policy in policies if isinstance(policy, NetworkPolicy) and selects(policy, view)]
    if all(isinstance(policy, NetworkPolicy) for policy in policies):  # most clusters: there are no tiers to ask
        return explain_native(native, view) if native else default_allow(direction)
    admin = [policy for policy in policies if isinstance(policy, AdminPolicy)]
    baseline = asked([policy for policy in admin if policy.tier is Tier.BASELINE], view)
    foreign = [policy for policy in policies if isinstance(policy, ForeignPolicy) and foreign_selects(policy, view)]
    below = explain_native(native, view) if native else layered(baseline, default_allow(direction), direction)
    said = layered(asked([policy for policy in admin if policy.tier is Tier.ADMIN], view), below, direction)
    return _clouded(said, foreign) if foreign else said


def exemption(pod: Pod, other: Endpoint) -> DirectionOutcome | None:
    """NP-30, NP-31: a pod cannot block itself, nor its own node."""
    match other:
        case PodEndpoint(pod=far) if (far.namespace, far.name) == (pod.namespace, pod.name):
            return DirectionOutcome.SELF
        case PodEndpoint(pod=far) if acts_as_node(far) and far.node_name == pod.node_name != "":
            return DirectionOutcome.NODE_OWN_POD
        case NodeEndpoint(node=node) if node.name == pod.node_name:
            return DirectionOutcome.NODE_OWN_POD
        case _:
            return None


def selects(policy: NetworkPolicy, view: View) -> bool:
    """NP-01, NP-02, NP-03: a policy isolates the pods of its own namespace that it selects, in its own directions."""
    return (
        policy.namespace == view.subject.namespace
        and view.direction in policy.directions
        and policy.pod_selector.matches(dict(view.subject.labels))
    )


def explain_native(policies: Sequence[NetworkPolicy], view: View) -> DirectionExplanation:
    """NP-04: the pod is isolated; one matching rule of one policy is enough, and nothing takes an allow back."""
    matches = [rule_matches(policy, view) for policy in policies]
    found = any_of(match for of_policy in matches for match in of_policy)
    findings = [explain_policy(policy, of_policy, view) for policy, of_policy in zip(policies, matches, strict=True)]
    return DirectionExplanation(
        direction=view.direction,
        outcome=_OUTCOMES.get(found, DirectionOutcome.UNKNOWN),
        policies=tuple(sorted(findings, key=lambda finding: finding.policy)),
        cause=found.cause if isinstance(found, Unknown) else "",
    )


def rule_matches(policy: NetworkPolicy, view: View) -> list[Match]:
    """NP-08: per rule, any peer AND any port; never a peer of one rule with a port of another."""
    return [
        both(rule_peers_match(rule, policy.namespace, view), rule_ports_match(rule, view))
        for rule in policy.rules(view.direction)
    ]


def rule_peers_match(rule: Rule, namespace: str, view: View) -> Match:
    """NP-09, NP-11: no peers mean every source, many are ORed."""
    return not rule.peers or any_of(peer_matches(peer, namespace, view) for peer in rule.peers)


def rule_ports_match(rule: Rule, view: View) -> Match:
    """NP-09: no ports mean every port of every protocol."""
    return not rule.ports or any_of(port_matches(port, view) for port in rule.ports)


def explain_policy(policy: NetworkPolicy, matches: Sequence[Match], view: View) -> PolicyFinding:
    """One selecting policy's say, with the 1-based rules that it rests on."""
    rules = policy.rules(view.direction)
    allowing = [n for n, match in enumerate(matches, start=1) if match is True]
    unknown = [n for n, match in enumerate(matches, start=1) if isinstance(match, Unknown)]

    def only_port() -> list[int]:
        """Asked of those alone that match nothing: it is half of the work again."""
        numbered = enumerate(rules, start=1)
        return [n for n, rule in numbered if rule_peers_match(rule, policy.namespace, view) is not False]

    if not rules:
        reason, numbers = PolicyReason.NO_RULES, []
    elif allowing:
        reason, numbers = PolicyReason.ALLOWED, allowing
    elif unknown:
        reason, numbers = PolicyReason.UNKNOWN, unknown
    elif by_peer := only_port():
        reason, numbers = PolicyReason.PORT_NOT_MATCHED, by_peer
    else:
        reason, numbers = PolicyReason.PEER_NOT_MATCHED, []
    return PolicyFinding(policy=str(policy), reason=reason, rules=tuple(numbers))


def default_allow(direction: Direction) -> DirectionExplanation:
    """NP-07: nothing isolates the pod in this direction."""
    return DirectionExplanation(direction=direction, outcome=DirectionOutcome.DEFAULT_ALLOW)


def foreign_selects(policy: ForeignPolicy, view: View) -> bool:
    return (
        view.direction in policy.directions
        and policy.namespace in ("", view.subject.namespace)
        and (policy.pod_selector is None or policy.pod_selector.matches(dict(view.subject.labels)))
    )


def _clouded(said: DirectionExplanation, foreign: Sequence[ForeignPolicy]) -> DirectionExplanation:
    """A plug-in's own policy may allow or deny what the others do not: nothing is certain any more."""
    names = ", ".join(sorted(map(str, foreign)))
    return DirectionExplanation(
        direction=said.direction,
        outcome=DirectionOutcome.UNKNOWN,
        policies=(
            *said.policies,
            *(PolicyFinding(policy=str(policy), reason=PolicyReason.UNKNOWN) for policy in foreign),
        ),
        cause=f"a policy that is not evaluated here may decide: {names}",
    )
