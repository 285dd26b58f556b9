"""Decode: a Batch from the wire becomes a FlowBatch, or a reason why it never can.

Enters: flowlink_pb2.Batch. Leaves: numpy columns. Invariant: whatever bytes came, either every promise of FlowBatch
holds or MalformedBatchError is raised; nothing is repaired silently (times that are out of range but believable are
moved, counted).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from aggregator.errors import IngestError
from aggregator.metrics import INGEST_CLAMPED
from aggregator.services.recording.deliveries import I64, U64, FlowBatch, FlowColumns, Kinds, LocalSide
from aggregator.store.schema import LOSSES
from wattle.v1 import flowlink_pb2

MAX_RECORDS = 5_000
MAX_TABLE = 65_536  # locals, remotes
MAX_PROCESSES = 4_096
MAX_TEXT = 253
MAX_SUM = 1 << 53
DAY_MS = 24 * 3600 * 1000
AHEAD_MS = 15_000
_PROTOCOLS = (6, 17, 132)
_PROTOCOLS = (6, 17, 132)
_KIND = ("protocol", "direction", "outcome", "errno", "confidence", "process")
_KIND_RANGES = (("direction", 1, 2), ("outcome", 1, 6), ("errno", 0, 4_095), ("confidence", 1, 2))
_TABLED = (
    "local",
    "remote",
    "server_port",
    "kind",
    "count",
    "tx_bytes",
    "rx_bytes",
    "first_step",
    "steps",
    "longest_ms",
)
_WITHOUT_LONGEST = (*_TABLED[:-1], "duration_ms")  # up to columns_version 1
_PLAIN = ("local", "remote", "port", *_KIND, "count", "tx_bytes", "rx_bytes", "first_ms", "last_ms", "duration_us")
_NOTHING_LOST = (0,) * len(LOSSES)
_V4_MAPPED = np.uint64(0xFFFF_0000_0000)
_MOST_KNOWN_SIDES = 10_000
_U64 = npt.NDArray[np.uint64]
KnownSides = dict[bytes, LocalSide]  # by their spelling on the wire: most pods are told of again in every batch


class MalformedBatchError(IngestError):
    """`label` is a short stable word for a counter, the message a sentence that names the field."""

    def __init__(self, label: str, sentence: str) -> None:
        super().__init__(sentence)
        self.label = label


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    start_ms: int
    latest_ms: int
    clamped: bool


def decode(message: bytes, batch: flowlink_pb2.Batch, *, now_ms: int, known: KnownSides | None = None) -> FlowBatch:
    """`message` is the whole AgentMessage, kept for the quarantine; `known` is what the stream's earlier batches were
    found to say of its pods, and grows. Raises MalformedBatchError.
    """
    times = _times(batch.interval, now_ms)
    locals_ = _locals(batch, {} if known is None else known)
    processes = list(batch.processes) or [""]
    _check_texts(processes, "processes")
    remotes = _remotes(batch.remotes4, batch.remotes)
    told = _tabled(batch) if batch.interval.step_ms else _plain(batch)
    kinds = _kinds(told.kinds, processes=len(processes))
    ports = _ports(told.ports)
    largest = dict(zip(_TABLED, told.numbers.max(axis=1, initial=0).tolist(), strict=True))
    if told.numbers.shape[1]:
        for name, table in (
            ("local", len(locals_)),
            ("remote", len(remotes)),
            ("server_port", len(ports)),
            ("kind", len(kinds)),
        ):
            if largest[name] >= table:
                raise MalformedBatchError("index", f"{name}: index {largest[name]} of a table of {table}")
    for place, name in enumerate(_TABLED):
        if name in ("count", "tx_bytes", "rx_bytes", "longest_ms"):
            _check_sum(told.names[place], told.numbers[place], largest[name])
    if (largest["first_step"] + largest["steps"]) * told.step_ms > 2 * DAY_MS:
        raise MalformedBatchError("time", "steps: events must lie within a day of the interval's start")
    numbers = told.numbers.view(np.int64)
    if told.names[-1] != "longest_ms":
        numbers[-1] = 0  # summed durations were told: checked, and kept nowhere
    numbers[2] = ports[numbers[2]]
    ends = numbers[-3:-1]
    first, last = ends
    last += first
    if len(last) and int(last.max()) * told.step_ms > DAY_MS:
        raise MalformedBatchError("time", "steps: events must lie within a day of the interval's start")
    ends *= told.step_ms
    ends += times.start_ms
    np.minimum(ends, times.latest_ms, out=ends)
    return FlowBatch(
        locals=locals_,
        remotes=remotes,
        processes=processes,
        kinds=kinds,
        columns=FlowColumns(numbers=numbers),
        losses=_losses(batch.loss),
        clamped=times.clamped,
        message=message,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Told:
    """What the columns of any spelling say: `numbers` has one row for each of _TABLED, told under these names."""

    numbers: _U64
    names: Sequence[str]
    kinds: Sequence[Sequence[int]]  # (protocol, direction, outcome, errno, confidence, process)
    ports: Sequence[int]
    step_ms: int


def _tabled(batch: flowlink_pb2.Batch) -> _Told:
    names, numbers = _columns(batch, _TABLED, _WITHOUT_LONGEST)
    if len(batch.kinds) > MAX_RECORDS or len(batch.ports) > MAX_RECORDS:
        raise MalformedBatchError("size", f"kinds, ports: at most {MAX_RECORDS} entries")
    return _Told(
        numbers=numbers,
        names=names,
        kinds=[
            (kind.protocol, kind.direction, kind.outcome, kind.errno, kind.confidence, kind.process)
            for kind in batch.kinds
        ],
        ports=batch.ports,
        step_ms=batch.interval.step_ms,
    )


def _plain(batch: flowlink_pb2.Batch) -> _Told:
    """Version 0.1.0 said everything for every record: the tables are made here."""
    _, numbers = _columns(batch, _PLAIN)
    columns = dict(zip(_PLAIN, numbers, strict=True))
    first, last = columns["first_ms"], columns["last_ms"]
    if len(last) and ((first > last).any() or int(last.max()) > DAY_MS):
        raise MalformedBatchError(
            "time", "last_ms: must be at least first_ms, and within a day of the interval's start"
        )
    kinds, kind = np.unique(np.stack([columns[name] for name in _KIND]), axis=1, return_inverse=True)
    ports, port = np.unique(columns["port"], return_inverse=True)
    return _Told(
        numbers=np.stack(
            [
                *(columns["local"], columns["remote"], port.astype(np.uint64), kind.astype(np.uint64).ravel()),
                *(columns["count"], columns["tx_bytes"], columns["rx_bytes"], first, last - first),
                columns["duration_us"],
            ]
        ),
        names=(*_TABLED[:-1], "duration_us"),
        kinds=kinds.T.tolist(),
        ports=ports.tolist(),
        step_ms=1,
    )


def _columns(batch: flowlink_pb2.Batch, *spellings: Sequence[str]) -> tuple[Sequence[str], _U64]:
    """Which of the spellings it is (the last column tells), and its columns, row by row; all others must be empty."""
    if google_crc32c.value(batch.columns) != batch.crc32c:
        raise MalformedBatchError("checksum", "crc32c: does not match the columns")
    try:
        columns = flowlink_pb2.Columns.FromString(batch.columns)
    except DecodeError as error:
        raise MalformedBatchError("protobuf", f"columns: {error}") from error
    records = len(columns.count)
    if records > MAX_RECORDS:
        raise MalformedBatchError("size", f"columns: {records} flow records, at most {MAX_RECORDS}")
    told = next((names for names in spellings if len(getattr(columns, names[-1]))), spellings[0])
    numbers = np.empty((len(told), records), np.uint64)
    for place, name in enumerate(told):
        column = getattr(columns, name)
        if len(column) != records:
            raise MalformedBatchError("unequal", f"{name}: {len(column)} values where count has {records}")
        numbers[place] = np.array(column)
    for field, _ in columns.ListFields():
        if field.name not in told:
            spelling = f"{told[-1]}, with step_ms {batch.interval.step_ms}"
            raise MalformedBatchError("unequal", f"{field.name}: has values beside {spelling}")
    return told, numbers


def _kinds(table: Sequence[Sequence[int]], *, processes: int) -> Kinds:
    columns = dict(zip(_KIND, zip(*table, strict=True), strict=True)) if table else dict.fromkeys(_KIND, ())
    if not set(columns["protocol"]) <= set(_PROTOCOLS):
        raise MalformedBatchError("range", "protocol: must be 6 (TCP), 17 (UDP) or 132 (SCTP)")
    for name, least, most in _KIND_RANGES:
        if min(columns[name], default=least) < least or max(columns[name], default=most) > most:
            raise MalformedBatchError("range", f"{name}: values must be {least} to {most}")
    if max(columns["process"], default=0) >= processes:
        raise MalformedBatchError("index", f"process: index {max(columns['process'])} of a table of {processes}")
    return Kinds(
        **{
            name: np.array(columns[name], np.int64)
            for name in ("protocol", "direction", "outcome", "confidence", "process")
        }
    )


def _ports(table: Sequence[int]) -> I64:
    ports = np.array(table, np.int64)
    if len(ports) and (int(ports.min()) < 1 or int(ports.max()) > 65_535):
        raise MalformedBatchError("range", "port: values must be 1 to 65535")
    return ports


def _times(interval: flowlink_pb2.Interval, now_ms: int) -> _Times:
    start_ms, end_ms = interval.start_wall_ns // 1_000_000, interval.end_wall_ns // 1_000_000
    if interval.end_wall_ns <= interval.start_wall_ns:
        raise MalformedBatchError("time", "interval: end_wall_ns must be after start_wall_ns")
    if end_ms - start_ms > DAY_MS:
        raise MalformedBatchError("time", "interval: longer than a day")
    if end_ms > now_ms + DAY_MS:
        raise MalformedBatchError("future", f"interval: ends {(end_ms - now_ms) // 1000} s in the future")
    shift_ms = 0
    if end_ms > now_ms + AHEAD_MS:
        shift_ms = now_ms - end_ms
        INGEST_CLAMPED.labels("now").inc()
    elif end_ms < now_ms - DAY_MS:
        shift_ms = now_ms - DAY_MS - end_ms
        INGEST_CLAMPED.labels("a-day-ago").inc()
    return _Times(start_ms=start_ms + shift_ms, latest_ms=end_ms + shift_ms + AHEAD_MS, clamped=shift_ms != 0)


def _locals(batch: flowlink_pb2.Batch, known: KnownSides) -> list[LocalSide]:
    if len(batch.locals) > MAX_TABLE:
        raise MalformedBatchError("size", f"locals: {len(batch.locals)} entries, at most {MAX_TABLE}")
    if len(known) > _MOST_KNOWN_SIDES:
        known.clear()
    sides = []
    for local in batch.locals:
        spelled = local.SerializePartialToString()
        side = known.get(spelled)
        if side is None:
            side = known[spelled] = _side(local)
        sides.append(side)
    return sides


def _side(local: flowlink_pb2.Local) -> LocalSide:
    _check_texts([local.pod_uid, local.namespace, local.pod_name], "locals")
    if len(local.address) not in (0, 16):
        raise MalformedBatchError("size", "locals: address must have 16 bytes or none")
    return LocalSide(local.pod_uid, local.namespace, local.pod_name, local.host_network, local.address)


def _check_texts(texts: list[str], field: str, *, most: int = MAX_PROCESSES) -> None:
    if len(texts) > most:
        raise MalformedBatchError("size", f"{field}: {len(texts)} entries, at most {most}")
    if "\0" in "".join(texts):
        raise MalformedBatchError("text", f"{field}: a text holds a NUL character")
    if max(map(len, texts), default=0) > MAX_TEXT:
        raise MalformedBatchError("text", f"{field}: a text is longer than {MAX_TEXT} characters")


def _remotes(short: bytes, long: bytes) -> U64:
    if len(short) % 4 or len(long) % 16 or len(short) // 4 + len(long) // 16 > MAX_TABLE:
        raise MalformedBatchError(
            "size",
            f"remotes: {len(short)} and {len(long)} bytes are not 4 and 16 for each address of at most {MAX_TABLE}",
        )
    count = len(short) // 4
    remotes = np.zeros((count + len(long) // 16, 2), np.uint64)
    remotes[:count, 1] = np.frombuffer(short, ">u4") | _V4_MAPPED
    remotes[count:] = np.frombuffer(long, ">u8").reshape(-1, 2)
    return remotes


def _check_sum(name: str, values: _U64, largest: int) -> None:
    if largest >= 1 << 63:
        raise MalformedBatchError("counter", f"{name}: {largest} is not below 2^63")
    if largest * len(values) >= MAX_SUM and float(values.astype(np.float64).sum()) >= MAX_SUM:
        raise MalformedBatchError("counter", f"{name}: no interval holds 2^53 or more")


def _losses(loss: flowlink_pb2.Loss) -> tuple[int, ...]:
    if not loss.ByteSize():
        return _NOTHING_LOST
    losses = tuple(int(getattr(loss, name)) for name in LOSSES)
    if any(value >= MAX_SUM for value in losses):
        raise MalformedBatchError("counter", "loss: no interval loses 2^53 or more")
    return losses
