"""Reads a BPF ring buffer through its shared pages.

Enters: the map's descriptor. Leaves: each committed record's bytes, once, in order.
Invariant: the consumer position moves only after a record was copied out. Format: kernel/bpf/ringbuf.c.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER_BYTES: Final = 8
_BUSY, _DISCARD = 1 << 31, 1 << 30
_U64, _U32 = struct.Struct("<Q"), struct.Struct("<I")


class RingBuffer:
    """One consumer; readable when records wait, so an event loop can watch `fileno()`."""

    def __init__(self, map_fd: int, size_bytes: int) -> None:
        page = os.sysconf("SC_PAGESIZE")
        self._fd = map_fd
        self._mask = size_bytes - 1
        self._page = page
        self._consumer = mmap.mmap(map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        # The data pages are mapped twice in a row, so a record that wraps is contiguous.
        self._producer = mmap.mmap(map_fd, page + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)

    def fileno(self) -> int:
        return self._fd

    def records(self) -> Iterator[bytes]:
        position = _U64.unpack_from(self._consumer)[0]
        while position < _U64.unpack_from(self._producer)[0]:
            start = self._page + (position & self._mask)
            (header,) = _U32.unpack_from(self._producer, start)
            if header & _BUSY:
                return
            length = header & ~(_BUSY | _DISCARD)
            data = self._producer[start + _HEADER_BYTES : start + _HEADER_BYTES + length]
            position += (length + _HEADER_BYTES + 7) & ~7
            _U64.pack_into(self._consumer, 0, position)
            if not header & _DISCARD:
                yield data

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
