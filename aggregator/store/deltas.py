"""What is written together: the values that one transaction of a Sink takes.

Invariant: everything is additive or monotone (sums, minima, maxima, OR, AND), so that the order of writers does not
matter and nothing is read, changed in Python and written back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from aggregator.model.link import Link
from aggregator.store.keys import COARSE_MINUTES
from aggregator.store.schema import COUNTERS

ACTIVITY = np.dtype(
    [("link_id", "<i8"), ("bucket_minute", "<i4"), ("cluster_id", "<i4"), *((counter, "<i8") for counter in COUNTERS)]
)
ActivityArray = npt.NDArray[np.void]


class Sides(IntFlag):
    """Which ends of a Link have reported it, as one number."""

    CLIENT = 1
    SERVER = 2


class EvidenceKind(IntEnum):
    """What a row of link_evidence tells."""

    SERVICE = 1
    CLIENT_PROCESS = 2
    SERVER_PROCESS = 3
    SRC_POD = 4
    DST_POD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorKey:
    """One spool of one agent."""

    cluster: str
    agent_id: str
    epoch: int  # unsigned, as on the wire

    def as_tuple(self) -> tuple[str, str, int]:
        return (self.cluster, self.agent_id, self.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorMove:
    """The cursor stands at from_seq and belongs to `instance`; after the transaction it stands at to_seq."""

    key: CursorKey
    instance: int
    from_seq: int
    to_seq: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSighting:
    link: Link
    link_id: int
    key: str
    sides: Sides
    established: bool
    high_confidence: bool
    probe_only: bool
    first_seen_ms: int
    last_seen_ms: int
    verified: bool = False  # this process has compared the key with the database's before


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSighting:
    cluster: str
    link_id: int
    kind: EvidenceKind
    value: str
    first_seen_ms: int
    last_seen_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDelta:
    cluster: str
    link_id: int
    bucket_minute: int  # of the hour
    outcome: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingKey:
    cluster: str
    agent_id: str
    epoch: int
    seq: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingFlow:
    """A flow record that waits for the cluster view. `identity` is JSON; only services/ reads it."""

    key: PendingKey
    identity: str
    process: str
    at_ms: int
    first_seen_ms: int
    last_seen_ms: int
    deadline_ms: int
    count: int
    tx_bytes: int
    rx_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GapDelta:
    key: CursorKey
    from_seq: int
    to_seq: int
    reason: str
    flow_records: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedBatch:
    key: CursorKey
    seq: int
    reason: str
    message: bytes
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LossDelta:
    """`losses` in the order of schema.LOSSES."""

    cluster: str
    agent_id: str
    bucket_minute: int
    losses: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalDelta:
    cluster: str
    agent_id: str
    bucket_minute: int
    reason: str
    flow_records: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDelta:
    """What was taken from an agent."""

    cluster: str
    agent_id: str
    last_batch_ms: int
    flow_records: int = 0
    clamped_batches: int = 0
    rejected_batches: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """One transaction. `activity` is in 5-minute buckets, sorted by (link_id, bucket_minute), without repetition."""

    cursors: Sequence[CursorMove] = ()
    activity: ActivityArray = field(default_factory=lambda: np.empty(0, ACTIVITY))
    attempts: Sequence[AttemptDelta] = ()
    links: Sequence[LinkSighting] = ()
    evidence: Sequence[EvidenceSighting] = ()
    pending: Sequence[PendingFlow] = ()
    settled: Sequence[PendingKey] = ()  # pending flows that this merge turns into something else
    gaps: Sequence[GapDelta] = ()
    quarantined: Sequence[QuarantinedBatch] = ()
    losses: Sequence[LossDelta] = ()
    refusals: Sequence[RefusalDelta] = ()
    agents: Sequence[AgentDelta] = ()


def coarse(activity: ActivityArray) -> ActivityArray:
    """The same counters in buckets of an hour."""
    hourly = activity.copy()
    hourly["bucket_minute"] -= hourly["bucket_minute"] % COARSE_MINUTES
    if len(hourly) == 0:
        return hourly
    repeats = (hourly["link_id"][1:] == hourly["link_id"][:-1]) & (
        hourly["bucket_minute"][1:] == hourly["bucket_minute"][:-1]
    )
    if not repeats.any():
        return hourly
    starts = np.flatnonzero(np.concatenate(([True], ~repeats)))
    summed = hourly[starts]
    for counter in COUNTERS:
        summed[counter] = np.add.reduceat(hourly[counter], starts)
    return summed
