"""docs/proof.md: what one run on a real cluster showed, written by the run itself.

Enters: figures, the matrix, versions, as the tests find them. Leaves: the page; an incomplete run writes none.
"""

from pathlib import Path

from aggregator.model.verdict import Verdict
from tests.cluster.kubebinaries import VERSION, enforcer, enforcer_version
from tests.e2e.kube.machine import run
from tests.e2e.matrix import Tried

PAGE = Path(__file__).parents[2] / "docs" / "proof.md"
HEAD = """# Proof on a real cluster

Written by `make test-e2e`; do not edit. Two nodes on one machine, each with containerd, kubelet, kube-proxy and
kube-router as the enforcer of NetworkPolicies; an application of {workloads} workloads in three namespaces; Wattle
installed by its chart. What is claimed here was asserted in the same run.
"""


class Proof:
    def __init__(self) -> None:
        self._figures: dict[str, str] = {}
        self._tried: list[Tried] = []

    def figure(self, what: str, value: object) -> None:
        self._figures[what] = str(value)

    def matrix(self, tried: list[Tried]) -> None:
        self._tried = tried

    def write(self, *, workloads: int) -> None:
        lines = [HEAD.format(workloads=workloads), "## Versions", ""]
        lines += _table(("part", "version"), sorted(_versions().items()))
        lines += ["", "## Figures", "", *_table(("what", "measured"), list(self._figures.items()))]
        lines += ["", "## The matrix", "", *self._summary(), ""]
        PAGE.write_text("\n".join(lines))

    def _summary(self) -> list[str]:
        """Pairs of pods by port, and how many were let through: by the enforcer, by our evaluator, by the graph."""
        rows: dict[str, list[Tried]] = {}
        for tried in self._tried:
            workload = _workload(tried.pair.dst)
            rows.setdefault(f"{workload} {tried.pair.protocol}/{tried.pair.port}", []).append(tried)
        told = [
            f"{len(self._tried)} pairs (each pod to every declared port of every other pod, and to the ports beside",
            "it), each tried on the enforcer and judged by our evaluator.",
            "",
        ]
        table = [
            (
                target,
                str(len(found)),
                str(sum(t.enforced for t in found)),
                str(sum(t.evaluated is Verdict.ALLOWED for t in found)),
                str(sum(t.in_graph for t in found)),
            )
            for target, found in sorted(rows.items())
        ]
        return told + _table(("to", "pairs", "enforcer lets through", "evaluator allows", "in the graph"), table)


def _workload(pod: str) -> str:
    """Without what a ReplicaSet or a StatefulSet adds to its pods' names."""
    namespace, _, name = pod.partition("/")
    return f"{namespace}/{name.split('-')[0]}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _versions() -> dict[str, str]:
    def first(*command: str) -> str:
        return run(*command).strip().splitlines()[0]

    return {
        "Kubernetes": VERSION,
        "kube-router": enforcer_version(enforcer()),
        "containerd": first("containerd", "--version"),
        "runc": first("runc", "--version"),
        "etcd": first("etcd", "--version"),
        "kernel": first("uname", "-r"),
        "iptables": first("iptables", "--version"),
    }
