"""Few rules for many (peer, port) pairs, without a pair more.

Enters: a relation. Leaves: rules (peers x ports) whose union is exactly the relation. Invariant: no cross product
between rules; the answer depends on the relation alone, not on the order in which it was seen.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

A = TypeVar("A", bound=Hashable)
B = TypeVar("B", bound=Hashable)

Biclique = tuple[frozenset[A], frozenset[B]]
MAX_CONCEPTS = 4096
MIN_SAVING = 0.15  # overlapping rules are harder to read: they must save at least this share of the lines


def by_peers(relation: Mapping[A, AbstractSet[B]]) -> list[Biclique[A, B]]:
    """One rule for each class of peers with equal ports: every peer stands in one rule."""
    classes: dict[frozenset[B], list[A]] = defaultdict(list)
    for peer, ports in relation.items():
        if ports:
            classes[frozenset(ports)].append(peer)
    return [(frozenset(peers), ports) for ports, peers in classes.items()]


def by_ports(relation: Mapping[A, AbstractSet[B]]) -> list[Biclique[A, B]]:
    """One rule for each class of ports with equal peers: every port stands in one rule."""
    turned: dict[B, set[A]] = defaultdict(set)
    for peer, ports in relation.items():
        for port in ports:
            turned[port].add(peer)
    return [(peers, ports) for ports, peers in by_peers(turned)]


def maximal(relation: Mapping[A, AbstractSet[B]]) -> list[Biclique[A, B]] | None:
    """Every maximal biclique, or None when there are too many (they can be exponentially many)."""
    rows = {peer: frozenset(ports) for peer, ports in relation.items() if ports}
    distinct = set(rows.values())
    intents = set(distinct)
    work = list(intents)
    while work:
        current = work.pop()
        for row in distinct:
            both = current & row
            if both and both not in intents:
                intents.add(both)
                work.append(both)
        if len(intents) > MAX_CONCEPTS:
            return None
    return [(frozenset(peer for peer, row in rows.items() if intent <= row), intent) for intent in intents]


def greedy(relation: Mapping[A, AbstractSet[B]], order: Callable[[Any], Any]) -> list[Biclique[A, B]] | None:
    """A cover by maximal bicliques: the one that covers most first, redundant ones dropped."""
    candidates = maximal(relation)
    if candidates is None:
        return None
    todo = {(peer, port) for peer, ports in relation.items() for port in ports}

    def rank(rule: Biclique[A, B]) -> tuple[Any, ...]:
        peers, ports = rule
        gain = sum((peer, port) in todo for peer in peers for port in ports)
        return (-gain, len(peers) + len(ports), sorted(map(order, peers)), sorted(map(order, ports)))

    chosen: list[Biclique[A, B]] = []
    while todo:
        best = min(candidates, key=rank)
        chosen.append(best)
        todo -= _pairs(best)
    for rule in list(chosen):
        rest = set[tuple[A, B]]().union(*(_pairs(other) for other in chosen if other is not rule))
        if _pairs(rule) <= rest:
            chosen.remove(rule)
    return chosen


def _pairs(rule: Biclique[A, B]) -> set[tuple[A, B]]:
    return {(peer, port) for peer in rule[0] for port in rule[1]}


def lines(rules: Iterable[Biclique[A, B]]) -> int:
    """How long the rules read: what is minimised."""
    return sum(2 + len(peers) + len(ports) for peers, ports in rules)


def minimise(
    relation: Mapping[A, AbstractSet[B]], *, order: Callable[[Any], Any], overlapping: bool = False
) -> list[Biclique[A, B]]:
    """The rules to write, in no particular order: by peers, or by ports where that is shorter; `order` breaks ties."""
    best = by_peers(relation)
    if len(best) > 1 and any(len(ports) > 1 for _, ports in best):  # otherwise both ways are the same
        turned = by_ports(relation)
        best = turned if lines(turned) < lines(best) else best
    if overlapping:
        compacted = greedy(relation, order)
        if compacted is not None and lines(compacted) <= (1 - MIN_SAVING) * lines(best):
            return compacted
    return best
