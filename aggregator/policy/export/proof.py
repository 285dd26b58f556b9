"""Export and its proof: what was written, read back, gives the same verdicts, or the differences are listed.

Enters: NetworkPolicies, the cluster, and a judge made from the exported text alone. Leaves: an Export. Invariant:
`certified` is computed by comparing every class of pods and addresses on every interval of ports, never claimed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aggregator.model.address import IPAddress
from aggregator.model.adminpolicy import Policy
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.endpoint import Connection
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.evaluation.endpoints import pair
from aggregator.policy.evaluation.evaluate import explain_direction
from aggregator.policy.export.identities import api_server_addresses
from aggregator.policy.lint.table import VerdictTable
from aggregator.policy.lint.universe import PeerClass, Universe, bits

MAX_CHECKS = 2_000_000
MAX_EVALUATED = 200_000  # where each connection takes the plain evaluator
MAX_DIFFERENCES = 50

# (direction, the selected pod, the far end, protocol, port) -> allowed by the export
ExportJudge = Callable[[Direction, Pod, Pod | IPAddress, Protocol, int], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """`certified` only when something was checked and nothing differs; `notes` say what a person should know."""

    kind: str
    files: tuple[ExportedFile, ...]
    checked: int
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unit: str = "connections, each judged alike"
    refused: tuple[str, ...] = ()  # what could not be written in this form at all

    @property
    def certified(self) -> bool:
        return bool(self.checked) and not self.differences and not self.refused

    @property
    def label(self) -> str:
        """What every door says of it."""
        if self.certified:
            return f"certified: {self.checked} {self.unit}"
        why = [*self.refused, *self.differences[:1]] or ["nothing could be checked"]
        return f"not certified: {why[0]}"


def compare(
    policies: Iterable[NetworkPolicy],
    cluster: ClusterSnapshot,
    judge: ExportJudge,
    *,
    ipblock_matches_pods: bool = True,
    most: int | None = None,
) -> tuple[int, tuple[str, ...]]:
    """How many connections were judged by both, and those on which they differ."""
    universe = Universe(
        policies,
        cluster,
        addresses=api_server_addresses(cluster),
        ipblock_matches_pods=ipblock_matches_pods,
        by_workload=False,
    )
    table = VerdictTable(universe)
    limit = MAX_CHECKS if most is None else most
    intervals = [(1 << i, *universe.port_at(1 << i)) for i in bits(universe.every_port)]
    subjects = [c for c in universe.classes if c.pods]
    if len(subjects) * len(universe.classes) * len(intervals) * 2 > limit:
        subjects = [c for c in subjects if any(table.isolating(d, c.bit) for d in Direction)]
    checked = 0
    differences: list[str] = []
    for subject in subjects:
        for direction in Direction:
            for peer in bits(table.peers_of(subject.bit)):
                if checked > limit:
                    return checked, (f"more than {limit} connections: too many to check", *differences)
                allowed = table.allowed(direction, subject.bit, peer)
                far = _far(universe.classes[peer], subject)
                if _is_own_node(cluster, subject.pods[0], far):
                    continue
                for mask, protocol, port in intervals:
                    checked += 1
                    if judge(direction, subject.pods[0], far, protocol, port) != bool(allowed & mask):
                        says = "the policies allow it, the export denies it"
                        if not allowed & mask:
                            says = "the policies deny it, the export allows it"
                        differences.append(f"{_words(universe, direction, subject, peer)} {protocol}/{port}: {says}")
    return checked, tuple(differences[:MAX_DIFFERENCES])


def _far(peer: PeerClass, subject: PeerClass) -> Pod | IPAddress:
    """The far end's representative: another pod than the subject's where the class has one."""
    if peer.pods:
        return peer.pods[-1] if peer.bit == subject.bit else peer.pods[0]
    assert peer.address is not None
    return peer.address


def _is_own_node(cluster: ClusterSnapshot, pod: Pod, far: Pod | IPAddress) -> bool:
    """NP-30: no policy of any kind keeps a pod from its own node."""
    node = None if isinstance(far, Pod) else cluster.nodes_by_ip.get(far)
    return node is not None and node.name == pod.node_name


def judge_by_evaluation(policies: Iterable[Policy], cluster: ClusterSnapshot) -> ExportJudge:
    """A judge for exports that `evaluate` understands itself. What it cannot tell is not allowed."""
    everything = tuple(policies)

    def allows(direction: Direction, subject: Pod, far: Pod | IPAddress, protocol: Protocol, port: int) -> bool:
        ends = pair(cluster, subject, far) if direction is Direction.EGRESS else pair(cluster, far, subject)
        connection = Connection(src=ends[0], dst=ends[1], protocol=protocol, port=port)
        return explain_direction(direction, everything, cluster, connection).verdict is Verdict.ALLOWED

    return allows


def _words(universe: Universe, direction: Direction, subject: PeerClass, peer: int) -> str:
    ends = [universe.where(subject), universe.where(universe.classes[peer])]
    if direction is Direction.INGRESS:
        ends.reverse()
    return f"{direction.value.lower()} {ends[0]} -> {ends[1]}"
