"""Reads a container's identity out of its control group's path.

Enters: a path, as the kernel or /proc/<pid>/cgroup writes it. Leaves: `ContainerPath`, or None for anything else.
Invariant: no path gives the UID of a pod that it does not name; what is doubtful is None.

Shapes seen: kubelet with the systemd or cgroupfs driver, cgroup v1 and v2, containerd, CRI-O (also its nested
`container` scope), docker, kind (nested kubelet), an agent inside a cgroup namespace (`/../..`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# A UID is a component's end: "pod<uid>", "kubepods-burstable-pod<uid with _>.slice", or, where containerd's cgroupfs
# driver meets a systemd kubelet, "...-pod<uid>.slice:cri-containerd:<id>". Static pods have the hash of their manifest.
_POD: Final = re.compile(
    r"(?:^|-)pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=$|:)"
)
_CONTAINER: Final = re.compile(r"(?:^|[:-])([0-9a-f]{64})(?:\.scope)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPath:
    """`container_id` is "" for the pod's own group."""

    pod_uid: str
    container_id: str


def parse(path: str) -> ContainerPath | None:
    uid = container = ""
    kubepods = False
    for component in path.strip().split("/"):
        kubepods = kubepods or "kubepods" in component
        pod = _POD.search(component)
        if pod is not None and kubepods:
            if uid:
                return None  # two pods in one path: a cluster inside a pod; whose it is cannot be told
            uid = pod[1].replace("_", "-")
        if uid:
            found = _CONTAINER.search(component)
            if found is not None and not container:
                container = found[1]
    return ContainerPath(pod_uid=uid, container_id=container) if uid else None
