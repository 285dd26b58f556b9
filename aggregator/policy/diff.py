"""What changes between two sets of policies: in what they allow, and in their canonical text.

Enters: the policies before and after, and the cluster that they act on. Leaves: a PolicyDiff. Invariant: both sets are
judged over one universe, so `opened` and `closed` are exact for every pod, edge address and port of either set.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import unified_diff

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Protocol
from aggregator.policy.lint.table import VerdictTable
from aggregator.policy.lint.universe import Universe, bits
from aggregator.policy.manifest.render import render_one


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Change:
    """Connections that one set allows and the other denies; ports first to last, both included."""

    src: str
    dst: str
    protocol: Protocol
    first_port: int
    last_port: int

    def __str__(self) -> str:
        ports = str(self.first_port) if self.first_port == self.last_port else f"{self.first_port}-{self.last_port}"
        return f"{self.src} -> {self.dst} {self.protocol}/{ports}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDiff:
    """`text` is a unified diff of the canonical YAML, "" when the policies are the same values."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    opened: tuple[Change, ...]
    closed: tuple[Change, ...]
    text: str

    @property
    def same_effect(self) -> bool:
        return not self.opened and not self.closed

    @property
    def is_empty(self) -> bool:
        return self.same_effect and not self.text


def diff(
    before: Iterable[NetworkPolicy],
    after: Iterable[NetworkPolicy],
    cluster: ClusterSnapshot,
    *,
    ipblock_matches_pods: bool = True,
) -> PolicyDiff:
    """The difference in effect and in text."""
    old, new = tuple(before), tuple(after)
    tables = [
        VerdictTable(Universe(mine, cluster, beside=others, ipblock_matches_pods=ipblock_matches_pods))
        for mine, others in ((old, (*old, *new)), (new, (*old, *new)))
    ]
    touched = _touched(tables, set(old) ^ set(new))
    by_name = [{str(policy): policy for policy in policies} for policies in (old, new)]
    both = by_name[0].keys() & by_name[1].keys()
    return PolicyDiff(
        added=tuple(sorted(by_name[1].keys() - both)),
        removed=tuple(sorted(by_name[0].keys() - both)),
        changed=tuple(sorted(name for name in both if by_name[0][name] != by_name[1][name])),
        opened=tuple(sorted(set(_allowed_more(tables[1], tables[0], touched)))),
        closed=tuple(sorted(set(_allowed_more(tables[0], tables[1], touched)))),
        text=text_diff(old, new),
    )


def _touched(tables: list[VerdictTable], differing: set[NetworkPolicy]) -> int:
    """The subjects of policies that are not in both sets: only connections of theirs can have another verdict."""
    found = 0
    for table in tables:
        for policy, subjects in zip(table.universe.policies, table.subjects, strict=True):
            found |= subjects if policy in differing else 0
    return found


def _allowed_more(more: VerdictTable, less: VerdictTable, touched: int) -> Iterator[Change]:
    """What `more` allows and `less` denies."""
    universe = more.universe
    for src, dst in _pairs(less, touched):
        mask = more.verdict(src, dst) & ~less.verdict(src, dst)
        ends = universe.where(universe.classes[src]), universe.where(universe.classes[dst])
        for protocol, first, last in universe.ranges(mask):
            yield Change(src=ends[0], dst=ends[1], protocol=protocol, first_port=first, last_port=last)


def _pairs(table: VerdictTable, touched: int) -> Iterator[tuple[int, int]]:
    for subject in bits(touched):
        for other in bits(table.peers_of(subject)):
            yield subject, other
            yield other, subject


def text_diff(before: Iterable[NetworkPolicy], after: Iterable[NetworkPolicy]) -> str:
    """A unified diff of the canonical YAML, policies in order of their names."""
    old, new = (
        {str(policy): render_one(policy) for policy in sorted(policies, key=str)} for policies in (before, after)
    )
    found: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        lines = [texts.get(name, "").splitlines(keepends=True) for texts in (old, new)]
        found += unified_diff(lines[0], lines[1], f"before/{name}", f"after/{name}")
    return "".join(found)
