"""Decode: a Batch from the wire becomes a FlowBatch, or a reason why it never can.

Enters: flowlink_pb2.Batch. Leaves: numpy columns. Invariant: whatever bytes came, either every promise of FlowBatch
holds or MalformedBatchError is raised; nothing is repaired silently (times that are out of range but believable are
moved, counted).
"""

from dataclasses import dataclass

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError

from aggregator.errors import IngestError
from aggregator.metrics import INGEST_CLAMPED
from aggregator.services.recording.deliveries import FlowBatch, FlowColumns, LocalSide
from aggregator.store.schema import LOSSES
from wattle.v1 import flowlink_pb2

MAX_RECORDS = 5_000
MAX_TABLE = 65_536  # locals, remotes
MAX_PROCESSES = 4_096
MAX_TEXT = 253
MAX_SUM = 1 << 53
DAY_MS = 24 * 3600 * 1000
AHEAD_MS = 15_000
_COLUMNS = tuple(field.name for field in flowlink_pb2.Columns.DESCRIPTOR.fields)
_COUNTERS = ("count", "tx_bytes", "rx_bytes", "duration_us")
_RANGES = (
    ("port", 1, 65_535),
    ("direction", 1, 2),
    ("outcome", 1, 6),
    ("errno", 0, 4_095),
    ("confidence", 1, 2),
)
_PROTOCOLS = (6, 17, 132)


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


def decode(message: bytes, batch: flowlink_pb2.Batch, *, now_ms: int) -> FlowBatch:
    """`message` is the whole AgentMessage, kept for the quarantine. Raises MalformedBatchError."""
    times = _times(batch.interval, now_ms)
    locals_ = _locals(batch)
    processes = list(batch.processes) or [""]
    _check_texts(processes, "processes", most=MAX_PROCESSES)
    remotes = _remotes(batch.remotes)
    raw = _columns(batch)
    records = len(raw["count"])
    for name, table in (("local", len(locals_)), ("remote", len(remotes)), ("process", len(processes))):
        if records and int(raw[name].max()) >= table:
            raise MalformedBatchError("index", f"{name}: index {int(raw[name].max())} of a table of {table}")
    for name, least, most in _RANGES:
        if records and (int(raw[name].min()) < least or int(raw[name].max()) > most):
            raise MalformedBatchError("range", f"{name}: values must be {least} to {most}")
    if records and not np.isin(raw["protocol"], _PROTOCOLS).all():
        raise MalformedBatchError("range", "protocol: must be 6 (TCP), 17 (UDP) or 132 (SCTP)")
    for name in _COUNTERS:
        _check_sum(name, raw[name])
    first, last = raw["first_ms"], raw["last_ms"]
    if records and ((first > last).any() or int(last.max()) > DAY_MS):
        raise MalformedBatchError(
            "time", "last_ms: must be at least first_ms, and within a day of the interval's start"
        )
    columns = {name: raw[name].astype(np.int64) for name in _COLUMNS if name not in ("errno", "duration_us")}
    for name in ("first_ms", "last_ms"):
        columns[name] = np.minimum(columns[name] + times.start_ms, times.latest_ms)
    return FlowBatch(
        locals=locals_,
        remotes=remotes,
        processes=processes,
        columns=FlowColumns(**columns),
        losses=_losses(batch.loss),
        clamped=times.clamped,
        message=message,
    )


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


def _locals(batch: flowlink_pb2.Batch) -> list[LocalSide]:
    if len(batch.locals) > MAX_TABLE:
        raise MalformedBatchError("size", f"locals: {len(batch.locals)} entries, at most {MAX_TABLE}")
    sides = [
        LocalSide(
            pod_uid=local.pod_uid,
            namespace=local.namespace,
            pod_name=local.pod_name,
            host_network=local.host_network,
            address=local.address,
        )
        for local in batch.locals
    ]
    _check_texts([text for side in sides for text in (side.pod_uid, side.namespace, side.pod_name)], "locals")
    if any(len(side.address) not in (0, 16) for side in sides):
        raise MalformedBatchError("size", "locals: address must have 16 bytes or none")
    return sides


def _check_texts(texts: list[str], field: str, *, most: int = 3 * MAX_TABLE) -> None:
    if len(texts) > most:
        raise MalformedBatchError("size", f"{field}: {len(texts)} entries, at most {most}")
    joined = "".join(texts)
    if "\0" in joined:
        raise MalformedBatchError("text", f"{field}: a text holds a NUL character")
    if any(len(text) > MAX_TEXT for text in texts):
        raise MalformedBatchError("text", f"{field}: a text is longer than {MAX_TEXT} characters")


def _remotes(data: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    if len(data) % 16 or len(data) // 16 > MAX_TABLE:
        raise MalformedBatchError("size", f"remotes: {len(data)} bytes are not 16 for each of at most {MAX_TABLE}")
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2)


def _columns(batch: flowlink_pb2.Batch) -> dict[str, np.ndarray[tuple[int], np.dtype[np.uint64]]]:
    if google_crc32c.value(batch.columns) != batch.crc32c:
        raise MalformedBatchError("checksum", "crc32c: does not match the columns")
    try:
        columns = flowlink_pb2.Columns.FromString(batch.columns)
    except DecodeError as error:
        raise MalformedBatchError("protobuf", f"columns: {error}") from error
    records = len(columns.count)
    if records > MAX_RECORDS:
        raise MalformedBatchError("size", f"columns: {records} flow records, at most {MAX_RECORDS}")
    arrays = {}
    for name in _COLUMNS:
        column = getattr(columns, name)
        if len(column) != records:
            raise MalformedBatchError("unequal", f"{name}: {len(column)} values where count has {records}")
        arrays[name] = np.array(column, dtype=np.uint64)
    return arrays


def _check_sum(name: str, values: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> None:
    if not len(values):
        return
    if int(values.max()) >= 1 << 63:
        raise MalformedBatchError("counter", f"{name}: {int(values.max())} is not below 2^63")
    if float(values.astype(np.float64).sum()) >= MAX_SUM:
        raise MalformedBatchError("counter", f"{name}: no interval holds 2^53 or more")


def _losses(loss: flowlink_pb2.Loss) -> tuple[int, ...]:
    losses = tuple(int(getattr(loss, name)) for name in LOSSES)
    if any(value >= MAX_SUM for value in losses):
        raise MalformedBatchError("counter", "loss: no interval loses 2^53 or more")
    return losses
