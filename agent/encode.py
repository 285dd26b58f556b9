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
_CONTINUED: Final = np.array([0, 0, 0x80, 0x8080, 0x80_8080], np.uint32)  # by length: the "more follows" bits
_USED: Final = np.array([0, 1, 0x0101, 0x01_0101, 0x0101_0101], "<u4")  # by length: which bytes, as booleans
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
    short = largest < 1 << 28
    groups, lengths, kept = _short_groups(values.astype(np.uint32)) if short else _long_groups(values, largest)
    starts = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return Varints(data=np.compress(kept, groups).tobytes(), starts=starts)


def _short_groups(values: Words) -> tuple[Words, Words, Words]:
    """Up to 28 bits: a varint fits one 32-bit word, so whole columns are spread at once."""
    lengths = np.ones(len(values), np.uint8)
    for limit in (0x7F, 0x3FFF, 0x1F_FFFF):
        lengths += values > limit
    word = values & 0x7F
    for position in (1, 2, 3):
        word |= (values & np.uint32(0x7F << 7 * position)) << np.uint32(position)
    word |= _CONTINUED[lengths]
    return word.astype("<u4", copy=False).view(np.uint8), lengths, _USED[lengths].view(np.bool_)


def _long_groups(values: Words, largest: int) -> tuple[Words, Words, Words]:
    width = (largest.bit_length() + 6) // 7
    wide: Words = values.astype(np.uint64)
    groups = np.empty((len(values), width), np.uint8)
    lengths = np.ones(len(values), np.uint8)
    for position in range(width):
        groups[:, position] = wide & 0x7F
        wide = wide >> 7
        if position + 1 < width:
            more = wide != 0
            groups[:, position] |= more.view(np.uint8) << 7
            lengths += more.view(np.uint8)
    used = np.arange(width) < np.arange(width + 1)[:, None]
    return groups.ravel(), lengths, used[lengths].ravel()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interval:
    """What the batches of one interval share."""

    columns: FlowColumns
    sides: list[flowlink_pb2.Local]
    packed: dict[int, Varints]  # columns whose numbers mean the same in every batch
    process: Words
    process_names: list[str]


def encode(
    columns: FlowColumns, *, start: Instant, end: Instant, loss: flowlink_pb2.Loss, max_records: int = MAX_RECORDS
) -> Iterator[tuple[int, flowlink_pb2.Batch]]:
    """(records, batch), one at least: the losses of an interval without flows travel, too."""
    interval = flowlink_pb2.Interval(start_wall_ns=start.wall_ns, end_wall_ns=max(end.wall_ns, start.wall_ns + 1))
    if not len(columns):
        yield 0, flowlink_pb2.Batch(interval=interval, processes=[""], loss=loss, crc32c=google_crc32c.value(b""))
        return
    shared = _share(columns, start)
    spans = [(first, min(first + max_records, len(columns))) for first in range(0, len(columns), max_records)]
    while spans:
        first, last = spans.pop(0)
        batch = _batch(shared, first, last)
        batch.interval.CopyFrom(interval)
        batch.loss.CopyFrom(loss)
        if batch.ByteSize() + _ROOM_FOR_SEQ > MAX_BYTES and last - first > 1:
            middle = (first + last) // 2
            spans[:0] = [(first, middle), (middle, last)]
            continue
        loss = flowlink_pb2.Loss()  # told once
        yield last - first, batch


def _share(columns: FlowColumns, start: Instant) -> _Interval:
    first_ms = _since(columns.first_ns, start.boot_ns) // _NS_PER_MS
    last_ms = np.maximum(_since(columns.last_ns, start.boot_ns) // _NS_PER_MS, first_ms)
    process, firsts = factorize(columns.process[:, 0], columns.process[:, 1])
    return _Interval(
        columns=columns,
        sides=[_message(local) for local in columns.locals],
        packed={
            _PORT: varints(columns.port),
            _PROTOCOL: varints(columns.protocol),
            _DIRECTION: varints(columns.direction),
            _OUTCOME: varints(columns.outcome),
            _ERRNO: varints(columns.error),
            _CONFIDENCE: varints(columns.confidence),
            _COUNT: varints(np.minimum(columns.count, _MAX_COUNTER)),
            _TX_BYTES: varints(np.minimum(columns.tx_bytes, _MAX_COUNTER)),
            _RX_BYTES: varints(np.minimum(columns.rx_bytes, _MAX_COUNTER)),
            _FIRST_MS: varints(first_ms),
            _LAST_MS: varints(last_ms),
            _DURATION_US: varints(columns.duration_ns // _NS_PER_US),
        },
        process=process,
        process_names=[process_text(columns.process[row].tobytes()) for row in firsts],
    )


def _batch(shared: _Interval, first: int, last: int) -> flowlink_pb2.Batch:
    columns = shared.columns
    local, used_locals = _renumber(columns.local[first:last])
    process, used_processes = _renumber(shared.process[first:last])
    words = columns.remote[first:last]
    remote, remote_rows = factorize(words[:, 0], words[:, 1])
    # Index 0 is "" = unknown, so a process that is known starts at 1.
    names = [shared.process_names[number] for number in used_processes]
    index = np.array([position if name else 0 for position, name in enumerate(names, start=1)], np.uint32)
    own = {_LOCAL: local, _REMOTE: remote, _PROCESS: index[process]}
    parts = []
    for field in range(_LOCAL, _DURATION_US + 1):
        data = varints(own[field]).data if field in own else shared.packed[field].slice(first, last)
        parts += [bytes((field << 3 | 2,)), _length(len(data)), data]
    serialized = b"".join(parts)
    return flowlink_pb2.Batch(
        locals=[shared.sides[number] for number in used_locals],
        remotes=np.ascontiguousarray(words[remote_rows]).tobytes(),
        processes=["", *names],
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
    return np.maximum(times_ns, start) - start


def _length(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


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
