"""Columns to wattle.v1 batches.

Enters: `FlowColumns` of one interval. Leaves: Batches without a sequence number, each complete in itself.
Invariant: at most 5,000 records and 1 MiB each, all columns equally long, every index inside its own batch's tables.

protobuf packs a repeated field one Python object at a time (0.35 us a record); numpy writes the same varints for a
whole interval at once, and a batch is a slice of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import google_crc32c
import numpy as np

from agent.flow import factorize, process_text
from wattle.v1 import flowlink_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.flow import FlowColumns, Local, Words
    from agent.kernel.maps import Instant

MAX_RECORDS: Final = 5_000
MAX_BYTES: Final = 1 << 20
_ROOM_FOR_SEQ: Final = 64  # the spool adds the number and the envelope
_NS_PER_MS: Final = np.uint64(1_000_000)
_NS_PER_US: Final = np.uint64(1_000)
_MAX_COUNTER: Final = np.uint64((1 << 63) - 1)
# Field numbers of wattle.v1.Columns, packed (wire type 2).
_LOCAL, _REMOTE, _PORT, _PROTOCOL, _DIRECTION, _OUTCOME, _ERRNO, _CONFIDENCE = range(1, 9)
_PROCESS, _COUNT, _TX_BYTES, _RX_BYTES, _FIRST_MS, _LAST_MS, _DURATION_US = range(9, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Varints:
    """One column's varints, and where each row's begin."""

    data: bytes
    starts: Words | None  # None: one byte each

    def slice(self, first: int, last: int) -> bytes:
        if self.starts is None:
            return self.data[first:last]
        return self.data[int(self.starts[first]) : int(self.starts[last])]


def varints(values: Words) -> Varints:
    """Base-128 varints of unsigned integers (https://protobuf.dev/programming-guides/encoding)."""
    largest = int(values.max()) if len(values) else 0
    if largest < 1 << 7:
        return Varints(data=values.astype(np.uint8).tobytes(), starts=None)
    width = (largest.bit_length() + 6) // 7
    wide: Words = values.astype(np.uint32 if width <= 4 else np.uint64)
    groups = np.empty((len(values), width), np.uint8)
    lengths = np.ones(len(values), np.uint8)
    for position in range(width):
        groups[:, position] = wide & 0x7F
        wide = wide >> 7
        if position + 1 < width:
            more = wide != 0
            groups[:, position] |= more.view(np.uint8) << 7
            lengths += more.view(np.uint8)
    starts = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    kept = np.arange(width, dtype=np.uint8) < lengths[:, None]
    return Varints(data=groups[kept].tobytes(), starts=starts)


def encode(
    columns: FlowColumns, *, start: Instant, end: Instant, loss: flowlink_pb2.Loss, max_records: int = MAX_RECORDS
) -> Iterator[tuple[int, flowlink_pb2.Batch]]:
    """(records, batch), one at least: the losses of an interval without flows travel, too."""
    interval = flowlink_pb2.Interval(start_wall_ns=start.wall_ns, end_wall_ns=max(end.wall_ns, start.wall_ns + 1))
    if not len(columns):
        empty = flowlink_pb2.Batch(interval=interval, processes=[""], loss=loss)
        empty.crc32c = google_crc32c.value(b"")
        yield 0, empty
        return
    first_ms = _since(columns.first_ns, start.boot_ns) // _NS_PER_MS
    last_ms = np.maximum(_since(columns.last_ns, start.boot_ns) // _NS_PER_MS, first_ms)
    fixed = [
        (_PORT, varints(columns.port)),
        (_PROTOCOL, varints(columns.protocol)),
        (_DIRECTION, varints(columns.direction)),
        (_OUTCOME, varints(columns.outcome)),
        (_ERRNO, varints(columns.error)),
        (_CONFIDENCE, varints(columns.confidence)),
        (_COUNT, varints(np.minimum(columns.count, _MAX_COUNTER))),
        (_TX_BYTES, varints(np.minimum(columns.tx_bytes, _MAX_COUNTER))),
        (_RX_BYTES, varints(np.minimum(columns.rx_bytes, _MAX_COUNTER))),
        (_FIRST_MS, varints(first_ms)),
        (_LAST_MS, varints(last_ms)),
        (_DURATION_US, varints(columns.duration_ns // _NS_PER_US)),
    ]
    process, firsts = factorize(columns.process[:, 0], columns.process[:, 1])
    names = [process_text(columns.process[row].tobytes()) for row in firsts]
    spans = [(first, min(first + max_records, len(columns))) for first in range(0, len(columns), max_records)]
    while spans:
        first, last = spans.pop(0)
        batch = _batch(columns, fixed, process, names, span=(first, last))
        batch.interval.CopyFrom(interval)
        batch.loss.CopyFrom(loss)
        if batch.ByteSize() + _ROOM_FOR_SEQ > MAX_BYTES and last - first > 1:
            middle = (first + last) // 2
            spans[:0] = [(first, middle), (middle, last)]
            continue
        loss = flowlink_pb2.Loss()  # told once
        yield last - first, batch


def _batch(
    columns: FlowColumns, fixed: list[tuple[int, Varints]], process: Words, names: list[str], *, span: tuple[int, int]
) -> flowlink_pb2.Batch:
    first, last = span
    local, used_locals = _renumber(columns.local[first:last])
    process_index, used_processes = _renumber(process[first:last])
    remote_words = columns.remote[first:last]
    remote, remote_rows = factorize(remote_words[:, 0], remote_words[:, 1])
    # Index 0 is "", so a process that is known starts at 1.
    process_names = [names[number] for number in used_processes]
    shift = np.array([0 if name == "" else position for position, name in enumerate(process_names, start=1)], np.uint32)
    packed = dict(fixed)
    parts = []
    for field in range(_LOCAL, _DURATION_US + 1):
        if field == _LOCAL:
            data = varints(local).data
        elif field == _REMOTE:
            data = varints(remote).data
        elif field == _PROCESS:
            data = varints(shift[process_index]).data
        else:
            data = packed[field].slice(first, last)
        parts += [bytes((field << 3 | 2,)), _length(len(data)), data]
    serialized = b"".join(parts)
    return flowlink_pb2.Batch(
        locals=[_message(columns.locals[number]) for number in used_locals],
        remotes=np.ascontiguousarray(remote_words[remote_rows]).tobytes(),
        processes=["", *process_names],
        columns=serialized,
        crc32c=google_crc32c.value(serialized),
    )


def _renumber(numbers: Words) -> tuple[Words, Words]:
    """Dense numbers in place of sparse ones, and which they stand for; the universe is small."""
    used = np.flatnonzero(np.bincount(numbers))
    dense = np.zeros(int(used[-1]) + 1, np.uint32)
    dense[used] = np.arange(len(used))
    return dense[numbers], used


def _since(times_ns: Words, start_ns: int) -> Words:
    start = np.uint64(start_ns)
    return np.where(times_ns > start, times_ns - start, np.uint64(0))


def _length(value: int) -> bytes:
    return varints(np.array([value], np.uint64)).data


def _message(local: Local) -> flowlink_pb2.Local:
    return flowlink_pb2.Local(
        pod_uid=local.pod_uid,
        container_id=local.container_id,
        namespace=local.namespace,
        pod_name=local.pod_name,
        container_name=local.container_name,
        cgroup_id=local.cgroup_id,
        netns_cookie=local.netns_cookie,
        host_network=local.host_network,
        address=local.address,
    )
