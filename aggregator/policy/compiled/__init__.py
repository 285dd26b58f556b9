"""Compiled policies: verdicts in bulk, by table look-up instead of rule by rule.

Enters: policies, a snapshot, further endpoints, a Profile. Leaves: verdicts for columns of connections. Subjects with
the same policies share a class; (class, port class) points at a bitmap of far ends. A changed policy recompiles only
the classes of the pods that it selects. Shares no code with `evaluate` beyond the model and the profiles' data.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.model.adminpolicy import Policy
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.endpoint import Endpoint, PodEndpoint
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.compiled.ends import Ends
from aggregator.policy.compiled.rules import Prepared, Rules, Say, Sight
from aggregator.policy.compiled.tables import PORTS, PROTOCOLS, Bitmaps, Codes, PortAxis, PortClass
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Profile

DENIED, ALLOWED, UNKNOWN = 0, 1, 2
VERDICTS = (Verdict.DENIED, Verdict.ALLOWED, Verdict.UNKNOWN)  # by code
_CHUNK = 1 << 14  # what fits a core's cache beside the bitmaps
Indexes = NDArray[np.integer[Any]]
PortNames = frozenset[tuple[str, Protocol, int]]
_ClassKey = tuple[tuple[int, ...], PortNames]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One direction: the class of every end, and for (class, port class) the offset of its row."""

    direction: Direction
    policies_of: tuple[tuple[int, ...], ...]  # by end
    classes: Mapping[_ClassKey, int]
    class_of: NDArray[np.int64]
    cells: NDArray[np.int64]

    @property
    def is_open(self) -> bool:
        return len(self.classes) == 1 and self.cells.shape[0] == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What all versions of the compiled policies have in common."""

    ends: Ends
    rules: Rules
    bitmaps: Bitmaps


class CompiledPolicies:
    """Verdicts in bulk. `ends` gives each endpoint its number: pods first, in the snapshot's order."""

    def __init__(
        self, *, shared: _Shared, entries: Mapping[int, Prepared], axis: PortAxis, egress: _Side, ingress: _Side
    ) -> None:
        self.ends = shared.ends
        self._shared = shared
        self._entries = entries
        self._axis = axis
        self._egress, self._ingress = egress, ingress

    # ---- asking ----

    @property
    def port_classes(self) -> Sequence[PortClass]:
        return self._axis.classes

    @property
    def policies(self) -> tuple[Policy, ...]:
        return tuple(entry.policy for entry in self._entries.values())

    def number(self, end: Endpoint) -> int:
        return self.ends.number(end)

    def port_class(self, protocol: Protocol | Indexes, port: int | Indexes) -> NDArray[np.int64]:
        """The port class of each port; protocols as one Protocol, or as IANA numbers."""
        if isinstance(protocol, Protocol):
            base: Any = PROTOCOLS.index(protocol) * PORTS
        else:
            base = _BASE_OF_IANA[protocol]
        return np.asarray(self._axis.lookup[base + np.asarray(port)], dtype=np.int64)

    def verdicts(self, src: Indexes, dst: Indexes, protocol: Protocol | Indexes, port: int | Indexes) -> Codes:
        """DENIED, ALLOWED or UNKNOWN for each connection from end `src` to end `dst`."""
        return self.verdicts_by_class(src, dst, np.broadcast_to(self.port_class(protocol, port), np.shape(src)))

    def verdicts_by_class(self, src: Indexes, dst: Indexes, port_class: Indexes) -> Codes:
        """The same for port classes already looked up. Quickest with int64 throughout: that is what numpy takes by."""
        found = np.empty(len(src), dtype=np.uint8)
        for start in range(0, len(src), _CHUNK):
            part = slice(start, start + _CHUNK)
            found[part] = self._judge(src[part], dst[part], port_class[part])
        return found

    def verdict(self, src: Endpoint, dst: Endpoint, protocol: Protocol, port: int) -> Verdict:
        """One connection."""
        ends = (np.array([self.number(src)]), np.array([self.number(dst)]))
        return VERDICTS[int(self.verdicts(*ends, protocol, port)[0])]

    def isolated(self, direction: Direction) -> NDArray[np.bool_]:
        """By end: does any policy select it in this direction?"""
        side = self._egress if direction is Direction.EGRESS else self._ingress
        return np.array([bool(policies) for policies in side.policies_of])

    def _judge(self, src: Indexes, dst: Indexes, port_class: Indexes) -> Codes:
        bits = self._shared.bitmaps
        allowed: Any = None
        unknown: Any = None
        for side, subject, far in ((self._ingress, dst, src), (self._egress, src, dst)):
            if side.is_open:
                continue
            cell = side.class_of[subject]
            cell += port_class
            at = side.cells.reshape(-1).take(cell)
            at += far >> 3
            shift = (far & 7).astype(np.uint8)
            one = (bits.allowed.take(at) >> shift) & 1
            if bits.any_unknown:
                maybe = (bits.unknown.take(at) >> shift) & 1
                possible = one | maybe
                unknown = possible if unknown is None else unknown & possible  # not denied so far
            allowed = one if allowed is None else allowed & one
        if allowed is None:
            return np.ones(len(src), dtype=np.uint8)
        return self._exempted(allowed, unknown, src, dst)

    def _exempted(self, allowed: Codes, possible: Codes | None, src: Indexes, dst: Indexes) -> Codes:
        """NP-30, NP-31: a pod and itself, a pod and its own node."""
        codes = allowed
        if possible is not None:
            codes = np.left_shift(possible, 1)  # not denied for certain: UNKNOWN, unless
            codes[allowed != 0] = ALLOWED
        ends = self.ends
        same = ends.same_pod[src] == ends.same_pod[dst] if ends.has_several_addresses else src == dst
        codes[same] = ALLOWED
        if ends.nodes:
            mixed = np.flatnonzero(ends.is_node[src] != ends.is_node[dst])
            at = ends.node_of[src[mixed]]
            codes[mixed[(at == ends.node_of[dst[mixed]]) & (at >= 0)]] = ALLOWED
        return codes

    # ---- changing ----

    def with_policy(self, policy: Policy) -> "CompiledPolicies":
        """The same with `policy` added, or in place of the one of its kind and name."""
        entry = self._shared.rules.prepared(policy)
        return self._changed({max(self._entries, default=-1) + 1: entry}, self._ids_of(policy))

    def without_policy(self, policy: Policy) -> "CompiledPolicies":
        """The same without the policy of this kind and name."""
        return self._changed({}, self._ids_of(policy))

    def _ids_of(self, policy: Policy) -> frozenset[int]:
        name = (type(policy), str(policy))
        return frozenset(i for i, e in self._entries.items() if (type(e.policy), str(e.policy)) == name)

    def _changed(self, added: Mapping[int, Prepared], removed: frozenset[int]) -> "CompiledPolicies":
        entries = {i: e for i, e in self._entries.items() if i not in removed} | dict(added)
        axis = self._axis
        cuts = axis.cuts.union(*(entry.cuts[d] for entry in added.values() for d in Direction))
        if cuts != axis.cuts:
            axis = PortAxis(cuts)
        gone = [self._entries[i] for i in removed]
        sides = [
            _recompiled(self._fitted(side, axis), added, gone, entries, axis, self._shared)
            for side in (self._egress, self._ingress)
        ]
        return CompiledPolicies(shared=self._shared, entries=entries, axis=axis, egress=sides[0], ingress=sides[1])

    def _fitted(self, side: _Side, axis: PortAxis) -> _Side:
        """The side with its columns spread to a finer axis."""
        if axis is self._axis:
            return side
        return replace(
            side,
            class_of=side.class_of // len(self._axis.classes) * len(axis.classes),
            cells=np.ascontiguousarray(side.cells[:, axis.columns_in(self._axis)]),
        )


