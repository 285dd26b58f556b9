"""bpf(2), as far as the agent needs it, without a library.

Enters: file descriptors and buffers. Leaves: their contents, or BpfSyscallError with errno and what was being done.
Invariant: nothing here keeps state; who holds a descriptor owns what it stands for.
Layouts: union bpf_attr of include/uapi/linux/bpf.h, one struct a command.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from agent.errors import BpfSyscallError, KernelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SYSCALL_NUMBERS: Final = {"x86_64": 321, "aarch64": 280}
_ATTR_BYTES: Final = 128
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_ARRAY = 2  # enum bpf_map_type
_MAP_CREATE = 0
_MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_GET_NEXT_KEY = 1, 2, 3, 4
_OBJ_PIN, _OBJ_GET, _OBJ_GET_INFO = 6, 7, 15
_RAW_TRACEPOINT_OPEN = 17
_BATCH_LOOKUP, _BATCH_LOOKUP_AND_DELETE, _LINK_CREATE, _ENABLE_STATS = 24, 25, 28, 32
UPDATE_ANY, UPDATE_NO_EXIST = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MapInfo:
    map_type: int
    map_id: int
    key_bytes: int
    value_bytes: int
    max_entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramInfo:
    """`run_time_ns` and `runs` stay 0 unless kernel.bpf_stats_enabled is on.

    `missed` counts always: a program that is interrupted by an event of its own is not run again on top of itself
    (kernel/trace/bpf_trace.c, __bpf_trace_run), and that event passes it by.
    """

    name: str
    run_time_ns: int
    runs: int
    missed: int


def _number(doing: str) -> int:
    number = _SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        raise KernelError(f"{doing}: bpf(2) has no known number on {platform.machine()}")
    return number


def _call(command: int, attr: bytearray, doing: str, *, accept: tuple[int, ...] = ()) -> tuple[int, int]:
    number = _number(doing)
    buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
    result = int(_LIBC.syscall(number, command, ctypes.byref(buffer), len(attr)))
    failure = ctypes.get_errno() if result < 0 else 0
    if failure and failure not in accept:
        raise BpfSyscallError(doing, failure)
    return result, failure


def _attr(layout: str, *values: int) -> bytearray:
    attr = bytearray(_ATTR_BYTES)
    struct.pack_into(layout, attr, 0, *values)
    return attr


def lookup(map_fd: int, key: bytes, value_bytes: int) -> bytes | None:
    keys, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value_bytes)
    attr = _attr("<IIQQQ", map_fd, 0, ctypes.addressof(keys), ctypes.addressof(value), 0)
    _, failure = _call(_MAP_LOOKUP, attr, "looking up a map entry", accept=(errno.ENOENT,))
    return None if failure else value.raw


def update(map_fd: int, key: bytes, value: bytes, flags: int = UPDATE_ANY) -> bool:
    """False when the entry is there already and `flags` is UPDATE_NO_EXIST."""
    keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    attr = _attr("<IIQQQ", map_fd, 0, ctypes.addressof(keys), ctypes.addressof(values), flags)
    _, failure = _call(_MAP_UPDATE, attr, "updating a map entry", accept=(errno.EEXIST,))
    return not failure


def delete(map_fd: int, key: bytes) -> None:
    keys = ctypes.create_string_buffer(key, len(key))
    attr = _attr("<IIQQQ", map_fd, 0, ctypes.addressof(keys), 0, 0)
    _call(_MAP_DELETE, attr, "deleting a map entry", accept=(errno.ENOENT,))


def clear(map_fd: int, key_bytes: int) -> None:
    """Delete every entry that is there; others may come meanwhile."""
    key = ctypes.create_string_buffer(key_bytes)
    attr = _attr("<IIQQ", map_fd, 0, 0, ctypes.addressof(key))
    for _ in range(map_info(map_fd).max_entries):
        _, failure = _call(_MAP_GET_NEXT_KEY, attr, "walking a map", accept=(errno.ENOENT,))
        if failure:
            return
        delete(map_fd, key.raw)


def set_inner_map(outer_fd: int, inner_fd: int) -> None:
    """Make `inner_fd` the map behind slot 0. Returns after every program that still used the other one has ended."""
    update(outer_fd, struct.pack("<I", 0), struct.pack("<I", inner_fd))


def inner_map_id(outer_fd: int) -> int | None:
    """The map behind slot 0; None while there is none."""
    found = lookup(outer_fd, struct.pack("<I", 0), 4)
    return None if found is None else int(struct.unpack("<I", found)[0])


def unset_inner_map(outer_fd: int) -> None:
    """Returns after every program that still used the inner map has ended; from then on they find none."""
    delete(outer_fd, struct.pack("<I", 0))


def create_array(value_bytes: int) -> int:
    """One value in the kernel's memory that user space can map; it lives as long as a descriptor or a pin."""
    mappable = 1 << 10  # BPF_F_MMAPABLE
    fd, _ = _call(_MAP_CREATE, _attr("<IIIII", _ARRAY, 4, value_bytes, 1, mappable), "making an array map")
    return fd


