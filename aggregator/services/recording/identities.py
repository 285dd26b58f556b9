"""Identities: from columns of numbers to answers of the Resolver, asking only what has not been asked before.

Enters: FlowBatch. Leaves: for every row the index of an Answer. Invariant: an answer is reused only within one
generation of the Resolver and for flows that are not older than that generation: within it nobody's address changes
hands. The cache compares whole identities (its hash only finds the place), so that a collision costs time, never a
wrong answer.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address

import numpy as np
import numpy.typing as npt

from aggregator.metrics import RECORDING_RESOLVED
from aggregator.model.address import canonical_address
from aggregator.model.link import Confidence, Outcome
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Refused, Resolution, Resolved, Resolver
from aggregator.services.recording.deliveries import I64, U64, FlowBatch, LocalSide
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

_Local = tuple[str, str, LocalSide, str]  # cluster, node, side, process
_Key = tuple[int, int, int]
_Keys = tuple[U64, U64, U64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the cluster view says of an identity."""

    identity: FlowIdentity
    process: str
    resolution: Resolution


class Identities:
    """One recorder's memory of answers. Not thread-safe."""

    def __init__(self, resolver: Resolver, *, now_ms: Callable[[], int]) -> None:
        self._resolver = resolver
        self._now_ms = now_ms
        self._tokens: dict[_Local, int] = {}
        self._locals: list[_Local] = []
        self._generation = -1
        self._since_ms = 0
        self.answers: list[Answer] = []
        self.resets = 0  # grows whenever `answers` starts anew
        self._reset()

    def _reset(self) -> None:
        self.answers = []
        self.resets += 1
        self._mixers = [np.uint64(secrets.randbits(64) | 1) for _ in range(3)]
        self._hashes = np.empty(0, np.uint64)
        self._keys: _Keys = (np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint64))
        self._indexes = np.empty(0, np.int64)
        if len(self._tokens) > _MAX_TOKENS:
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
        elif len(self.answers) > 2 * len(self._hashes) + _MOST_TRANSIENT_ANSWERS:
            self._reset()  # a long replay: answers about the past are never asked for again

    def look_up(self, cluster: str, node: str, batch: FlowBatch) -> I64:
        """The index into `answers` for every row of the batch."""
        keys = self._encode(cluster, node, batch)
        columns = batch.columns
        at_ms = (columns.first_ms + columns.last_ms) // 2
        lasting = at_ms >= self._since_ms
        found = np.full(len(columns), -1, np.int64)
        if len(self._hashes):
            place = np.minimum(np.searchsorted(self._hashes, self._hash(keys)), len(self._hashes) - 1)
            hit = lasting.copy()
            for cached, asked in zip(self._keys, keys, strict=True):
                hit &= cached[place] == asked
            found[hit] = self._indexes[place[hit]]
        if (found < 0).any():
            self._ask(keys, at_ms, lasting, found)
        return found

    def _encode(self, cluster: str, node: str, batch: FlowBatch) -> _Keys:
        """Three numbers a row: (local and process, everything small), and the remote address."""
        columns = batch.columns
        width = len(batch.processes)
        pairs = columns.local * width + columns.process
        tokens = np.zeros(len(batch.locals) * width, np.uint64)
        present = np.zeros(len(tokens), bool)
        present[pairs] = True
        for pair in np.flatnonzero(present).tolist():
            local = (cluster, node, batch.locals[pair // width], batch.processes[pair % width])
            token = self._tokens.get(local)
            if token is None:
                token = self._tokens[local] = len(self._locals)
                self._locals.append(local)
            tokens[pair] = token
        small = (
            columns.port
            | columns.protocol << 16
            | columns.direction << 24
            | columns.outcome << 26
            | columns.confidence << 29
        ).astype(np.uint64)
        return (
            tokens[pairs] << np.uint64(32) | small,
            batch.remotes[:, 0][columns.remote],
            batch.remotes[:, 1][columns.remote],
        )

    def _hash(self, keys: _Keys) -> U64:
        mixed = keys[0] * self._mixers[0]
        mixed = (mixed ^ (mixed >> np.uint64(29))) + keys[1] * self._mixers[1]
        mixed = (mixed ^ (mixed >> np.uint64(31))) + keys[2] * self._mixers[2]
        hashed: U64 = mixed ^ (mixed >> np.uint64(32))
        return hashed

    def _ask(self, keys: _Keys, at_ms: I64, lasting: npt.NDArray[np.bool_], found: I64) -> None:
        """Fill in the rows that are still -1."""
        asked: dict[tuple[_Key, bool], int] = {}
        new_rows: list[int] = []
        new_indexes: list[int] = []
        for row in np.flatnonzero(found < 0).tolist():
            key = (int(keys[0][row]), int(keys[1][row]), int(keys[2][row]))
            keep = bool(lasting[row])
            index = asked.get((key, keep))
            if index is None:
                index = asked[(key, keep)] = len(self.answers)
                self.answers.append(self._resolve(key, moment(int(at_ms[row]))))
                if keep:
                    new_rows.append(row)
                    new_indexes.append(index)
            found[row] = index
        if new_rows:
            self._remember(keys, np.array(new_rows), np.array(new_indexes, np.int64))

    def _remember(self, keys: _Keys, rows: I64, indexes: I64) -> None:
        new = (keys[0][rows], keys[1][rows], keys[2][rows])
        hashes = np.concatenate([self._hashes, self._hash(new)])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._keys = (
            np.concatenate([self._keys[0], new[0]])[order],
            np.concatenate([self._keys[1], new[1]])[order],
            np.concatenate([self._keys[2], new[2]])[order],
        )
        self._indexes = np.concatenate([self._indexes, indexes])[order]

    def _resolve(self, key: _Key, at: datetime) -> Answer:
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
            outcome=_OUTCOMES[first >> 26 & 0x7],
            confidence=_CONFIDENCES[first >> 29 & 0x3],
        )
        resolution = self._resolver.resolve(identity, at)
        RECORDING_RESOLVED.labels(_ANSWERS[type(resolution)]).inc()
        return Answer(identity=identity, process=process, resolution=resolution)


_ANSWERS = {Resolved: "resolved", NotYet: "not-yet", Refused: "refused"}
