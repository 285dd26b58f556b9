"""Identities: from columns of numbers to answers of the Resolver, asking only what has not been asked before.

Enters: FlowBatch. Leaves: for every row the index of an Answer. Invariant: an answer is reused only within one
generation of the Resolver, for flows within the bounds that it holds for, and no further than the cluster view has got.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address
from typing import NamedTuple

import numpy as np

from aggregator.metrics import RECORDING_RESOLVED
from aggregator.model.address import canonical_address
from aggregator.model.link import Confidence
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Refused, Resolution, Resolved, Resolver
from aggregator.services.recording.deliveries import I64, OUTCOMES, FlowBatch, FlowColumns, LocalSide
from aggregator.services.recording.judging import judge
from aggregator.services.recording.keytable import Keys, KeyTable
from aggregator.store.keys import milliseconds, moment

_DIRECTIONS = {1: Direction.INGRESS, 2: Direction.EGRESS}
_CONFIDENCES = {1: Confidence.HIGH, 2: Confidence.LOW}
_MAX_TOKENS = 1_000_000
_MOST_TRANSIENT_ANSWERS = 200_000
_FOREVER_MS = 2**62

_Local = tuple[str, str, LocalSide, str]  # cluster, node, side, process
_Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the cluster view says of an identity."""

    identity: FlowIdentity
    process: str
    resolution: Resolution


class _Times(NamedTuple):
    """Of each record: when what it tells of began and ended, and how far the view of its cluster has got."""

    opened_ms: I64
    seen_ms: I64
    known_ms: I64


class _Asked(NamedTuple):
    """A record, the number of its answer, and of when those flows are that it holds for."""

    row: int
    number: int
    since_ms: int
    until_ms: int