def batch_attr(*, in_token: int, out_token: int, keys: int, values: int, capacity: int, map_fd: int) -> NDArray[Any]:
    """Union bpf_attr of a batch command, addresses as numbers, for `take_batch`."""
    return np.frombuffer(_attr("<QQQQIIQQ", in_token, out_token, keys, values, capacity, map_fd, 0, 0), np.uint64)


def take_batch(attr_address: int) -> bool:
    """Move entries out of a hash map, as the union bpf_attr at this address says; whether those were the last.

    The kernel writes the number of entries into the attr, and both only once it has moved them.
    """
    result = _LIBC.syscall(
        _number("draining a map"), _BATCH_LOOKUP_AND_DELETE, ctypes.c_void_p(attr_address), _ATTR_BYTES
    )
    failure = ctypes.get_errno() if result < 0 else 0
    if failure not in (0, errno.ENOENT, errno.ENOSPC):  # the end; a bucket that is larger than the room
        raise BpfSyscallError("draining a map", failure)
    return failure == errno.ENOENT


class BatchCursor:
    """Walks one hash map in batches, straight into the caller's memory; the entries stay."""

    def __init__(self, map_fd: int) -> None:
        self._map_fd = map_fd
        self._token = ctypes.create_string_buffer(64)
        self._next_token = ctypes.create_string_buffer(64)
        self._started = False
        self.exhausted = False

    def read(self, keys_address: int, values_address: int, capacity: int) -> int:
        """Read up to `capacity` entries and say how many; 0 with `exhausted` unset means that more room is needed."""
        token = ctypes.addressof(self._token) if self._started else 0
        attr = _attr(
            "<QQQQIIQQ",
            token,
            ctypes.addressof(self._next_token),
            keys_address,
            values_address,
            capacity,
            self._map_fd,
            0,
            0,
        )
        accept = (errno.ENOENT, errno.ENOSPC)  # the end; a bucket that is larger than the room
        _, failure = _call(_BATCH_LOOKUP, attr, "reading a map", accept=accept)
        (count,) = struct.unpack_from("<I", attr, 32)
        if failure == errno.ENOSPC:
            return 0
        self.exhausted = failure == errno.ENOENT
        self._started = True
        self._token, self._next_token = self._next_token, self._token
        return int(count)


def map_info(fd: int) -> MapInfo:
    info = _info(fd, 88, "reading a map's description")
    map_type, map_id, key_bytes, value_bytes, max_entries = struct.unpack_from("<IIIII", info)
    return MapInfo(
        map_type=map_type, map_id=map_id, key_bytes=key_bytes, value_bytes=value_bytes, max_entries=max_entries
    )


def program_info(fd: int) -> ProgramInfo:
    """Struct bpf_prog_info: name at 64, run_time_ns at 192, run_cnt at 200, recursion_misses at 208."""
    info = _info(fd, 224, "reading a program's description")
    run_time_ns, runs, missed = struct.unpack_from("<QQQ", info, 192)
    name = info[64:80].split(b"\0", 1)[0].decode("ascii", "replace")
    return ProgramInfo(name=name, run_time_ns=run_time_ns, runs=runs, missed=missed)


def _info(fd: int, length: int, doing: str) -> bytes:
    buffer = ctypes.create_string_buffer(length)
    _call(_OBJ_GET_INFO, _attr("<IIQ", fd, length, ctypes.addressof(buffer)), doing)
    return buffer.raw


def pin(fd: int, path: str) -> None:
    name = ctypes.create_string_buffer(os.fsencode(path))
    _call(_OBJ_PIN, _attr("<QI", ctypes.addressof(name), fd), f"pinning {path}")


def get_pinned(path: str) -> int:
    name = ctypes.create_string_buffer(os.fsencode(path))
    fd, _ = _call(_OBJ_GET, _attr("<QI", ctypes.addressof(name), 0), f"opening the pin {path}")
    return fd


def link_create(program_fd: int, target_fd: int, attach_type: int, doing: str) -> int:
    """Attach by a link, which ends with its descriptors and pins; BPF_PROG_ATTACH would outlive a killed process."""
    fd, _ = _call(_LINK_CREATE, _attr("<IIII", program_fd, target_fd, attach_type, 0), doing)
    return fd


def raw_tracepoint_open(program_fd: int, name: str) -> int:
    """Attach while the returned descriptor is open; any number of programs may share a tracepoint."""
    text = ctypes.create_string_buffer(name.encode("ascii"))
    attr = _attr("<QI", ctypes.addressof(text), program_fd)
    fd, _ = _call(_RAW_TRACEPOINT_OPEN, attr, f"attaching to the tracepoint {name}")
    return fd


def enable_stats() -> int:
    """Time every program while the returned descriptor is open; needs rights the agent may not have."""
    fd, _ = _call(_ENABLE_STATS, _attr("<I", 0), "enabling run time statistics")
    return fd
