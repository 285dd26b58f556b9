"""Evaluators asked about connections, with nothing to evaluate but the policies that can matter.

Enters: policies and connections. Leaves: Explanations of the plain evaluator, and whether the compiled one agrees.
Invariant: a policy is left out of a question only when it selects neither end.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from aggregator.model.adminpolicy import Policy
from aggregator.model.cluster import ClusterSnapshot, Labels
from aggregator.model.endpoint import Connection, Endpoint, NodeEndpoint, PodEndpoint
from aggregator.model.networkpolicy import NetworkPolicy, Rule
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import Explanation, Verdict
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.evaluation.matching import View, peer_matches
from aggregator.policy.profiles.profile import Profile


class Judge:
    """The plain evaluator over one set of policies; remembers what it was asked."""

    def __init__(self, policies: Iterable[Policy], cluster: ClusterSnapshot, profile: Profile) -> None:
        everything = tuple(policies)
        self._cluster = cluster
        self._profile = profile
        self.others = tuple(policy for policy in everything if not isinstance(policy, NetworkPolicy))
        self._native: dict[str, list[NetworkPolicy]] = {}
        for policy in everything:
            if isinstance(policy, NetworkPolicy):
                self._native.setdefault(policy.namespace, []).append(policy)
        self._selecting: dict[tuple[str, Labels], tuple[NetworkPolicy, ...]] = {}
        self.asked: list[tuple[Connection, Verdict]] = []

    def selecting(self, end: Endpoint) -> tuple[NetworkPolicy, ...]:
        """The policies that select this end."""
        if not isinstance(end, PodEndpoint):
            return ()
        key = (end.pod.namespace, end.pod.labels)
        found = self._selecting.get(key)
        if found is None:
            labels = dict(end.pod.labels)
            found = tuple(p for p in self._native.get(end.pod.namespace, ()) if p.pod_selector.matches(labels))
            self._selecting[key] = found
        return found

    def explain(self, connection: Connection) -> Explanation:
        return self._evaluated(self._relevant(connection.src, connection.dst), connection)

    def between(self, src: Endpoint, dst: Endpoint) -> Callable[[Connection], Explanation]:
        """For many connections of one pair: peers that cannot mean the other end are left out once, and rules of those.

        The verdicts are those of `explain`; the reasons are not, for they no longer know of such rules.
        """
        pruned = [self._pruned(policy, src, dst) for policy in self._relevant(src, dst)]
        return lambda connection: self._evaluated(pruned, connection)

    def _relevant(self, src: Endpoint, dst: Endpoint) -> list[NetworkPolicy]:
        # Identity, not equality: hashing a whole policy costs more than evaluating it.
        relevant = list(self.selecting(src))
        known = {id(policy) for policy in relevant}
        return [*relevant, *(policy for policy in self.selecting(dst) if id(policy) not in known)]

    def _evaluated(self, policies: Sequence[NetworkPolicy], connection: Connection) -> Explanation:
        found = evaluate((*policies, *self.others), self._cluster, connection, self._profile)
        self.asked.append((connection, found.verdict))
        return found

    def _pruned(self, policy: NetworkPolicy, src: Endpoint, dst: Endpoint) -> NetworkPolicy:
        return replace(
            policy,
            policy_types=tuple(d for d in Direction if d in policy.directions),  # said: rules may be gone
            egress=self._meant(policy, Direction.EGRESS, src, dst),
            ingress=self._meant(policy, Direction.INGRESS, dst, src),
        )

    def _meant(self, policy: NetworkPolicy, direction: Direction, end: Endpoint, other: Endpoint) -> tuple[Rule, ...]:
        rules = policy.rules(direction)
        if not isinstance(end, PodEndpoint):
            return rules
        view = View(
            direction=direction,
            subject=end.pod,
            other=other,
            connection=Connection(src=end, dst=other, protocol=Protocol.TCP, port=1),  # peers do not look at it
            cluster=self._cluster,
            profile=self._profile,
        )
        found = []
        for rule in rules:
            peers = tuple(peer for peer in rule.peers if peer_matches(peer, policy.namespace, view) is not False)
            if peers or not rule.peers:
                found.append(replace(rule, peers=peers))
        return tuple(found)


def example(connection: Connection) -> str:
    """The pair, in words."""
    return f"{_name(connection.src)} -> {_name(connection.dst)}"


def _name(end: object) -> str:
    match end:
        case PodEndpoint(pod=pod):
            return str(pod)
        case NodeEndpoint(node=node, ip=ip):
            return f"node {node.name} ({ip})"
        case _:
            return str(getattr(end, "ip", end))


def words(said: Explanation) -> str:
    """Both sides of an explanation, in one line."""
    sides = []
    for side in (said.egress, said.ingress):
        policies = ", ".join(f"{finding.policy}: {finding.reason.value}" for finding in side.policies)
        cause = f" ({policies or side.cause})" if policies or side.cause else ""
        sides.append(f"{side.direction.value.lower()} {side.outcome.value}{cause}")
    return "; ".join(sides)
