"""The ways to hook a kernel, as data.

Enters: nothing. Leaves: `Backend` values that the loader tries in order; what a kernel allows is found by loading,
never by a feature flag: BPF_PROG_LOAD can refuse what every flag promises (lockdown).
Invariant: every backend fills the same maps through the same C source; a third (fentry) is one more value here and one
more block of hooks at the end of flows.bpf.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.errors import ConfigError

AGAIN: Final = "_again"  # ends the name of a hook's second program


class BackendName(StrEnum):
    """What a person may ask for."""

    AUTO = "auto"
    KPROBE = "kprobe"
    TRACEPOINT = "tracepoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTracepoint:
    """`twice`: hooked by two programs, so that an event which interrupts one of them is still seen by the other."""

    name: str
    required: bool = True
    twice: bool = False

    @property
    def function(self) -> str:
        return f"hook_{self.name}"

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of its programs, in the order in which the kernel shall run them."""
        return (self.name, f"{self.name}{AGAIN}") if self.twice else (self.name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kprobe:
    name: str
    required: bool = True

    @property
    def function(self) -> str:
        return f"hook_{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kretprobe:
    """`max_active` bounds the calls in flight; the default, 2 per CPU, lost 30 of 40 blocked acceptors."""

    name: str
    max_active: int
    required: bool = True

    @property
    def function(self) -> str:
        return f"hook_{self.name}_return"


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupHook:
    name: str
    attach_type: int  # enum bpf_attach_type
    required: bool = True

    @property
    def function(self) -> str:
        return f"hook_{self.name}"


Hook = RawTracepoint | Kprobe | Kretprobe | CgroupHook


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    name: BackendName
    defines: tuple[str, ...]
    hooks: tuple[Hook, ...]
    remark: str = ""  # what this variant cannot see


_EVERY: Final[tuple[Hook, ...]] = (
    RawTracepoint(name="inet_sock_set_state", twice=True),
    RawTracepoint(
        name="inet_sk_error_report", twice=True, required=False
    ),  # since 5.15; without it ICMP errors read "aborted"
    RawTracepoint(name="cgroup_mkdir", required=False),
)
_CGROUP: Final[tuple[Hook, ...]] = (
    CgroupHook(name="sendmsg4", attach_type=14),
    CgroupHook(name="sendmsg6", attach_type=15),
    CgroupHook(name="recvmsg4", attach_type=19),
    CgroupHook(name="recvmsg6", attach_type=20),
)

KPROBE: Final = Backend(
    name=BackendName.KPROBE,
    defines=("BACKEND_KPROBE",),
    hooks=(
        *_EVERY,
        Kprobe(name="tcp_connect"),
        Kretprobe(name="inet_csk_accept", max_active=512),
        Kprobe(name="udp_sendmsg"),
        Kprobe(name="udpv6_sendmsg", required=False),  # a kernel without IPv6
        Kprobe(name="skb_consume_udp"),
    ),
)
TRACEPOINT: Final = Backend(
    name=BackendName.TRACEPOINT,
    defines=("BACKEND_TRACEPOINT", "CONNECT_BY_STATE"),
    hooks=(
        *_EVERY,
        RawTracepoint(name="sock_send_length"),
        RawTracepoint(name="sock_recv_length"),
        *_CGROUP,
    ),
)
TRACEPOINT_WITHOUT_LENGTHS: Final = Backend(
    name=BackendName.TRACEPOINT,
    defines=("BACKEND_TRACEPOINT", "CONNECT_BY_STATE", "WITHOUT_LENGTHS"),
    hooks=(
        *_EVERY,
        *_CGROUP,
        CgroupHook(name="connect4", attach_type=10),
        CgroupHook(name="connect6", attach_type=11),
    ),
    remark="UDP is seen, not counted: this kernel has no tracepoint sock_send_length (6.3)",
)

_ORDER: Final = (KPROBE, TRACEPOINT, TRACEPOINT_WITHOUT_LENGTHS)


def candidates(wanted: BackendName) -> tuple[Backend, ...]:
    """Backends to try, best first."""
    chosen = tuple(backend for backend in _ORDER if wanted in (BackendName.AUTO, backend.name))
    if not chosen:
        raise ConfigError(f"no backend is called {wanted}")
    return chosen
