"""The spool's files: segments of records, and a small journal of what sequence numbers may have been used.

Enters: framed batches. Leaves: the batches again, also after kill -9, a torn write, bit flips or a full disk.
Invariant: a sequence number that may have left this node is never given to another batch. After kill -9 the page
cache still holds every write, so the segments tell exactly; after a reboot, a damaged tail or a time of full disk they
do not, and numbering goes on behind the block that the journal had reserved.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import struct
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c

from agent.errors import SpoolError
from agent.spool.records import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Record,
    frame,
    read_segment_header,
    record_crc,
    scan,
    segment_header,
)

RESERVED_BLOCK = 1024
MAX_LINEAGE = 64
_STATE = struct.Struct("<4sQQ16sBB64QI")  # magic, epoch, reserved through, boot, degraded, lineage length, lineage, crc
_STATE_MAGIC = b"WtlJ"
_COPIES = 2  # the state is written twice, so that one bit flip does not cost the epoch


@dataclass(slots=True, kw_only=True)
class State:
    """What must survive beside the batches."""

    epoch: int
    reserved_through: int
    boot: bytes
    degraded: bool = False  # sequence numbers were given to batches that are not on the disk
    lineage: list[int] = field(default_factory=list)

    def encode(self) -> bytes:
        lineage = self.lineage[-MAX_LINEAGE:]
        body = _STATE.pack(
            _STATE_MAGIC,
            self.epoch,
            self.reserved_through,
            self.boot,
            self.degraded,
            len(lineage),
            *lineage,
            *([0] * (MAX_LINEAGE - len(lineage))),
            0,
        )[:-4]
        return body + struct.pack("<I", google_crc32c.value(body))

    @classmethod
    def decode(cls, data: bytes) -> "State | None":
        if len(data) != _STATE.size or google_crc32c.value(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            return None
        magic, epoch, reserved, boot, degraded, length, *rest = _STATE.unpack(data)
        if magic != _STATE_MAGIC:
            return None
        return cls(
            epoch=epoch, reserved_through=reserved, boot=boot, degraded=bool(degraded), lineage=list(rest[:length])
        )


@dataclass(slots=True, kw_only=True)
class Segment:
    """One file. `last_seq` is 0 while it is empty."""

    path: Path
    first_seq: int
    last_seq: int = 0
    size_bytes: int = SEGMENT_HEADER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was on the disk at start."""

    epoch: int
    next_seq: int
    lineage: list[int]
    records: list[tuple[Segment, Record]]
    damaged_bytes: int


def new_epoch() -> int:
    return secrets.randbits(64) | 1


