"""Columns to wattle.v1 batches.

Enters: `FlowColumns` of one interval. Leaves: Batches without a sequence number, each complete in itself.
Invariant: at most 5,000 records and 1 MiB each, all columns equally long, every index inside its own batch's tables.

protobuf packs a repeated field one Python object at a time (0.35 us a record); numpy writes the same varints for a
whole interval at once, and a batch is a slice of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final, cast

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
_MAX_COUNTER: Final = np.uint64((1 << 63) - 1)
_V4_MAPPED: Final = np.frombuffer(bytes(10) + b"\xff\xff" + bytes(4), "<u8")  # ::ffff:0.0.0.0 as two words
_V4_MASK: Final = np.uint64(0xFFFF_FFFF)  # the word's low half is ahead of the address in network order
_MAX_STEP: Final = np.uint64((1 << 32) - 1)
_STEPS: Final = 127  # of an interval: the largest number that is one byte on the wire
# Field numbers of wattle.v1.Columns, packed (wire type 2).
_LOCAL, _REMOTE, _COUNT, _TX_BYTES, _RX_BYTES = 1, 2, 10, 11, 12
_KIND, _FIRST_STEP, _LASTED, _PORT, _LONGEST_MS = 16, 17, 18, 19, 21
_PORTS: Final = flowlink_pb2.Batch.DESCRIPTOR.fields_by_name["ports"].number
_FIELDS: Final = (_LOCAL, _REMOTE, _COUNT, _TX_BYTES, _RX_BYTES, _KIND, _FIRST_STEP, _LASTED, _PORT, _LONGEST_MS)


@dataclass(frozen=True, kw_only=True)
class Varints:
    """One column's varints. Where each row's begin is worked out when a part is asked for: mostly all of it is."""

    data: bytes
    values: Words

    def slice(self, first: int, last: int) -> bytes:
        if first == 0 and last == len(self.values):
            return self.data
        return self.data[int(self._starts[first]) : int(self._starts[last])]

    @cached_property
    def _starts(self) -> Words:
        starts = np.zeros(len(self.values) + 1, np.int64)
        starts[1:] = 1
        for bits in range(7, int(self.values.max()).bit_length(), 7):
            starts[1:] += self.values >= np.uint64(1 << bits)
        return np.cumsum(starts)


def varints(values: Words) -> Varints:
    """Base-128 varints of unsigned integers (https://protobuf.dev/programming-guides/encoding)."""
    bits = int(values.max()).bit_length() if len(values) else 0
    if bits <= 7:
        data = values.astype(np.uint8).tobytes()
    elif bits <= 14:
        data = _two_bytes(values.astype("<u2"))
    elif bits <= 28:
        data = _four_bytes(values.astype("<u4"))
    else:
        data = _many_bytes(values.astype(np.uint64), -(-bits // 7))
    return Varints(data=data, values=values)


def _two_bytes(values: Words) -> bytes:
    """Each row's varint in a 16-bit word, and only the bytes that are used."""
    long = values > 0x7F
    words = (values & 0x7F) | (values & 0x3F80) << 1 | long.astype("<u2") << 7
    used = np.ones((len(values), 2), np.bool_)
    used[:, 1] = long
    return _compressed(used, words)


def _four_bytes(values: Words) -> bytes:
    longer = [values > limit for limit in (0x7F, 0x3FFF, 0x1F_FFFF)]
    words = values & 0x7F
    used = np.ones((len(values), 4), np.bool_)
    for position, long in enumerate(longer, start=1):
        words |= (values & np.uint32(0x7F << 7 * position)) << np.uint32(position)
        words |= long.astype("<u4") << np.uint32(8 * position - 1)
        used[:, position] = long
    return _compressed(used, words)


def _many_bytes(values: Words, width: int) -> bytes:
    groups = np.empty((len(values), width), np.uint8)
    used = np.ones((len(values), width), np.bool_)
    for position in range(width):
        groups[:, position] = values & 0x7F
        values = values >> 7
        if position + 1 < width:
            used[:, position + 1] = values != 0
            groups[:, position] |= used[:, position + 1].view(np.uint8) << 7
    return _compressed(used, groups)


def _compressed(used: Words, words: Words) -> bytes:
    return np.compress(used.ravel(), words.view(np.uint8).ravel()).tobytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interval:
    """What the batches of one interval share."""

    columns: FlowColumns
    sides: list[flowlink_pb2.Local]
    packed: dict[int, Varints]  # columns whose numbers mean the same in every batch
    kind: Words
    kind_rows: Words  # a row of each kind


def encode(
    columns: FlowColumns, *, start: Instant, end: Instant, loss: flowlink_pb2.Loss, max_records: int = MAX_RECORDS
) -> Iterator[tuple[int, flowlink_pb2.Batch]]:
    """(records, batch), one at least: the losses of an interval without flows travel, too."""
    step_ms = max(1, -(-(end.boot_ns - start.boot_ns) // (_STEPS * 1_000_000)))
    interval = flowlink_pb2.Interval(
        start_wall_ns=start.wall_ns, end_wall_ns=max(end.wall_ns, start.wall_ns + 1), step_ms=step_ms
    )
    if not len(columns):
        yield 0, flowlink_pb2.Batch(interval=interval, processes=[""], loss=loss, crc32c=google_crc32c.value(b""))
        return
    shared = _share(columns, start, step_ms)
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


def _share(columns: FlowColumns, start: Instant, step_ms: int) -> _Interval:
    step_ns = np.uint64(step_ms) * _NS_PER_MS
    first_step = _since(columns.first_ns, start.boot_ns) // step_ns
    last_step = np.maximum(_since(columns.last_ns, start.boot_ns) // step_ns, first_step)
    word = columns.protocol.astype(np.uint64)
    for column in (columns.direction, columns.outcome, columns.confidence):
        word = word << np.uint64(8) | column
    word = word << np.uint64(16) | columns.error
    kind, kind_rows = factorize(word, columns.process[:, 0], columns.process[:, 1])
    return _Interval(
        columns=columns,
        sides=[_message(local) for local in columns.locals],
        packed={
            _COUNT: varints(np.minimum(columns.count, _MAX_COUNTER)),
            _TX_BYTES: varints(np.minimum(columns.tx_bytes, _MAX_COUNTER)),
            _RX_BYTES: varints(np.minimum(columns.rx_bytes, _MAX_COUNTER)),
            _FIRST_STEP: varints(np.minimum(first_step, _MAX_STEP)),
            _LONGEST_MS: varints(_whole_ms(columns.longest_ns)),
            _LASTED: varints(np.minimum(last_step - first_step, _MAX_STEP)),
        },
        kind=kind,
        kind_rows=kind_rows,
    )


def _batch(shared: _Interval, first: int, last: int) -> flowlink_pb2.Batch:
    columns = shared.columns
    local, used_locals = _renumber(columns.local[first:last])
    kind, used_kinds = _renumber(shared.kind[first:last])
    kinds, processes = _kinds(columns, shared.kind_rows[used_kinds])
    port, used_ports = _renumber(columns.port[first:last])
    words = columns.remote[first:last]
    remote, remote_rows = factorize(words[:, 0], words[:, 1])
    addresses = words[remote_rows]
    is_v4 = (addresses[:, 0] == _V4_MAPPED[0]) & (addresses[:, 1] & _V4_MASK == _V4_MAPPED[1])
    before = np.cumsum(is_v4, dtype=np.uint32)  # the IPv4 ones come first
    place = np.where(is_v4, before - 1, np.arange(len(addresses), dtype=np.uint32) + before[-1] - before)
    own = {_LOCAL: local, _REMOTE: place[remote], _KIND: kind, _PORT: port}
    parts = []
    for field in _FIELDS:
        data = varints(own[field]).data if field in own else shared.packed[field].slice(first, last)
        parts += [_number(field << 3 | 2), _number(len(data)), data]
    serialized = b"".join(parts)
    batch = flowlink_pb2.Batch(
        locals=[shared.sides[number] for number in used_locals],
        remotes4=np.ascontiguousarray(addresses[is_v4]).view("<u4")[:, 3].tobytes(),
        remotes=np.ascontiguousarray(addresses[~is_v4]).tobytes(),
        processes=processes,
        kinds=kinds,
        columns=serialized,
        crc32c=google_crc32c.value(serialized),
    )
    ports = varints(used_ports).data
    batch.MergeFromString(b"".join((_number(_PORTS << 3 | 2), _number(len(ports)), ports)))
    return batch


def _kinds(columns: FlowColumns, rows: Words) -> tuple[list[flowlink_pb2.Kind], list[str]]:
    """The table of the kinds that these rows are of, and the table of processes that it points into."""
    processes = {"": 0}  # index 0 is unknown
    kinds = [
        flowlink_pb2.Kind(
            protocol=int(columns.protocol[row]),
            direction=cast("flowlink_pb2.Direction.ValueType", int(columns.direction[row])),
            outcome=cast("flowlink_pb2.Outcome.ValueType", int(columns.outcome[row])),
            errno=int(columns.error[row]),
            confidence=cast("flowlink_pb2.Confidence.ValueType", int(columns.confidence[row])),
            process=processes.setdefault(process_text(columns.process[row].tobytes()), len(processes)),
        )
        for row in rows.tolist()
    ]
    return kinds, list(processes)


def _renumber(numbers: Words) -> tuple[Words, Words]:
    """Dense numbers in place of sparse ones, and which they stand for; the universe is small."""
    seen = np.zeros(int(numbers.max()) + 1, np.bool_)
    seen[numbers] = True
    used = np.flatnonzero(seen)
    dense = np.empty(len(seen), np.uint32)
    dense[used] = np.arange(len(used), dtype=np.uint32)
    return dense[numbers], used


def _whole_ms(times_ns: Words) -> Words:
    """Rounded up; a multiplication, because a remainder costs a division more."""
    ms: Words = times_ns // _NS_PER_MS
    ms += ms * _NS_PER_MS != times_ns
    return ms


def _since(times_ns: Words, start_ns: int) -> Words:
    start = np.uint64(start_ns)
    return np.maximum(times_ns, start) - start


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


@lru_cache(maxsize=4096)  # a side has many batches; Batch() copies it
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
