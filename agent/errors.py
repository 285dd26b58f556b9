"""Everything the agent raises, as one tree.

AgentError
|-- ConfigError            what a person set cannot be used; every fault is named at once
|-- AlreadyRunningError    another agent holds this node's pinned maps
|-- SpoolError             the spool's directory cannot be used
|-- StreamError            the aggregator cannot be spoken to as configured
+-- KernelError            the kernel refused, or its data cannot be read
    |-- BtfError           /sys/kernel/btf/vmlinux, or what should be it, cannot be understood
    |-- BpfSyscallError    bpf(2) failed; carries errno
    |-- LayoutError        a map's keys or values are not the size this agent was written for
    |-- LoaderError        the loader child failed; carries its own words
    |-- NoBackendError     no backend loads here; carries each one's reason
    +-- SelfTestError      loaded and attached, yet a known connection was not seen as it was
"""

from __future__ import annotations

import os


class AgentError(Exception):
    """Base of everything the agent raises."""


class ConfigError(AgentError):
    pass


class AlreadyRunningError(AgentError):
    pass


class SpoolError(AgentError):
    pass


class StreamError(AgentError):
    pass


class KernelError(AgentError):
    pass


class BtfError(KernelError):
    pass


class BpfSyscallError(KernelError):
    def __init__(self, doing: str, errno_value: int) -> None:
        super().__init__(f"{doing}: {os.strerror(errno_value)} (errno {errno_value})")
        self.errno = errno_value


class LayoutError(KernelError):
    pass


class LoaderError(KernelError):
    pass


class NoBackendError(KernelError):
    pass


class SelfTestError(KernelError):
    pass
