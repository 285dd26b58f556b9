"""Pod and container names, from the folders in which the kubelet keeps their logs.

Enters: /var/log/pods/<namespace>_<pod>_<uid>/<container>/, read-only. Leaves: `PodNames` by pod UID.
Invariant: a name comes from a folder that carries the UID; no Kubernetes client, no rights and no watch on any node.
A container's own name needs one more step when its pod has several: /var/log/containers holds, beside it, one link
<pod>_<namespace>_<container>-<id>.log each.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FOLDER: Final = re.compile(
    r"^([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)_([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)_([0-9a-f-]{32,36})$"
)
_REMEMBERED: Final = 16_384

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodNames:
    namespace: str
    pod: str


class PodLogs:
    """Remembers what it read: a folder may be gone when its pod's last flow arrives."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._containers_directory = directory.parent / "containers"
        self._pods: dict[str, PodNames] = {}
        self._containers: dict[tuple[str, str], str] = {}

    def names(self, pod_uid: str) -> PodNames | None:
        found = self._pods.get(pod_uid)
        if found is None:
            self._read()
            found = self._pods.get(pod_uid)
        return found

    def container_name(self, pod_uid: str, container_id: str) -> str:
        """Empty when it cannot be told yet."""
        if not container_id:
            return ""
        known = self._containers.get((pod_uid, container_id))
        if known is None:
            known = self._find_container(pod_uid, container_id)
            if known:
                _remember(self._containers, (pod_uid, container_id), known)
        return known

    def _read(self) -> None:
        for name in _listing(self._directory):
            match = _FOLDER.match(name)
            if match is not None:
                _remember(self._pods, match[3], PodNames(namespace=match[1], pod=match[2]))

    def _find_container(self, pod_uid: str, container_id: str) -> str:
        names = self.names(pod_uid)
        if names is None:
            return ""
        folder = self._directory / f"{names.namespace}_{names.pod}_{pod_uid}"
        containers = [name for name in _listing(folder) if (folder / name).is_dir()]
        if len(containers) == 1:
            return containers[0]
        prefix, suffix = f"{names.pod}_{names.namespace}_", f"-{container_id}.log"
        for container in containers:
            if (self._containers_directory / f"{prefix}{container}{suffix}").is_symlink():
                return container
        return ""


def _listing(directory: Path) -> Iterable[str]:
    with suppress(OSError):
        return sorted(path.name for path in directory.iterdir())
    return ()


def _remember(known: dict[Key, Value], key: Key, value: Value) -> None:
    known.pop(key, None)
    while len(known) >= _REMEMBERED:
        del known[next(iter(known))]
    known[key] = value
