"""Evaluators asked about connections, with nothing to evaluate but the policies that can matter.

Enters: policies and connections. Leaves: Explanations of the plain evaluator, and whether the compiled one agrees.
Invariant: a policy is left out of a question only when it selects neither end.
"""

from collections.abc import Iterable

from aggregator.model.adminpolicy import Policy
from aggregator.model.cluster import ClusterSnapshot, Labels
from aggregator.model.endpoint import Connection, Endpoint, NodeEndpoint, PodEndpoint
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.verdict import Explanation, Verdict
from aggregator.policy.evaluation.evaluate import evaluate
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
        # Identity, not equality: hashing a whole policy costs more than evaluating it.
        relevant: list[Policy] = list(self.selecting(connection.src))
        known = {id(policy) for policy in relevant}
        relevant += [policy for policy in self.selecting(connection.dst) if id(policy) not in known]
        found = evaluate((*relevant, *self.others), self._cluster, connection, self._profile)
        self.asked.append((connection, found.verdict))
        return found


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
