"""docs/proof.md: what one run on a real cluster showed, written by the run itself.

Enters: figures, the matrix, versions, as the tests find them. Leaves: the page; an incomplete run writes none.
"""

from pathlib import Path

from aggregator.model.verdict import Verdict
from tests.cluster.kubebinaries import VERSION, enforcer, enforcer_version
from tests.e2e.application import PARTS, family_of
from tests.e2e.kube.layout import WITHOUT_IPV6
from tests.e2e.kube.machine import run
from tests.e2e.matrix import Tried

PAGE = Path(__file__).parents[2] / "docs" / "proof.md"
HEAD = """# Proof on a real cluster

Written by `make test-e2e`; do not edit. Two nodes on one machine, each with containerd, kubelet, kube-proxy and
kube-router as the enforcer of NetworkPolicies; an application of {workloads} workloads in three namespaces; Wattle
installed by its chart. {families} What is claimed here was asserted in the same run.
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
        lines = [HEAD.format(workloads=workloads, families=_families()), "## Versions", ""]
        lines += _table(("part", "version"), sorted(_versions().items()))
        lines += ["", "## Figures", "", *_table(("what", "measured"), list(self._figures.items()))]
        lines += ["", "## The matrix", "", *self._summary(), ""]
        PAGE.write_text("\n".join(lines))

    def _summary(self) -> list[str]:
        """Pairs of pods by port, and how many were let through: by the enforcer (by family), by us, by the graph."""
        families = list(dict.fromkeys(family for tried in self._tried for family in tried.enforced))
        tries = sum(len(tried.enforced) for tried in self._tried)
        rows: dict[str, list[Tried]] = {}
        for tried in self._tried:
            workload = _workload(tried.pair.dst)
            rows.setdefault(f"{workload} {tried.pair.protocol}/{tried.pair.port}", []).append(tried)
        told = [
            f"{len(self._tried)} pairs (each pod to every declared port of every other pod, and to the ports beside",
            f"it), each judged by our evaluator, and tried on the enforcer over {' and '.join(families)}:",
            f"{tries} tries.",
            "",
        ]
        table = [
            (
                target,
                str(len(found)),
                *(str(sum(t.enforced[family] for t in found)) for family in families),
                str(sum(t.evaluated is Verdict.ALLOWED for t in found)),
                str(sum(t.in_graph for t in found)),
            )
            for target, found in sorted(rows.items())
        ]
        enforced = [f"enforcer lets through over {family}" for family in families]
        return told + _table(("to", "pairs", *enforced, "evaluator allows", "in the graph"), table)


def _families() -> str:
    """What the cluster spoke, and by how many of the application's calls."""
    if WITHOUT_IPV6:
        return f"The cluster is IPv4 only: {WITHOUT_IPV6}."
    versions = [family_of(part, call["to"]) for part in PARTS for call in part.calls]
    return (
        f"The cluster is dual-stack:\n{versions.count(6)} of the application's {len(versions)} calls go over IPv6, "
        "the others over IPv4."
    )


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
        "kube-router": enforcer_version(enforcer())
        + ("" if WITHOUT_IPV6 else ", its IPv6 rules mended on their way to ip6tables-restore"),
        "containerd": first("containerd", "--version"),
        "runc": first("runc", "--version"),
        "etcd": first("etcd", "--version"),
        "kernel": first("uname", "-r"),
        "iptables": first("iptables", "--version"),
    }
