"""The verdict table of a set of policies, kept as rectangles: (peers, ports) that each rule opens for each subject.

Enters: a Universe. Leaves: answers to "what would change without this policy or rule", exact over the universe and
without ever writing the table out. Invariant: `allowed` of both directions together is the verdict (NP-05).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction
from aggregator.policy.lint.universe import Universe, all_rules, bits


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRef:
    """A rule by its policy's position in the universe, direction and 0-based index."""

    policy: int
    direction: Direction
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangle:
    """What one rule opens for one subject: every peer of `peers` on every port of `ports`."""

    rule: RuleRef
    peers: int
    ports: int


class VerdictTable:
    """For every pod class and direction: the policies that isolate it and the rectangles they open."""

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self.subjects = tuple(universe.subjects(p) for p in universe.policies)
        self._isolating: dict[tuple[Direction, int], list[int]] = {}
        self._open: dict[tuple[Direction, int], list[Rectangle]] = {}
        for number, policy in enumerate(universe.policies):
            for direction in policy.directions:
                for subject in bits(self.subjects[number]):
                    self._isolating.setdefault((direction, subject), []).append(number)
            for direction, index, _, _ in all_rules(policy):
                ref = RuleRef(policy=number, direction=direction, index=index)
                for subject, rectangles in self._expand(ref, policy):
                    self._open.setdefault((direction, subject), []).extend(rectangles)

    def _expand(self, ref: RuleRef, policy: NetworkPolicy) -> Iterator[tuple[int, list[Rectangle]]]:
        """The rectangles of a rule for each of its subjects."""
        u = self.universe
        rule = policy.rules(ref.direction)[ref.index]
        peers = 0 if rule.peers else u.everyone
        for peer in rule.peers:
            peers |= u.peer(peer, policy.namespace)
        fixed = 0 if rule.ports else u.every_port
        named = [port for port in rule.ports if isinstance(port.port, str)]
        for port in rule.ports:
            fixed |= 0 if isinstance(port.port, str) else u.numeric(port)
        by_ports = {fixed: peers}
        for port in named if ref.direction is Direction.EGRESS else ():
            for server in bits(peers & u.pod_bits):
                _put(by_ports, u.named(port, u.classes[server]), 1 << server)
        for subject in bits(self.subjects[ref.policy]):
            own = dict(by_ports)
            for port in named if ref.direction is Direction.INGRESS else ():
                _put(own, u.named(port, u.classes[subject]), peers)
            others = self.peers_of(subject)
            yield (
                subject,
                [Rectangle(rule=ref, peers=who & others, ports=p) for p, who in own.items() if p and who & others],
            )

    def peers_of(self, subject: int) -> int:
        """Everyone whom policies can keep from this subject: a lone pod cannot be kept from itself (NP-31)."""
        u = self.universe
        return u.everyone & ~(1 << subject) if len(u.classes[subject].pods) == 1 else u.everyone

    def isolating(self, direction: Direction, subject: int) -> list[int]:
        """The policies that isolate this subject, by position."""
        return self._isolating.get((direction, subject), [])

    def rectangles(self, direction: Direction, subject: int) -> list[Rectangle]:
        return self._open.get((direction, subject), [])

    def all_rectangles(self) -> Iterator[tuple[tuple[Direction, int], Rectangle]]:
        """Every rectangle with its direction and subject."""
        for key, rectangles in self._open.items():
            for rectangle in rectangles:
                yield key, rectangle

    def opens_anything(self, ref: RuleRef) -> bool:
        """Whether this rule matches any peer on any port for any of its subjects."""
        return any(
            r.rule == ref
            for subject in bits(self.subjects[ref.policy])
            for r in self.rectangles(ref.direction, subject)
        )

    def beside(self, number: int) -> list[int]:
        """The policies that also select this one's first subject: only they could stand in for it."""
        first = next(bits(self.subjects[number]))
        directions = self.universe.policies[number].directions
        return sorted({p for d in directions for p in self.isolating(d, first)} - {number})

    def rules_beside(self, ref: RuleRef) -> list[RuleRef]:
        """The rules of the same direction that open anything for the first subject for which this one does."""
        found = (self.rectangles(ref.direction, subject) for subject in bits(self.subjects[ref.policy]))
        rules = next((among for r in found if ref in (among := [x.rule for x in r])), [])
        return [rule for rule in dict.fromkeys(rules) if rule != ref]

    def allowed(self, direction: Direction, subject: int, peer: int, *, without: int | None = None) -> int:
        """The ports that the subject's policies allow with this peer; `without` leaves one policy out."""
        if not any(p != without for p in self.isolating(direction, subject)):
            return self.universe.every_port
        mask = 0
        for r in self.rectangles(direction, subject):
            if r.peers >> peer & 1 and r.rule.policy != without:
                mask |= r.ports
        return mask

    def verdict(self, src: int, dst: int) -> int:
        """The ports on which src may reach dst: both sides allow (NP-05)."""
        u = self.universe
        mask = self.allowed(Direction.EGRESS, src, dst) if u.classes[src].pods else u.every_port
        return mask & self.allowed(Direction.INGRESS, dst, src) if u.classes[dst].pods else mask

    def _other_side_allows(
        self, direction: Direction, subject: int, leftovers: Iterable[tuple[int, int]], without: int | None
    ) -> bool:
        """Whether the other end lets any of these (peers, ports) through, so that this side decides."""
        u = self.universe
        for peers, ports in leftovers:
            if peers & ~u.pod_bits:
                return True
            for peer in bits(peers):
                if self.allowed(direction.opposite, peer, subject, without=without) & ports:
                    return True
        return False

    def closed(self, direction: Direction, subject: int) -> Iterator[tuple[int, int]]:
        """The (peers, ports) that this isolated subject's own policies deny."""
        rectangles = self.rectangles(direction, subject)
        return uncovered(self.peers_of(subject), self.universe.every_port, rectangles)

    def is_vacuous(self) -> bool:
        """Whether nothing at all is denied."""
        return not any(any(True for _ in self.closed(direction, subject)) for direction, subject in self._isolating)

    def changes_without_policy(self, number: int) -> bool:
        """Whether the table differs once this policy is removed."""
        policy = self.universe.policies[number]
        for direction in policy.directions:
            for subject in bits(self.subjects[number]):
                rectangles = self.rectangles(direction, subject)
                if len(self.isolating(direction, subject)) == 1:
                    # Nobody else isolates: what was denied opens, where the other end (without it, too) lets it.
                    if self._other_side_allows(direction, subject, self.closed(direction, subject), number):
                        return True
                    continue
                rest = [r for r in rectangles if r.rule.policy != number]
                for mine in (r for r in rectangles if r.rule.policy == number):
                    lost = uncovered(mine.peers, mine.ports, rest)
                    if self._other_side_allows(direction, subject, lost, None):
                        return True
        return False

    def changes_without_rule(self, ref: RuleRef) -> bool:
        """Whether the table differs once this rule is removed."""
        for subject in bits(self.subjects[ref.policy]):
            rectangles = self.rectangles(ref.direction, subject)
            rest = [r for r in rectangles if r.rule != ref]
            for mine in (r for r in rectangles if r.rule == ref):
                lost = uncovered(mine.peers, mine.ports, rest)
                if self._other_side_allows(ref.direction, subject, lost, None):
                    return True
        return False

    def covers(self, ref: RuleRef | int, candidate: Callable[[RuleRef], bool]) -> bool:
        """Whether the rules that `candidate` picks open, alone, all that this rule (or policy) opens."""
        number = ref if isinstance(ref, int) else ref.policy
        for direction in self.universe.policies[number].directions:
            for subject in bits(self.subjects[number]):
                rectangles = self.rectangles(direction, subject)
                picked = [r for r in rectangles if candidate(r.rule)]
                for mine in rectangles:
                    belongs = mine.rule.policy == number if isinstance(ref, int) else mine.rule == ref
                    if belongs and any(True for _ in uncovered(mine.peers, mine.ports, picked)):
                        return False
        return True


def uncovered(peers: int, ports: int, rectangles: Iterable[Rectangle]) -> Iterator[tuple[int, int]]:
    """The part of peers x ports that no rectangle covers, as disjoint rectangles."""
    groups = [ports]
    relevant = [r for r in rectangles if r.peers & peers and r.ports & ports]
    for mask in dict.fromkeys(r.ports for r in relevant):
        split = []
        for group in groups:
            split += [part for part in (group & mask, group & ~mask) if part]
        groups = split
    for group in groups:
        left = peers
        for r in relevant:
            if r.ports & group:
                left &= ~r.peers
        if left:
            yield left, group


def _put(by_ports: dict[int, int], ports: int, peers: int) -> None:
    by_ports[ports] = by_ports.get(ports, 0) | peers
