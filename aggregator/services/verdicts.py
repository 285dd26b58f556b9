"""Verdicts of links under policies: a link is a pair of workloads, policies judge pairs of pods.

Enters: a Link, a snapshot, policies. Leaves: a LinkVerdict. Invariant: every class of pods behind either end is tried;
denied for one pair is denied, unknown is never folded into allowed (NP-64).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from aggregator.model.adminpolicy import Policy
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.endpoint import Connection, PodEndpoint
from aggregator.model.link import Link
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.verdict import Explanation, Verdict
from aggregator.policy.evaluation.judging import Judge, example
from aggregator.policy.evaluation.live import Live, connect
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Profile

MAX_PAIRS = 64  # of one link; more classes of pods than that are sampled in order


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkVerdict:
    """`explanation` is that of the first pair that shows the verdict; `cause` says why nothing could be judged."""

    verdict: Verdict
    explanation: Explanation | None = None
    connection: Connection | None = None
    cause: str = ""
    partly: bool = False  # other pairs of the same link have another verdict

    @property
    def example(self) -> str:
        return example(self.connection) if self.connection is not None else ""


class Verdicts:
    """Judges many links against one set of policies."""

    def __init__(self, cluster: ClusterSnapshot, policies: Iterable[Policy], profile: Profile = GENERIC) -> None:
        everything = tuple(policies)
        self._judge = Judge(everything, cluster, profile)
        self._live = Live(cluster, (policy for policy in everything if isinstance(policy, NetworkPolicy)))
        self._answers: dict[Link, LinkVerdict] = {}

    def of(self, link: Link) -> LinkVerdict:
        answer = self._answers.get(link)
        if answer is None:
            answer = self._answers[link] = self._try(link)
        return answer

    def _try(self, link: Link) -> LinkVerdict:
        judged = [
            (self._judge.explain(connection), connection) for connection in islice(self._connections(link), MAX_PAIRS)
        ]
        self._judge.asked.clear()  # remembered answers are enough
        if not judged:
            missing = next((end for end in (link.src, link.dst) if not self._live.endpoints(end)), None)
            cause = "it is a pod's traffic to itself" if missing is None else f"the cluster does not show {missing} now"
            return LinkVerdict(verdict=Verdict.UNKNOWN, cause=cause)
        verdicts = {explanation.verdict for explanation, _ in judged}
        worst = next(v for v in (Verdict.DENIED, Verdict.UNKNOWN, Verdict.ALLOWED) if v in verdicts)
        explanation, connection = next(found for found in judged if found[0].verdict is worst)
        return LinkVerdict(verdict=worst, explanation=explanation, connection=connection, partly=len(verdicts) > 1)

    def _connections(self, link: Link) -> Iterator[Connection]:
        sources, targets = self._live.endpoints(link.src), self._live.endpoints(link.dst)
        alone = len(sources) == len(targets) == 1
        for src in sources:
            for dst in targets:
                same = isinstance(src, PodEndpoint) and isinstance(dst, PodEndpoint) and src.pod == dst.pod
                if same and not alone:
                    continue
                for protocol, port in self._live.ports_of(link.dst, link.protocol, link.port):
                    yield connect(src, dst, protocol, port)