class Journal:
    """The directory of one spool, locked for this process."""

    def __init__(self, directory: Path, *, boot_id: str, segment_bytes: int) -> None:
        self._directory = directory
        self._boot = hashlib.blake2b(boot_id.encode(), digest_size=16).digest()
        self._segment_bytes = segment_bytes
        directory.mkdir(parents=True, exist_ok=True)
        self._lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            message = f"another agent uses the spool in {directory}"
            raise SpoolError(message) from error
        self._state_fd = os.open(directory / "journal", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._segments: list[Segment] = []
        self._fd = -1
        self._state = State(epoch=new_epoch(), reserved_through=0, boot=self._boot)

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def segments(self) -> list[Segment]:
        return self._segments

    # ---- start ------------------------------------------------------------------------------------------------------

    def open(self) -> Found:
        """Read what is there and get ready to append."""
        state = self._read_state()
        damaged = 0
        found: list[tuple[Segment, Record]] = []
        epoch = state.epoch if state else 0
        highest = 0
        tail_is_damaged = state is None
        for path in sorted(self._directory.glob("*.seg")):
            data = path.read_bytes()
            header = read_segment_header(data)
            if header is None or (epoch and header[0] != epoch):
                # Unreadable, or left over from an epoch that was given up: how far it counted is bounded by its size.
                damaged += len(data)
                if header is None:
                    tail_is_damaged = True
                    highest = max(highest, int(path.stem, 16) + len(data) // RECORD_HEADER_BYTES)
                path.unlink()
                continue
            epoch = header[0]
            result = scan(data)
            damaged += result.damaged_bytes
            segment = Segment(path=path, first_seq=header[1], size_bytes=len(data))
            self._segments.append(segment)
            highest = max(highest, header[1] - 1)
            for record in result.records:
                found.append((segment, record))
                segment.last_seq = record.seq
                highest = max(highest, record.seq)
            if result.tail_bytes:
                tail_is_damaged = True
                highest += 1 + result.tail_bytes // RECORD_HEADER_BYTES
        exact = state is not None and not tail_is_damaged and not state.degraded and state.boot == self._boot
        if state is None and epoch:
            highest += RESERVED_BLOCK
        elif state is not None and not exact:
            highest = max(highest, state.reserved_through)
        self._state = State(
            epoch=epoch or new_epoch(),
            reserved_through=highest,
            boot=self._boot,
            lineage=state.lineage if state else [],
        )
        self._reserve(highest + 1)
        try:
            self._roll(highest + 1)
        except OSError:  # no room: what is there can still be sent, and that makes room
            self._fd = -1
        return Found(
            epoch=self._state.epoch,
            next_seq=highest + 1,
            lineage=list(self._state.lineage),
            records=found,
            damaged_bytes=damaged,
        )

    def _read_state(self) -> State | None:
        for copy in range(_COPIES):
            state = State.decode(os.pread(self._state_fd, _STATE.size, copy * 4096))
            if state is not None:
                return state
        return None

    # ---- life -------------------------------------------------------------------------------------------------------

    def append(self, *, seq: int, flow_records: int, payload: bytes) -> tuple[Segment, Record]:
        """Write one record. Raises OSError with nothing half-written that a reader would take for whole."""
        data = frame(seq=seq, flow_records=flow_records, payload=payload)
        if self._fd < 0 or self._segments[-1].size_bytes + len(data) > self._segment_bytes:
            self._roll(seq)
        segment = self._segments[-1]
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], segment.size_bytes + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, segment.size_bytes)
            raise
        record = Record(
            seq=seq,
            flow_records=flow_records,
            offset=segment.size_bytes + RECORD_HEADER_BYTES,
            length_bytes=len(payload),
        )
        segment.size_bytes += len(data)
        segment.last_seq = seq
        return segment, record

    def take(self, seq: int) -> None:
        """Say that `seq` is about to be used. Raises OSError."""
        if seq > self._state.reserved_through:
            self._reserve(seq)

    def set_degraded(self, *, degraded: bool) -> None:
        """Say that sequence numbers go to batches that are not on the disk (the file has its blocks already)."""
        if self._state.degraded != degraded:
            self._state.degraded = degraded
            self._write_state()

    def set_lineage(self, lineage: list[int]) -> None:
        self._state.lineage = lineage[-MAX_LINEAGE:]
        self._write_state()

    def read(self, segment: Segment, record: Record) -> bytes | None:
        """The payload, or None when the disk no longer has it as it was written."""
        try:
            with segment.path.open("rb") as file:
                file.seek(record.offset - RECORD_HEADER_BYTES)
                data = file.read(RECORD_HEADER_BYTES + record.length_bytes)
        except OSError:
            return None
        header = data[:RECORD_HEADER_BYTES]
        payload = data[RECORD_HEADER_BYTES:]
        crc = struct.unpack_from("<I", header, RECORD_HEADER_BYTES - 4)[0] if len(header) == RECORD_HEADER_BYTES else -1
        return payload if record_crc(record.seq, record.flow_records, payload) == crc else None

    def forget_through(self, seq: int) -> None:
        """Delete the segments that hold nothing after `seq`; the one being written stays."""
        while len(self._segments) > 1 and self._segments[0].last_seq <= seq:
            self._drop_oldest()

    def drop_oldest(self) -> Segment | None:
        """Delete the oldest segment for want of room."""
        return self._drop_oldest() if len(self._segments) > 1 else None

    def restart(self, *, epoch: int, lineage: list[int]) -> None:
        """Give up every record and count from 1 in a new epoch."""
        self._state = State(epoch=epoch, reserved_through=0, boot=self._boot, lineage=lineage)
        self._write_state()
        old, self._segments = self._segments, []
        for segment in old:
            with contextlib.suppress(OSError):
                segment.path.unlink()
        self._fd, old_fd = -1, self._fd
        if old_fd >= 0:
            os.close(old_fd)
        self._reserve(1)
        self._roll(1)

    def sync(self) -> None:
        """Make everything so far survive a power loss."""
        for fd in (self._fd, self._state_fd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.fdatasync(fd)

    def close(self) -> None:
        self.sync()
        for fd in (self._fd, self._state_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._state_fd = self._lock_fd = -1

    def _drop_oldest(self) -> Segment:
        segment = self._segments.pop(0)
        with contextlib.suppress(OSError):
            segment.path.unlink()
        return segment

    def _reserve(self, seq: int) -> None:
        self._state.reserved_through = max(self._state.reserved_through, seq + RESERVED_BLOCK - 1)
        self._write_state()

    def _write_state(self) -> None:
        data = self._state.encode()
        for copy in range(_COPIES):
            os.pwrite(self._state_fd, data, copy * 4096)

    def _roll(self, first_seq: int) -> None:
        """Start a new segment file."""
        path = self._directory / f"{first_seq:020x}.seg"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            header = segment_header(epoch=self._state.epoch, first_seq=first_seq)
            os.pwrite(fd, header, 0)  # 28 bytes in one page: whole or ENOSPC
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.fdatasync(self._fd)
            os.close(self._fd)
        self._fd = fd
        # An empty segment of the same name was just truncated: it is this one now.
        self._segments = [segment for segment in self._segments if segment.path != path]
        self._segments.append(Segment(path=path, first_seq=first_seq))