_BASE_OF_IANA = np.zeros(256, dtype=np.int64)
for _protocol in PROTOCOLS:
    _BASE_OF_IANA[_protocol.number] = PROTOCOLS.index(_protocol) * PORTS


def compile_policies(
    policies: Iterable[Policy],
    cluster: ClusterSnapshot,
    profile: Profile = GENERIC,
    *,
    others: Iterable[Endpoint] = (),
) -> CompiledPolicies:
    """Tables for all pods of the snapshot and `others` (nodes, addresses, Services)."""
    ends = Ends(cluster, others)
    rules = Rules(ends, profile)
    bitmaps = Bitmaps(len(ends.all))
    shared = _Shared(ends=ends, rules=rules, bitmaps=bitmaps)
    axis = PortAxis(frozenset())
    everyone, nothing = ends.everyone, ((),) * len(ends.all)
    sides = []
    for direction in (Direction.EGRESS, Direction.INGRESS):
        rows = [[bitmaps.row(Say(everyone, 0))] * len(axis.classes)]
        class_of = np.zeros(len(ends.all), dtype=np.int64)
        if ends.lost:
            rows.append([bitmaps.row(Say(everyone, everyone))] * len(axis.classes))
            class_of[[n for n in range(len(ends.all)) if ends.lost >> n & 1]] = len(axis.classes)
        sides.append(
            _Side(
                direction=direction,
                policies_of=nothing,
                classes={((), frozenset()): 0},
                class_of=class_of,
                cells=np.array(rows, dtype=np.int64),
            )
        )
    empty = CompiledPolicies(shared=shared, entries={}, axis=axis, egress=sides[0], ingress=sides[1])
    entries = {number: rules.prepared(policy) for number, policy in enumerate(policies)}
    return empty._changed(entries, frozenset())  # noqa: SLF001 - the one way in which tables change


