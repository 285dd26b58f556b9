"""perf_event_open(2), as far as kprobes need it.

Enters: a kernel function's name. Leaves: the descriptor of an event that a program can be attached to.
Invariant: nothing here keeps state; the event ends with its descriptor, or with the link that was made on it.
Layout: struct perf_event_attr of include/uapi/linux/perf_event.h, its first 72 bytes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path
from typing import Final

from agent.errors import BpfSyscallError, KernelError

KPROBE_EVENTS: Final = Path("/sys/kernel/tracing/kprobe_events")
_KPROBE_UNIT: Final = Path("/sys/bus/event_source/devices/kprobe/type")
_SYSCALL_NUMBERS: Final = {"x86_64": 298, "aarch64": 241}
_ATTR: Final = struct.Struct("<IIQQQQQIIQQ")
_TRACEPOINT: Final = 2  # enum perf_type_id
_CLOSE_ON_EXEC: Final = 8
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def kprobe_event(function: str) -> int:
    doing = f"probing {function}"
    name = ctypes.create_string_buffer(function.encode("ascii"))
    try:
        unit = int(_KPROBE_UNIT.read_text(encoding="ascii"))
    except OSError as exc:
        raise KernelError(f"{doing}: this kernel has no kprobes ({_KPROBE_UNIT}: {exc.strerror})") from exc
    return _open(unit, config=0, config1=ctypes.addressof(name), doing=doing)


def kretprobe_event(function: str, *, max_active: int) -> int:
    """By tracefs, where alone `max_active` can be told. Its event stays there, named after the process that made it."""
    name = f"r_{function}_bcc_{os.getpid()}"
    doing = f"probing the return of {function}"
    try:
        change_probes(f"r{max_active}:kprobes/{name} {function}")
        number = int((KPROBE_EVENTS.parent / "events" / "kprobes" / name / "id").read_text(encoding="ascii"))
    except OSError as exc:
        raise KernelError(f"{doing} by {KPROBE_EVENTS}: {exc}") from exc
    return _open(_TRACEPOINT, config=number, config1=0, doing=doing)


def change_probes(line: str, events: Path = KPROBE_EVENTS) -> None:
    """Add a line. Not by open("a"): Python would seek to the end, which this file refuses (EINVAL)."""
    descriptor = os.open(events, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{line}\n".encode("ascii"))
    finally:
        os.close(descriptor)


def _open(unit: int, *, config: int, config1: int, doing: str) -> int:
    number = _SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        raise KernelError(f"{doing}: perf_event_open(2) has no known number on {platform.machine()}")
    attr = ctypes.create_string_buffer(_ATTR.pack(unit, _ATTR.size, config, 1, 0, 0, 0, 1, 0, config1, 0))
    # A program runs on every CPU, whichever its event is opened on.
    fd = int(_LIBC.syscall(number, ctypes.byref(attr), -1, 0, -1, _CLOSE_ON_EXEC))
    if fd < 0:
        raise BpfSyscallError(doing, ctypes.get_errno())
    return fd
