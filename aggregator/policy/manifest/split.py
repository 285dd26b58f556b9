"""A policy that is too large for one object, as several that add up to it (NP-04).

Invariant: the parts together allow exactly what the whole allows; a rule stays in the part that its own content picks,
so that adding a peer touches one object (section D, 8).
"""

import hashlib
from dataclasses import replace

from aggregator.model.networkpolicy import NetworkPolicy, Rule
from aggregator.model.protocol import Direction
from aggregator.policy.manifest.render import render_one

Part = tuple[Direction, Rule]


def split(policy: NetworkPolicy, *, max_peers: int, max_bytes: int) -> tuple[NetworkPolicy, ...]:
    """The policy itself when it is small enough."""
    if _fits(policy, max_peers, max_bytes):
        return (policy,)
    step = max(1, max_peers // 4)
    while True:
        parts = [
            part for direction in Direction for rule in policy.rules(direction) for part in _cut(direction, rule, step)
        ]
        count = 2
        while count < 2 * len(parts):
            pieces = _dealt(policy, parts, count)
            if all(_fits(piece, max_peers, max_bytes) for piece in pieces):
                return tuple(pieces)
            count *= 2
        if step == 1:  # one peer in a rule, one rule in an object: there is nothing left to part
            return tuple(_dealt(policy, parts, count))
        step //= 2


def _cut(direction: Direction, rule: Rule, step: int) -> list[Part]:
    """A rule with too many peers as several rules with the same ports."""
    if len(rule.peers) <= step:
        return [(direction, rule)]
    return [
        (direction, replace(rule, peers=rule.peers[start : start + step])) for start in range(0, len(rule.peers), step)
    ]


def _dealt(policy: NetworkPolicy, parts: list[Part], count: int) -> list[NetworkPolicy]:
    ingress: list[list[Rule]] = [[] for _ in range(count)]
    egress: list[list[Rule]] = [[] for _ in range(count)]
    for direction, rule in parts:
        digest = hashlib.sha256(repr((direction, rule)).encode()).digest()
        (ingress if direction is Direction.INGRESS else egress)[int.from_bytes(digest[:8], "big") % count].append(rule)
    return [
        replace(
            policy, name=f"{policy.name}-{number + 1}", ingress=tuple(ingress[number]), egress=tuple(egress[number])
        )
        for number in range(count)
        if ingress[number] or egress[number]
    ]


def _fits(policy: NetworkPolicy, max_peers: int, max_bytes: int) -> bool:
    peers = sum(len(rule.peers) for direction in Direction for rule in policy.rules(direction))
    if peers > max_peers:
        return False
    ports = sum(len(rule.ports) for direction in Direction for rule in policy.rules(direction))
    if (peers + ports) * 400 < max_bytes:  # a selector peer is seldom longer: no need to write it out to measure it
        return True
    return len(render_one(policy)) <= max_bytes