def _recompiled(  # noqa: PLR0917 - one call, above
    side: _Side,
    added: Mapping[int, Prepared],
    gone: Sequence[Prepared],
    entries: Mapping[int, Prepared],
    axis: PortAxis,
    shared: _Shared,
) -> _Side:
    """The side with the subjects of the changed policies sorted into classes again; classes there already are kept."""
    affected = 0
    for entry in (*added.values(), *gone):
        affected |= entry.subjects[side.direction]
    if not affected:
        return side
    ends = shared.ends.all
    selecting = {
        number: [policy for policy in side.policies_of[number] if policy in entries]
        for number in numbers_in(affected, len(ends))
    }
    for number, entry in added.items():
        for subject in numbers_in(entry.subjects[side.direction], len(ends)):
            selecting[subject].append(number)
    policies_of, classes, class_of = list(side.policies_of), dict(side.classes), side.class_of.copy()
    width = len(axis.classes)
    rows: list[NDArray[np.int64]] = []
    for subject, numbers in selecting.items():
        policies_of[subject] = tuple(numbers)
        chosen = [entries[number] for number in numbers]
        key = (policies_of[subject], _names(chosen, side.direction, ends[subject]))
        if key not in classes:
            classes[key] = side.cells.shape[0] + len(rows)
            rows.append(_class_row(chosen, side.direction, key[1], axis, shared))
        class_of[subject] = classes[key] * width
    cells = np.concatenate([side.cells, np.array(rows, dtype=np.int64).reshape(len(rows), width)])
    return replace(side, policies_of=tuple(policies_of), classes=classes, class_of=class_of, cells=cells)


def numbers_in(bits: int, ends: int) -> list[int]:
    """The numbers of the bits that are set."""
    if bits.bit_count() < 8:
        found = []
        while bits:
            found.append((bits & -bits).bit_length() - 1)
            bits &= bits - 1
        return found
    raw = np.frombuffer(bits.to_bytes((ends + 7) // 8, "little"), dtype=np.uint8)
    return np.flatnonzero(np.unpackbits(raw, bitorder="little")).tolist()


def _names(
    entries: Sequence[Prepared], direction: Direction, subject: Endpoint
) -> frozenset[tuple[str, Protocol, int]]:
    """The container ports of the subject that a rule speaks of by name; going out, the far end's count instead."""
    used: frozenset[str] = frozenset().union(*(entry.names[direction] for entry in entries))
    if direction is Direction.EGRESS or not used or not isinstance(subject, PodEndpoint):
        return frozenset()
    return frozenset((p.name, p.protocol, p.port) for p in subject.pod.ports if p.name in used)


def _class_row(
    entries: Sequence[Prepared],
    direction: Direction,
    names: PortNames,
    axis: PortAxis,
    shared: _Shared,
) -> NDArray[np.int64]:
    """The offsets of one class for every port class, computed once for each stretch of ports that it tells apart."""
    row = np.empty(len(axis.classes), dtype=np.int64)
    cuts: frozenset[tuple[Protocol, int]] = frozenset().union(*(entry.cuts[direction] for entry in entries))
    bounds = sorted(axis.first_of[start] for start in {(protocol, 0) for protocol in Protocol} | cuts)
    for first, after in zip(bounds, [*bounds[1:], len(axis.classes)], strict=True):
        port_class = axis.classes[first]
        sight = Sight(direction=direction, protocol=port_class.protocol, port=port_class.first, names=names)
        row[first:after] = shared.bitmaps.row(shared.rules.say(entries, sight))
    return row
