"""Grouping: the answers of a group of batches become one Merge.

Enters: FlowBatch values with an answer for every row. Leaves: deltas, one for each (link, bucket).
Invariant: sums are exact integers. What this process has told the database before (a link's flags, a pod, a process)
is not told again; it counts as told only when the caller says that the merge was committed.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np
import numpy.typing as npt

from aggregator.metrics import RECORDING_LINKS
from aggregator.model.link import Confidence, Link, Outcome, link_id, link_key
from aggregator.model.protocol import Direction
from aggregator.model.resolution import NotYet, Refused, Resolved
from aggregator.services.recording.deliveries import I64, FlowBatch, FlowColumns
from aggregator.services.recording.identities import Answer
from aggregator.services.recording.identity_json import identity_to_json
from aggregator.services.recording.openings import Openings
from aggregator.store.deltas import (
    ACTIVITY,
    ActivityArray,
    AttemptDelta,
    CursorKey,
    EvidenceKind,
    EvidenceSighting,
    LinkSighting,
    PendingFlow,
    PendingKey,
    RefusalDelta,
    Sides,
)
from aggregator.store.keys import COARSE_MINUTES, FINE_MINUTES, bucket_of, cluster_id_of

TOUCH_MS = 30_000  # a link's last_seen is written again when it has moved by this much
EVIDENCE_MS = 12 * 3600_000  # likewise for evidence
_MOST_EVIDENCE = 2_000_000
_FINE_MS = FINE_MINUTES * 60_000
_SPARSE = 8  # cells for each record, beyond which a table of all cells costs more than sorting

# What a row of an answer is.
_COUNTED, _OPEN, _ATTEMPT, _PENDING, _REFUSED = range(5)
# Flags of a link that only grow.
_CLIENT, _SERVER, _ESTABLISHED, _HIGH, _NOT_A_PROBE = 1, 2, 4, 8, 16


@dataclass(slots=True, kw_only=True)
class _KnownLink:
    link: Link
    link_id: int
    key: str
    cluster_id: int
    told_flags: int = 0
    told_last_ms: int = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnsweredBatch:
    """A batch and, for each of its rows, the index of its answer."""

    key: CursorKey
    seq: int
    batch: FlowBatch
    answers: I64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sums:
    """Records of one answer in one 5-minute bucket, summed: side by side."""

    answer: I64
    bucket: I64  # 5 minutes each, since 1970
    count: I64
    tx_bytes: I64
    rx_bytes: I64
    first_ms: I64
    last_ms: I64

    def where(self, kept: npt.NDArray[np.bool_]) -> "_Sums":
        return self if kept.all() else _Sums(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})


def _sums(rows: I64, columns: FlowColumns, *, answers: int) -> _Sums:
    """`rows` says for every record which answer it is of. Linear: answers are small numbers, nothing is sorted."""
    bucket = columns.last_ms // _FINE_MS
    first = int(bucket.min())
    width = int(bucket.max()) - first + 1
    cell = rows * width + (bucket - first)
    size = answers * width
    used: I64
    if size > _SPARSE * len(rows):
        used, cell = np.unique(cell, return_inverse=True)
        held = np.arange(len(used))
        size = len(used)
    else:
        present = np.zeros(size, bool)
        present[cell] = True
        used = held = np.flatnonzero(present)

    def added(column: I64) -> I64:
        total = np.zeros(size, np.int64)
        np.add.at(total, cell, column)
        return total[held]

    earliest = np.full(size, np.iinfo(np.int64).max)
    np.minimum.at(earliest, cell, columns.first_ms)
    latest = np.zeros(size, np.int64)
    np.maximum.at(latest, cell, columns.last_ms)
    return _Sums(
        answer=used // width,
        bucket=first + used % width,
        count=added(columns.count),
        tx_bytes=added(columns.tx_bytes),
        rx_bytes=added(columns.rx_bytes),
        first_ms=earliest[held],
        last_ms=latest[held],
    )


@dataclass(slots=True, kw_only=True)
class Deltas:
    """The parts of a Merge that come from flow records. Call `told` after the COMMIT."""

    activity: ActivityArray = field(default_factory=lambda: np.empty(0, ACTIVITY))
    attempts: list[AttemptDelta] = field(default_factory=list)
    links: list[LinkSighting] = field(default_factory=list)
    evidence: list[EvidenceSighting] = field(default_factory=list)
    pending: list[PendingFlow] = field(default_factory=list)
    refusals: list[RefusalDelta] = field(default_factory=list)
    on_told: list[Callable[[], None]] = field(default_factory=list)

    def told(self) -> None:
        for call in self.on_told:
            call()


class Grouping:
    """One recorder's memory of links. Not thread-safe."""

    def __init__(self, *, grace_ms: int, rolled_up: Callable[[Link], Link], openings: Openings | None = None) -> None:
        self._grace_ms = grace_ms
        self._openings = openings
        self._rolled_up = rolled_up
        self._links: list[_KnownLink] = []
        self._slots: dict[Link, int] = {}
        self._told_evidence: dict[tuple[int, EvidenceKind, str], int] = {}
        self._collided: set[int] = set()
        # Parallel to the answers:
        self._resets = -1
        self._kind = np.empty(0, np.int8)
        self._slot = np.empty(0, np.int64)
        self._flags = np.empty(0, np.int64)
        self._evidence_ms = np.empty(0, np.int64)
        # Parallel to self._links, for asking many at once what was told:
        self._ids = np.empty(0, np.int64)
        self._cluster_ids = np.empty(0, np.int64)
        self._told_flags = np.empty(0, np.int64)
        self._told_last_ms = np.empty(0, np.int64)

    def refuse_links(self, link_ids: frozenset[int]) -> None:
        """These ids belong to other links in the database: their flows are refused from now on."""
        self._collided |= link_ids
        self._resets = -1

    def group(
        self,
        batches: Sequence[AnsweredBatch],
        columns: FlowColumns,
        answers: Sequence[Answer],
        *,
        resets: int,
        now_ms: int,
    ) -> Deltas:
        """`columns` are those of all batches, joined; `resets` tells when the indexes of `answers` started anew."""
        deltas = Deltas()
        if not len(columns):
            return deltas
        self._learn(answers, resets)
        rows = np.concatenate([batch.answers for batch in batches])
        sums = _sums(rows, columns, answers=len(answers))
        kind = self._kind[sums.answer]
        seen = kind <= _ATTEMPT
        if seen.any():
            self._touch_links(deltas, sums.where(seen))
            self._show_evidence(deltas, sums.answer[seen], answers, now_ms)
            counted = kind <= _OPEN
            if self._openings is not None:
                self._note_openings(deltas, batches, rows, columns, answers)
            if counted.any():
                sums.count[kind == _OPEN] = 0
                deltas.activity = self._activity(sums.where(counted))
            if (kind == _ATTEMPT).any():
                self._attempts(deltas, sums.where(kind == _ATTEMPT), answers)
        if not seen.all():
            self._rest(deltas, batches, answers, now_ms)
        return deltas

    # ---- answers ----------------------------------------------------------------------------------------------------

    def _learn(self, answers: Sequence[Answer], resets: int) -> None:
        """Note what rows of each new answer are."""
        known = len(self._kind) if resets == self._resets else 0
        if resets != self._resets:
            self._resets = resets
            self._kind, self._slot, self._flags = self._kind[:0], self._slot[:0], self._flags[:0]
            self._evidence_ms = self._evidence_ms[:0]
        if known == len(answers):
            return
        learned = [self._what_it_is(answer) for answer in answers[known:]]
        kind, slot, flags = zip(*learned, strict=True)
        self._kind = np.concatenate([self._kind, np.array(kind, np.int8)])
        self._slot = np.concatenate([self._slot, np.array(slot, np.int64)])
        self._flags = np.concatenate([self._flags, np.array(flags, np.int64)])
        self._evidence_ms = np.concatenate([self._evidence_ms, np.zeros(len(learned), np.int64)])
        new = self._links[len(self._ids) :]
        if new:
            self._ids = np.concatenate([self._ids, np.array([link.link_id for link in new], np.int64)])
            self._cluster_ids = np.concatenate(
                [self._cluster_ids, np.array([link.cluster_id for link in new], np.int64)]
            )
            self._told_flags = np.concatenate([self._told_flags, np.zeros(len(new), np.int64)])
            self._told_last_ms = np.concatenate([self._told_last_ms, np.full(len(new), -1, np.int64)])
            if self._openings is not None:
                self._openings.know(known.link for known in new)
            RECORDING_LINKS.set(len(self._links))

    def _what_it_is(self, answer: Answer) -> tuple[int, int, int]:
        """(kind, link slot, flags)."""
        match answer.resolution:
            case Refused():
                return (_REFUSED, -1, 0)
            case NotYet():
                return (_PENDING, -1, 0)
            case Resolved() as resolved:
                slot = self._slot_of(self._rolled_up(resolved.link))
                if self._links[slot].link_id in self._collided:
                    return (_REFUSED, slot, 0)
                identity = answer.identity
                flags = _CLIENT if identity.direction is Direction.EGRESS else _SERVER
                flags |= _HIGH if identity.confidence is Confidence.HIGH else 0
                flags |= 0 if resolved.same_node_probe else _NOT_A_PROBE
                match identity.outcome:
                    case Outcome.ESTABLISHED:
                        return (_COUNTED, slot, flags | _ESTABLISHED)
                    case Outcome.OPEN:
                        return (_OPEN, slot, flags | _ESTABLISHED)
                    case Outcome.REFUSED | Outcome.TIMED_OUT | Outcome.UNREACHABLE | Outcome.ABORTED:
                        return (_ATTEMPT, slot, flags)

    def _slot_of(self, link: Link) -> int:
        slot = self._slots.get(link)
        if slot is None:
            slot = self._slots[link] = len(self._links)
            self._links.append(
                _KnownLink(
                    link=link, link_id=link_id(link), key=link_key(link), cluster_id=cluster_id_of(link.src.cluster)
                )
            )
        return slot

    # ---- links and what was seen with them --------------------------------------------------------------------------

    def _touch_links(self, deltas: Deltas, sums: _Sums) -> None:
        slots = self._slot[sums.answer]
        order = np.argsort(slots)
        slots = slots[order]
        starts = np.flatnonzero(np.concatenate(([True], slots[1:] != slots[:-1])))
        touched = slots[starts]
        flags = np.bitwise_or.reduceat(self._flags[sums.answer][order], starts)
        first = np.minimum.reduceat(sums.first_ms[order], starts)
        last = np.maximum.reduceat(sums.last_ms[order], starts)
        news = ((flags & ~self._told_flags[touched]) != 0) | (last > self._told_last_ms[touched] + TOUCH_MS)
        for index in np.flatnonzero(news).tolist():
            known = self._links[int(touched[index])]
            flag = int(flags[index])
            deltas.links.append(
                LinkSighting(
                    link=known.link,
                    link_id=known.link_id,
                    key=known.key,
                    sides=Sides(flag & 3),
                    established=bool(flag & _ESTABLISHED),
                    high_confidence=bool(flag & _HIGH),
                    probe_only=not flag & _NOT_A_PROBE,
                    first_seen_ms=int(first[index]),
                    last_seen_ms=int(last[index]),
                    verified=bool(self._told_last_ms[touched[index]] >= 0),
                )
            )
        deltas.on_told.append(partial(self._told_links, touched[news], flags[news], last[news]))

    def _told_links(self, slots: I64, flags: I64, last_ms: I64) -> None:
        self._told_flags[slots] |= flags
        self._told_last_ms[slots] = np.maximum(self._told_last_ms[slots], last_ms)

    def _show_evidence(self, deltas: Deltas, seen: I64, answers: Sequence[Answer], now_ms: int) -> None:
        """Services, processes and pods of the answers in use, each at most twice a day."""
        used = np.zeros(len(answers), bool)
        used[seen] = True
        due = np.flatnonzero(used & (self._evidence_ms <= now_ms - EVIDENCE_MS))
        if len(due) == 0:
            return
        shown: set[tuple[int, EvidenceKind, str]] = set()
        for index in due.tolist():
            known = self._links[int(self._slot[index])]
            for kind, value in evidence_of(answers[index]):
                evidence = (known.link_id, kind, value)
                if evidence in shown or self._told_evidence.get(evidence, 0) > now_ms - EVIDENCE_MS:
                    continue
                shown.add(evidence)
                deltas.evidence.append(
                    EvidenceSighting(
                        cluster=known.link.src.cluster,
                        link_id=known.link_id,
                        kind=kind,
                        value=value,
                        first_seen_ms=now_ms,
                        last_seen_ms=now_ms,
                    )
                )
        deltas.on_told.append(partial(self._told_all_evidence, due, shown, now_ms))

    def _told_all_evidence(self, due: I64, shown: set[tuple[int, EvidenceKind, str]], now_ms: int) -> None:
        self._evidence_ms[due] = now_ms
        if len(self._told_evidence) > _MOST_EVIDENCE:
            self._told_evidence.clear()
        self._told_evidence.update(dict.fromkeys(shown, now_ms))

    def _note_openings(
        self,
        deltas: Deltas,
        batches: Sequence[AnsweredBatch],
        rows: I64,
        columns: FlowColumns,
        answers: Sequence[Answer],
    ) -> None:
        """Where times are not the node's own, nobody can say what came first."""
        assert self._openings is not None
        clamped = np.repeat([answered.batch.clamped for answered in batches], [len(b.answers) for b in batches])
        kind = self._kind[rows]
        telling = ~clamped & ((kind == _OPEN) | ((kind == _COUNTED) & (columns.count > 0)))
        if telling.any():
            times = np.stack([columns.first_ms[telling], columns.last_ms[telling]], axis=1)
            told = (answers, rows[telling], self._slot[rows[telling]], kind[telling] == _OPEN, times)
            deltas.on_told.append(partial(self._openings.note, *told))

    # ---- numbers ----------------------------------------------------------------------------------------------------

    def _activity(self, sums: _Sums) -> ActivityArray:
        """Sums by link and 5-minute bucket, each side for itself."""
        first = int(sums.bucket.min())
        width = int(sums.bucket.max()) - first + 1
        of_server = (self._flags[sums.answer] & _SERVER) >> 1
        group = (self._slot[sums.answer] * width + (sums.bucket - first)) * 2 + of_server
        order = np.argsort(group)
        group = group[order]
        starts = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
        group = group[starts]
        pair = group >> 1
        place = np.cumsum(np.concatenate(([False], pair[1:] != pair[:-1])))
        cell = pair[np.concatenate(([True], pair[1:] != pair[:-1]))]
        slot = cell // width
        activity = np.zeros(len(cell), ACTIVITY)
        activity["link_id"] = self._ids[slot]
        activity["cluster_id"] = self._cluster_ids[slot]
        activity["bucket_minute"] = (first + cell % width) * FINE_MINUTES
        for side, bit in (("client", 0), ("server", 1)):
            mine = (group & 1) == bit
            for name, column in (("count", sums.count), ("tx_bytes", sums.tx_bytes), ("rx_bytes", sums.rx_bytes)):
                activity[f"{side}_{name}"][place[mine]] = np.add.reduceat(column[order], starts)[mine]
        return activity[np.lexsort((activity["bucket_minute"], activity["link_id"]))]

    def _attempts(self, deltas: Deltas, sums: _Sums, answers: Sequence[Answer]) -> None:
        by_key: dict[tuple[int, int, str], int] = defaultdict(int)
        for row, attempts, bucket in zip(sums.answer.tolist(), sums.count.tolist(), sums.bucket.tolist(), strict=True):
            hour = bucket * FINE_MINUTES // COARSE_MINUTES * COARSE_MINUTES
            by_key[(int(self._slot[row]), hour, answers[row].identity.outcome.value)] += attempts
        for (slot, hour, outcome), attempts in by_key.items():
            known = self._links[slot]
            deltas.attempts.append(
                AttemptDelta(
                    cluster=known.link.src.cluster,
                    link_id=known.link_id,
                    bucket_minute=hour,
                    outcome=outcome,
                    attempts=attempts,
                )
            )

    # ---- what is no link, or not yet --------------------------------------------------------------------------------

    def _rest(self, deltas: Deltas, batches: Sequence[AnsweredBatch], answers: Sequence[Answer], now_ms: int) -> None:
        refused: dict[tuple[str, str, int, str], list[int]] = defaultdict(lambda: [0, 0])
        for answered in batches:
            columns = answered.batch.columns
            kind = self._kind[answered.answers]
            opened_ms = answered.batch.opened_ms if (kind == _PENDING).any() else columns.first_ms
            for row in np.flatnonzero(kind >= _PENDING).tolist():
                answer = answers[int(answered.answers[row])]
                if kind[row] == _REFUSED:
                    reason = answer.resolution.reason if isinstance(answer.resolution, Refused) else "link-id-collision"
                    hour = bucket_of(int(columns.last_ms[row]), COARSE_MINUTES)
                    total = refused[(answered.key.cluster, answered.key.agent_id, hour, reason)]
                    total[0] += 1
                    total[1] += int(columns.count[row])
                    continue
                deltas.pending.append(self._pending(answered, row, answer, int(opened_ms[row]), now_ms))
        deltas.refusals += [
            RefusalDelta(
                cluster=cluster, agent_id=agent_id, bucket_minute=hour, reason=reason, flow_records=records, count=count
            )
            for (cluster, agent_id, hour, reason), (records, count) in refused.items()
        ]

    def _pending(self, answered: AnsweredBatch, row: int, answer: Answer, opened_ms: int, now_ms: int) -> PendingFlow:
        columns = answered.batch.columns
        key = answered.key
        return PendingFlow(
            key=PendingKey(cluster=key.cluster, agent_id=key.agent_id, epoch=key.epoch, seq=answered.seq, row=row),
            identity=identity_to_json(answer.identity),
            process=answer.process,
            at_ms=opened_ms,
            first_seen_ms=int(columns.first_ms[row]),
            last_seen_ms=int(columns.last_ms[row]),
            deadline_ms=now_ms + self._grace_ms,
            count=int(columns.count[row]),
            tx_bytes=int(columns.tx_bytes[row]),
            rx_bytes=int(columns.rx_bytes[row]),
        )


def evidence_of(answer: Answer) -> list[tuple[EvidenceKind, str]]:
    """What an answer tells beside its link."""
    resolved = answer.resolution
    assert isinstance(resolved, Resolved)
    process = (
        EvidenceKind.CLIENT_PROCESS if answer.identity.direction is Direction.EGRESS else EvidenceKind.SERVER_PROCESS
    )
    return [
        (kind, value)
        for kind, value in (
            (EvidenceKind.SERVICE, resolved.service),
            (process, answer.process),
            (EvidenceKind.SRC_POD, resolved.src_pod),
            (EvidenceKind.DST_POD, resolved.dst_pod),
        )
        if value
    ]
