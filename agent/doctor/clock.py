"""Is the node's clock kept right? Flows are given to whoever had an address when they happened.

Enters: the kernel's own word, by adjtimex(2). Leaves: a finding.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Final

from agent.doctor.finding import Finding, poor, well

if TYPE_CHECKING:
    from collections.abc import Callable

STA_UNSYNC: Final = 0x40
_TIMEX_BYTES: Final = 208  # struct timex on 64-bit Linux; the status is at offset 40
_STATUS_OFFSET: Final = 40


def kernel_status() -> int:
    """timex.status. Reading needs no right."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(buffer) < 0:
        return 0
    status: int = struct.unpack_from("i", buffer.raw, _STATUS_OFFSET)[0]
    return status


def check_clock(status: Callable[[], int] = kernel_status) -> Finding:
    if status() & STA_UNSYNC:
        return poor(
            "clock",
            "nothing keeps it right (the kernel calls it unsynchronised)",
            "run chrony or systemd-timesyncd on the node; a virtual machine may have its host keep it",
        )
    return well("clock", "synchronised")