class Identities:
    """One recorder's memory of answers. Not thread-safe."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._tokens: dict[tuple[str, str], dict[tuple[LocalSide, str], int]] = {}  # by cluster and node
        self._locals: list[_Local] = []
        self._generation = -1
        self.answers: list[Answer] = []
        self.resets = 0  # grows whenever `answers` starts anew
        self._reset()

    def _reset(self) -> None:
        self.answers = []
        self.resets += 1
        self._places = KeyTable()
        self._indexes = np.empty(0, np.int64)  # by place
        self._held_since_ms = np.empty(0, np.int64)  # likewise
        self._held_until_ms = np.empty(0, np.int64)
        if len(self._locals) > _MAX_TOKENS:
            self._tokens.clear()
            self._locals.clear()

    def begin(self) -> None:
        """Call before each group: what a new generation of the cluster view makes doubtful is forgotten."""
        generation = self._resolver.generation
        if generation != self._generation:
            self._generation = generation
            self._reset()
        elif len(self.answers) > 2 * len(self._indexes) + _MOST_TRANSIENT_ANSWERS:
            self._reset()  # a long replay: answers about the past are never asked for again

    def look_up(self, batches: Sequence[tuple[str, str, FlowBatch]], columns: FlowColumns) -> I64:
        """The index into `answers` for every record of (cluster, node, batch), whose columns are joined in
        `columns`.
        """
        parts = [self._encode(cluster, node, batch) for cluster, node, batch in batches]
        keys = (
            np.concatenate([first for first, _, _ in parts]),
            np.concatenate([high for _, high, _ in parts]),
            np.concatenate([low for _, _, low in parts]),
        )
        records = [len(batch.columns) for _, _, batch in batches]
        times = _Times(
            opened_ms=np.concatenate([batch.opened_ms for _, _, batch in batches]),
            seen_ms=columns.last_ms,
            known_ms=np.repeat([self._known_until_ms(cluster) for cluster, _, _ in batches], records),
        )
        place = self._places.find(keys)
        since_ms, until_ms = (np.append(bound, -1)[place] for bound in (self._held_since_ms, self._held_until_ms))
        held = (place >= 0) & (since_ms <= times.opened_ms) & (times.seen_ms <= np.minimum(until_ms, times.known_ms))
        found = np.where(held, np.append(self._indexes, -1)[place], -1)
        if (found < 0).any():
            self._ask(keys, times, place, found)
        return found

    def _encode(self, cluster: str, node: str, batch: FlowBatch) -> Keys:
        """Three numbers a record: (local and process, everything small), and the remote address."""
        columns, kinds = batch.columns, batch.kinds
        width = len(batch.processes)
        pairs = columns.local * width + kinds.process[columns.kind]
        present = np.zeros(len(batch.locals) * width, bool)
        present[pairs] = True
        tokens = np.zeros(len(present), np.int64)
        known = self._tokens.setdefault((cluster, node), {})
        for pair in np.flatnonzero(present).tolist():
            local = (batch.locals[pair // width], batch.processes[pair % width])
            token = known.get(local)
            if token is None:
                token = known[local] = len(self._locals)
                self._locals.append((cluster, node, *local))
            tokens[pair] = token
        small = kinds.protocol << 16 | kinds.direction << 24 | kinds.outcome << 26 | kinds.confidence << 29
        first = tokens[pairs] << 32 | small[columns.kind] | columns.port
        remotes = batch.remotes[columns.remote]
        return first.view(np.uint64), remotes[:, 0], remotes[:, 1]

    def _ask(self, keys: Keys, times: _Times, place: I64, found: I64) -> None:
        """Fill in the records that are still -1."""
        asked: dict[_Key, list[_Asked]] = {}
        for row in np.flatnonzero(found < 0).tolist():
            key = (int(keys[0][row]), int(keys[1][row]), int(keys[2][row]))
            opened, seen, known = (int(column[row]) for column in times)
            before = asked.setdefault(key, [])
            holding = next((a for a in before if a.since_ms <= opened and seen <= min(a.until_ms, known)), None)
            if holding is None:
                answer = self._resolve(key, moment(opened), moment(seen))
                holding = _Asked(row, len(self.answers), *_held(answer.resolution, opened))
                self.answers.append(answer)
                before.append(holding)
            found[row] = holding.number
        self._keep([max(answers, key=lambda a: a.until_ms) for answers in asked.values()], keys, place)

    def _keep(self, kept: list[_Asked], keys: Keys, place: I64) -> None:
        """For later batches: of each identity the answer that holds longest."""
        rows, numbers, since_ms, until_ms = np.array(kept, np.int64).reshape(-1, 4).T
        places = place[rows]
        new = places < 0
        places[new] = len(self._places) + np.arange(new.sum())
        self._places.add((keys[0][rows[new]], keys[1][rows[new]], keys[2][rows[new]]))
        room = np.zeros(len(self._places) - len(self._indexes), np.int64)
        self._indexes, self._held_since_ms, self._held_until_ms = (
            np.concatenate([column, room]) for column in (self._indexes, self._held_since_ms, self._held_until_ms)
        )
        better = new | (until_ms >= self._held_until_ms[places])
        self._indexes[places[better]] = numbers[better]
        self._held_since_ms[places[better]] = since_ms[better]
        self._held_until_ms[places[better]] = until_ms[better]

    def _known_until_ms(self, cluster: str) -> int:
        until = self._resolver.known_until(cluster)
        return _FOREVER_MS if until is None else milliseconds(until)

    def _resolve(self, key: _Key, opened: datetime, seen: datetime) -> Answer:
        first, high, low = key
        cluster, node, side, process = self._locals[first >> 32]
        identity = FlowIdentity(
            cluster=cluster,
            node=node,
            pod_uid=side.pod_uid,
            pod_namespace=side.namespace,
            pod_name=side.pod_name,
            host_network=side.host_network,
            local_ip=canonical_address(side.address) if side.address else None,
            remote_ip=canonical_address(IPv6Address(high << 64 | low)),
            port=first & 0xFFFF,
            protocol=Protocol.of_number(first >> 16 & 0xFF),
            direction=_DIRECTIONS[first >> 24 & 0x3],
            outcome=OUTCOMES[first >> 26 & 0x7],
            confidence=_CONFIDENCES[first >> 29 & 0x3],
        )
        resolution = judge(self._resolver, identity, opened=opened, seen=seen)
        RECORDING_RESOLVED.labels(_ANSWERS[type(resolution)]).inc()
        return Answer(identity=identity, process=process, resolution=resolution)


_ANSWERS = {Resolved: "resolved", NotYet: "not-yet", Refused: "refused"}


def _held(resolution: Resolution, asked_ms: int) -> tuple[int, int]:
    """Between when and when flows have the answer that was given for `asked_ms`."""
    if not isinstance(resolution, Resolved):
        return asked_ms, asked_ms
    since, until = resolution.holds_since, resolution.holds_until
    return (
        0 if since is None else min(asked_ms, math.floor(since.timestamp() * 1000) + 1),
        _FOREVER_MS if until is None else max(asked_ms, math.ceil(until.timestamp() * 1000) - 1),
    )
