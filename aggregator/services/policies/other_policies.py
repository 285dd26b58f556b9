"""Policies of the cluster that are no NetworkPolicies: which there are, and which of them a verdict counts.

Enters: a Question, a scope. Leaves: OtherPolicyViews. Invariant: one is called evaluated only where the installation's
profile says that its network plug-in enforces it; of a plug-in's own policy no meaning is claimed.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy, Tier
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload
from aggregator.policy.describing.admin import describe_admin, describe_foreign
from aggregator.policy.describing.words import text
from aggregator.policy.lint.universe import subjects
from aggregator.policy.profiles.profile import Answer, Profile
from aggregator.services.policies.policy_views import OtherPolicyView
from aggregator.services.question import Question

_TURN = {
    Tier.ADMIN: "asked before the NetworkPolicies",
    Tier.BASELINE: "asked where no NetworkPolicy isolates the pod",
}
_NOT_COUNTED = "not evaluated: what it could decide is called unknown"


def other_policies(question: Question, namespace: str, workloads: Sequence[Workload]) -> list[OtherPolicyView]:
    """Those that may act on the scope: on the workloads, on the namespace, or with neither on anything that is seen.

    Their rules may name any namespace: in words they are told only to who may see all of them.
    """
    cluster, everything = question.cluster, question.sight.everything
    found = [policy for policy in cluster.extra_policies if isinstance(policy, AdminPolicy | ForeignPolicy)]
    return [
        _view(policy, cluster, question.profile, told=everything)
        for policy in sorted(found, key=str)
        if (everything and not namespace) or _touches(policy, cluster, namespace, workloads)
    ]


def _touches(
    policy: AdminPolicy | ForeignPolicy, cluster: ClusterSnapshot, namespace: str, workloads: Sequence[Workload]
) -> bool:
    match policy:
        case AdminPolicy():
            chosen = (pod for pod in subjects(policy.subject, cluster) if namespace in {"", pod.namespace})
            return any(not workloads or pod.workload in workloads for pod in chosen)
        case ForeignPolicy(pod_selector=selector):
            if policy.namespace not in {"", namespace} and namespace:
                return False
            pods = (pod for workload in workloads for pod in cluster.pods_by_workload.get(workload, ()))
            return not workloads or selector is None or any(selector.matches(dict(pod.labels)) for pod in pods)
        case _:
            assert_never(policy)


def _view(
    policy: AdminPolicy | ForeignPolicy, cluster: ClusterSnapshot, profile: Profile, *, told: bool
) -> OtherPolicyView:
    match policy:
        case AdminPolicy():
            evaluated, standing = _admin(policy, profile)
            namespace, words = "", text(describe_admin(policy, cluster)) if told else ""
            directions: Iterable[Direction] = (direction for direction in Direction if policy.rules(direction))
        case ForeignPolicy():
            evaluated, standing = False, _NOT_COUNTED
            namespace, words = policy.namespace, text(describe_foreign(policy)) if told else ""
            directions = policy.directions
        case _:
            assert_never(policy)
    return OtherPolicyView(
        kind=policy.kind,
        namespace=namespace,
        name=policy.name,
        directions=[direction.value for direction in sorted(directions, key=lambda known: known.value, reverse=True)],
        evaluated=evaluated,
        standing=standing,
        words=words,
    )


def _admin(policy: AdminPolicy, profile: Profile) -> tuple[bool, str]:
    match profile.admin_policies:
        case Answer.YES:
            return True, f"evaluated: {_TURN[policy.tier]}"
        case Answer.NO:
            return False, f"not evaluated: {profile.title} does not enforce this kind"
        case Answer.UNDEFINED:
            return False, f"{_NOT_COUNTED}, for {profile.title} may or may not enforce this kind"
        case _:
            assert_never(profile.admin_policies)
