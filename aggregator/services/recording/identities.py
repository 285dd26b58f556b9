"""Identities: from columns of numbers to answers of the Resolver, asking only what has not been asked before.

Enters: FlowBatch. Leaves: for every row the index of an Answer. Invariant: an answer is reused only within one
generation of the Resolver, and for flows within the bounds that it holds for: from then on, where it was asked for the
present, because within a generation nobody's address changes hands.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address
from typing import NamedTuple

import numpy as np

from aggregator.metrics import RECORDING_RESOLVED
from aggregator.model.address import canonical_address
from aggregator.model.link import Confidence, Outcome
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Refused, Resolution, Resolved, Resolver
from aggregator.services.recording.deliveries import I64, FlowBatch, FlowColumns, LocalSide
from aggregator.services.recording.judging import judge
from aggregator.services.recording.keytable import Keys, KeyTable
from aggregator.store.keys import moment

_OUTCOMES = {
    1: Outcome.ESTABLISHED,
    2: Outcome.REFUSED,
    3: Outcome.TIMED_OUT,
    4: Outcome.UNREACHABLE,
    5: Outcome.ABORTED,
    6: Outcome.OPEN,
}
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


class _Asked(NamedTuple):
    """The number of an answer, and when those flows were opened that it holds for; `lasts`: also for later batches."""

    number: int
    since_ms: int
    until_ms: int
    lasts: bool


class Identities:
    """One recorder's memory of answers. Not thread-safe."""

    def __init__(self, resolver: Resolver, *, now_ms: Callable[[], int]) -> None:
        self._resolver = resolver
        self._now_ms = now_ms
        self._tokens: dict[tuple[str, str], dict[tuple[LocalSide, str], int]] = {}  # by cluster and node
        self._locals: list[_Local] = []
        self._generation = -1
        self._since_ms = 0
        self.answers: list[Answer] = []
        self.resets = 0  # grows whenever `answers` starts anew
        self._reset()

    def _reset(self) -> None:
        self.answers = []
        self.resets += 1
        self._places = KeyTable()
        self._indexes = np.empty(0, np.int64)  # by place
        self._held_since_ms = np.empty(0, np.int64)  # likewise
        if len(self._locals) > _MAX_TOKENS:
            self._tokens.clear()
            self._locals.clear()

    def begin(self) -> None:
        """Call before each group: what a new generation of the cluster view makes doubtful is forgotten."""
        generation = self._resolver.generation
        if generation != self._generation:
            self._generation = generation
            # The answers hold for everything that is seen from now on, until the next change.
            self._since_ms = self._now_ms()
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
        opened_ms = columns.opened_ms
        place = self._places.find(keys)
        held = (place >= 0) & (opened_ms >= np.append(self._held_since_ms, 0)[place])
        found = np.where(held, np.append(self._indexes, -1)[place], -1)
        if (found < 0).any():
            self._ask(keys, opened_ms, columns.last_ms, place, found)
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

    def _ask(self, keys: Keys, opened_ms: I64, seen_ms: I64, place: I64, found: I64) -> None:
        """Fill in the records that are still -1."""
        asked: dict[_Key, list[_Asked]] = {}
        new_rows: list[int] = []
        new: list[_Asked] = []
        for row in np.flatnonzero(found < 0).tolist():
            key = (int(keys[0][row]), int(keys[1][row]), int(keys[2][row]))
            opened, seen = int(opened_ms[row]), int(seen_ms[row])
            latest = seen if _outcome(key) is Outcome.OPEN else opened
            before = asked.setdefault(key, [])
            holding = next((each for each in before if each.since_ms <= opened and latest <= each.until_ms), None)
            if holding is None:
                holding = self._answer(key, opened, seen)
                if place[row] < 0 and holding.lasts and not any(each.lasts for each in before):
                    new_rows.append(row)
                    new.append(holding)
                before.append(holding)
            found[row] = holding.number
        if new:
            self._places.add((keys[0][new_rows], keys[1][new_rows], keys[2][new_rows]))
            self._indexes = np.concatenate([self._indexes, np.array([each.number for each in new], np.int64)])
            since_ms = np.array([each.since_ms for each in new], np.int64)
            self._held_since_ms = np.concatenate([self._held_since_ms, since_ms])

    def _answer(self, key: _Key, opened_ms: int, seen_ms: int) -> _Asked:
        answer = self._resolve(key, moment(opened_ms), moment(seen_ms))
        self.answers.append(answer)
        since_ms, until_ms = _held(answer.resolution, opened_ms)
        lasts = opened_ms >= self._since_ms
        return _Asked(
            number=len(self.answers) - 1, since_ms=since_ms, until_ms=_FOREVER_MS if lasts else until_ms, lasts=lasts
        )

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
            outcome=_outcome(key),
            confidence=_CONFIDENCES[first >> 29 & 0x3],
        )
        resolution = judge(self._resolver, identity, opened=opened, seen=seen)
        RECORDING_RESOLVED.labels(_ANSWERS[type(resolution)]).inc()
        return Answer(identity=identity, process=process, resolution=resolution)


_ANSWERS = {Resolved: "resolved", NotYet: "not-yet", Refused: "refused"}


def _outcome(key: _Key) -> Outcome:
    return _OUTCOMES[key[0] >> 26 & 0x7]


def _held(resolution: Resolution, asked_ms: int) -> tuple[int, int]:
    """From when until when flows may have been opened to have the answer that was given for `asked_ms`."""
    if not isinstance(resolution, Resolved):
        return asked_ms, asked_ms
    since, until = resolution.holds_since, resolution.holds_until
    return (
        0 if since is None else min(asked_ms, math.floor(since.timestamp() * 1000) + 1),
        _FOREVER_MS if until is None else max(asked_ms, math.ceil(until.timestamp() * 1000) - 1),
    )
