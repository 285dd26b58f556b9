"""The cluster's address ranges, as its own control plane was told them.

Enters: /proc/<pid>/cmdline of processes with the names given. Leaves: `CidrHint`s, values as written.
Invariant: only arguments that are known to hold ranges are read; nothing else of a command line leaves the node.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FLAGS: Final = ("--service-cluster-ip-range", "--cluster-cidr", "--service-cidr", "--pod-network-cidr")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CidrHint:
    process: str
    flag: str
    value: str


def find_cidrs(proc: Path, processes: Iterable[str]) -> list[CidrHint]:
    wanted = frozenset(processes)
    hints: set[CidrHint] = set()
    for directory in proc.glob("[0-9]*"):
        with suppress(OSError):
            arguments = (directory / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            name = arguments[0].rsplit("/", 1)[-1]
            if name in wanted:
                hints.update(_ranges(name, arguments[1:]))
    return sorted(hints)


def _ranges(process: str, arguments: list[str]) -> Iterable[CidrHint]:
    for position, argument in enumerate(arguments):
        flag, separator, value = argument.partition("=")
        if flag in FLAGS:
            if not separator:
                value = arguments[position + 1] if position + 1 < len(arguments) else ""
            if value:
                yield CidrHint(process=process, flag=flag, value=value)
