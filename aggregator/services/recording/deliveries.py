"""Deliveries: what an agent's stream hands over to be recorded, in numpy columns and plain values.

Enters from ingest/, which has validated it; the wire's own types stay there. Invariant: columns are of equal length,
every index lies in its table, every counter and its column's sum stays below 2^53.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from aggregator.model.link import Outcome
from aggregator.store.deltas import CursorKey

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
OUTCOMES = {  # by their numbers in the protocol
    1: Outcome.ESTABLISHED,
    2: Outcome.REFUSED,
    3: Outcome.TIMED_OUT,
    4: Outcome.UNREACHABLE,
    5: Outcome.ABORTED,
    6: Outcome.OPEN,
}
_UNANSWERED = [
    number
    for number, outcome in OUTCOMES.items()
    if outcome in {Outcome.TIMED_OUT, Outcome.UNREACHABLE, Outcome.ABORTED}
]


class LocalSide(NamedTuple):
    """The side of a flow that lies in a pod of the reporting node."""

    pod_uid: str
    namespace: str
    pod_name: str
    host_network: bool
    address: bytes  # 16 bytes, or empty


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kinds:
    """What flow records have in common, side by side; numbers as in the protocol."""

    protocol: I64  # IANA
    direction: I64  # IPFIX 61 + 1
    outcome: I64
    confidence: I64
    process: I64  # index into FlowBatch.processes

    def __len__(self) -> int:
        return len(self.protocol)


COLUMNS = ("local", "remote", "port", "kind", "count", "tx_bytes", "rx_bytes", "first_ms", "last_ms", "longest_ms")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowColumns:
    """Flow records side by side: one row of `numbers` for each of COLUMNS, times in ms since 1970.

    In one array, so that the batches of a group are put together by one copy.
    """

    numbers: I64  # (len(COLUMNS), records)

    def __len__(self) -> int:
        return int(self.numbers.shape[1])

    @classmethod
    def of(cls, **columns: I64) -> Self:
        """Each of COLUMNS by its name."""
        return cls(numbers=np.array([columns[name] for name in COLUMNS], np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        return cls(numbers=np.concatenate([part.numbers for part in parts], axis=1))

    def where(self, kept: npt.NDArray[np.bool_]) -> Self:
        """The records that `kept` marks."""
        return self if kept.all() else type(self)(numbers=self.numbers[:, kept])

    def _row(self, place: int) -> I64:
        row: I64 = self.numbers[place]
        return row

    @property
    def local(self) -> I64:
        return self._row(0)

    @property
    def remote(self) -> I64:
        return self._row(1)

    @property
    def port(self) -> I64:
        return self._row(2)

    @property
    def kind(self) -> I64:
        return self._row(3)

    @property
    def count(self) -> I64:
        return self._row(4)

    @property
    def tx_bytes(self) -> I64:
        return self._row(5)

    @property
    def rx_bytes(self) -> I64:
        return self._row(6)

    @property
    def first_ms(self) -> I64:
        return self._row(7)

    @property
    def last_ms(self) -> I64:
        return self._row(8)

    @property
    def longest_ms(self) -> I64:
        """How long the oldest of those that ended had lasted; of open ones, how long at most they have."""
        return self._row(9)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowBatch:
    """The flow records of one drain interval of one node."""

    locals: list[LocalSide]
    remotes: U64  # (n, 2): the address as two numbers, most significant first
    processes: list[str]
    kinds: Kinds
    columns: FlowColumns
    losses: tuple[int, ...]  # in the order of store.schema.LOSSES
    clamped: bool
    message: bytes  # as it came, for the quarantine

    @property
    def opened_ms(self) -> I64:
        """The time by which each record's ends are judged: when what it tells of began.

        Of connections that it counts, its own time. Where it counts none, when those that closed were opened: their
        addresses may be somebody else's by now. Of attempts that nobody answered, when they were begun, likewise.
        """
        columns = self.columns
        middle = (columns.first_ms + columns.last_ms) >> 1
        unanswered = np.isin(self.kinds.outcome, _UNANSWERED)[columns.kind]
        return np.maximum(np.where((columns.count > 0) & ~unanswered, middle, middle - columns.longest_ms), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredGap:
    """Batches that will never come."""

    reason: str
    flow_records: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Poison:
    """A batch that cannot be accepted."""

    reason: str
    message: bytes


class Recorded(Enum):
    """What became of a delivery."""

    COMMITTED = auto()
    FENCED = auto()  # the cursor belongs to somebody else, or stands elsewhere: the stream must end


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivery:
    """from_seq..to_seq of one spool, and whom to tell."""

    key: CursorKey
    instance: int
    from_seq: int
    to_seq: int
    content: FlowBatch | DeclaredGap | Poison
    on_recorded: Callable[["Delivery", Recorded, str], None]  # called in the event loop; the text is a refusal's reason
