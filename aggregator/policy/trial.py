"""A trial: pairs of pods to try for real, and what the evaluator expects of each.

Enters: a snapshot, the namespaces in question, a limit. Leaves: Pairs, and what was left out and why. Invariant: both
ends are pods of the namespaces; no address, no node and nothing outside the cluster is ever tried. The same cluster
gives the same pairs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy, Policy
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.evaluation.endpoints import pod_endpoint
from aggregator.policy.evaluation.judging import Judge, words
from aggregator.policy.evaluation.live import connect
from aggregator.policy.profiles.profile import Profile

USUAL_PORT = 8080  # of a workload that declares none


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`expected` is ALLOWED or DENIED; `because` the policies' say."""

    src: Pod
    dst: Pod
    port: int
    expected: Verdict
    because: str

    def __str__(self) -> str:
        src, dst = (f"{pod.namespace}/{pod.workload.name}" for pod in (self.src, self.dst))
        return f"{src} -> {dst}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    pairs: tuple[Pair, ...]
    unknown: int  # pairs whose verdict nobody can tell: not tried
    left_out: int  # beyond the limit


def choose(
    cluster: ClusterSnapshot,
    namespaces: Iterable[str],
    *,
    limit: int,
    profile: Profile,
    refused: frozenset[Pod] = frozenset(),
) -> Trial:
    """Allowed and denied pairs in turn, up to `limit`; one pod stands for all with its labels and ports."""
    ends = _representatives(cluster, frozenset(namespaces), refused)
    extra = (p for p in cluster.extra_policies if isinstance(p, AdminPolicy | ForeignPolicy))
    policies: Sequence[Policy] = (*cluster.policies, *extra)
    judge = Judge(policies, cluster, profile)
    allowed: list[Pair] = []
    denied: list[Pair] = []
    unknown = 0
    for src in ends:
        for dst in ends:
            for port in () if src is dst else _ports(dst):
                said = judge.explain(connect(pod_endpoint(src), pod_endpoint(dst), Protocol.TCP, port))
                pair = Pair(src=src, dst=dst, port=port, expected=said.verdict, because=words(said))
                if said.verdict is Verdict.UNKNOWN:
                    unknown += 1
                else:
                    (allowed if said.verdict is Verdict.ALLOWED else denied).append(pair)
    turns = [pair for both in zip_longest(denied, allowed) for pair in both if pair is not None]
    return Trial(pairs=tuple(turns[:limit]), unknown=unknown, left_out=max(len(turns) - limit, 0))


def _representatives(cluster: ClusterSnapshot, namespaces: frozenset[str], refused: frozenset[Pod]) -> list[Pod]:
    found: dict[tuple[object, ...], Pod] = {}
    for pod in sorted(cluster.pods, key=lambda p: (p.namespace, p.name)):
        if pod.namespace in namespaces and not pod.ended and not pod.host_network and pod not in refused:
            found.setdefault((pod.namespace, pod.labels, pod.ports), pod)
    return list(found.values())


def _ports(pod: Pod) -> tuple[int, ...]:
    return tuple(sorted({port.port for port in pod.ports if port.protocol is Protocol.TCP})) or (USUAL_PORT,)
