"""Deliveries: what an agent's stream hands over to be recorded, in numpy columns and plain values.

Enters from ingest/, which has validated it; the wire's own types stay there. Invariant: columns are of equal length,
every index lies in its table, every counter and its column's sum stays below 2^53.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import numpy.typing as npt

from aggregator.store.deltas import CursorKey

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSide:
    """The side of a flow that lies in a pod of the reporting node."""

    pod_uid: str
    namespace: str
    pod_name: str
    host_network: bool
    address: bytes  # 16 bytes, or empty


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowColumns:
    """Flow records side by side; numbers as in the protocol."""

    local: I64
    remote: I64
    port: I64
    protocol: I64  # IANA
    direction: I64  # IPFIX 61 + 1
    outcome: I64
    confidence: I64
    process: I64
    count: I64
    tx_bytes: I64
    rx_bytes: I64
    first_ms: I64  # since 1970
    last_ms: I64

    def __len__(self) -> int:
        return len(self.count)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowBatch:
    """The flow records of one drain interval of one node."""

    locals: list[LocalSide]
    remotes: U64  # (n, 2): the address as two numbers, most significant first
    processes: list[str]
    columns: FlowColumns
    losses: tuple[int, ...]  # in the order of store.schema.LOSSES
    clamped: bool
    message: bytes  # as it came, for the quarantine


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
