"""How one batch lies in a segment file, and how a damaged file is read.

Enters: serialised messages, or the bytes of a segment. Leaves: framed records, or the records that are whole.
Invariant: a record that `scan` returns is, bit for bit, one that `frame` made; damage costs only the records it
touches, because every record starts with a mark that a reader can find again.

    segment = SEGMENT_HEADER(magic, version, epoch, first seq, crc) record*
    record  = RECORD_HEADER(magic, seq, length, flow records, crc over the rest of the header and the payload) payload
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c

RECORD_MAGIC = b"WtlR"
SEGMENT_MAGIC = b"WtlS"
VERSION = 1

_SEGMENT = struct.Struct("<4sIQQI")
_RECORD = struct.Struct("<4sQIII")
SEGMENT_HEADER_BYTES = _SEGMENT.size
RECORD_HEADER_BYTES = _RECORD.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Where one whole record lies in its segment."""

    seq: int
    flow_records: int
    offset: int  # of the payload
    length_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What is left of a segment."""

    records: list[Record]
    end: int  # where the last whole record ends
    damaged_bytes: int  # bytes that belong to no whole record, anywhere
    tail_bytes: int  # those of them after `end`


def segment_header(*, epoch: int, first_seq: int) -> bytes:
    body = _SEGMENT.pack(SEGMENT_MAGIC, VERSION, epoch, first_seq, 0)[:-4]
    return body + struct.pack("<I", google_crc32c.value(body))


def read_segment_header(data: bytes) -> tuple[int, int] | None:
    """(epoch, first seq), or None when the header is damaged."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    magic, version, epoch, first_seq, crc = _SEGMENT.unpack_from(data)
    if magic != SEGMENT_MAGIC or version != VERSION or google_crc32c.value(data[: SEGMENT_HEADER_BYTES - 4]) != crc:
        return None
    return epoch, first_seq


def frame(*, seq: int, flow_records: int, payload: bytes) -> bytes:
    return _RECORD.pack(RECORD_MAGIC, seq, len(payload), flow_records, record_crc(seq, flow_records, payload)) + payload


def record_crc(seq: int, flow_records: int, payload: bytes) -> int:
    header_crc = google_crc32c.value(struct.pack("<QII", seq, len(payload), flow_records))
    return int(google_crc32c.extend(header_crc, payload))


def scan(data: bytes) -> Scan:
    """Every whole record of a segment, however damaged the rest is."""
    records = list(_whole_records(data))
    end = records[-1].offset + records[-1].length_bytes if records else min(SEGMENT_HEADER_BYTES, len(data))
    whole_bytes = sum(RECORD_HEADER_BYTES + record.length_bytes for record in records)
    return Scan(
        records=records,
        end=end,
        damaged_bytes=max(0, len(data) - SEGMENT_HEADER_BYTES) - whole_bytes,
        tail_bytes=len(data) - end,
    )


def _whole_records(data: bytes) -> Iterator[Record]:
    position = SEGMENT_HEADER_BYTES
    last_seq = 0
    while (position := data.find(RECORD_MAGIC, position)) >= 0:
        record = _record_at(data, position)
        if record is None or record.seq <= last_seq:
            position += 1
            continue
        last_seq = record.seq
        yield record
        position = record.offset + record.length_bytes


def _record_at(data: bytes, position: int) -> Record | None:
    start = position + RECORD_HEADER_BYTES
    if start > len(data):
        return None
    _, seq, length, flow_records, crc = _RECORD.unpack_from(data, position)
    payload = data[start : start + length]
    if len(payload) != length or record_crc(seq, flow_records, payload) != crc:
        return None
    return Record(seq=seq, flow_records=flow_records, offset=start, length_bytes=length)
