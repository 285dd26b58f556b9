"""The kubelet's cgroups: where a container's processes sit, in every hierarchy this machine has.

Everything of a lab hangs below one directory `wl-<lab>`, as a kubelet's does below its --cgroup-root, so that whatever
a killed lab left is found by that name alone. On a hybrid machine the v1 pids and memory trees carry the same path.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from lab.errors import CommandError, MachineError
from lab.scenario import Manifest

PREFIX = "wl-"
V1_CONTROLLERS = {"pids", "memory"}


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """One lab's directory in each hierarchy; v2 first."""

    roots: tuple[Path, ...]

    def make(self, path: str) -> list[Path]:
        made = [root / path for root in self.roots]
        for directory in made:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise MachineError(
                    f"cannot make the cgroup {directory}: {error.strerror}; run on the host itself"
                ) from error
        return made

    def remove(self, path: str = "", deadline_seconds: float = 10.0) -> set[int]:
        """Kill what runs there and take the directories away; says whom it killed. The caller must sit elsewhere."""
        end = time.monotonic() + deadline_seconds
        killed: set[int] = set()
        for root in self.roots:
            top = root / path if path else root
            while top.exists():
                killed |= _kill(top)
                if _remove_empty(top):
                    break
                if time.monotonic() > end:
                    raise CommandError(f"cgroup {top} still has processes after {deadline_seconds:.0f} s; look at them")
                time.sleep(0.02)
        return killed


def await_reaped(pids: set[int], deadline_seconds: float = 5.0) -> None:
    """Killed processes stay as zombies until their parent, mostly init, has seen them; some inits take their time."""
    end = time.monotonic() + deadline_seconds
    while time.monotonic() < end:
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.02)


def _kill(top: Path) -> set[int]:
    pids: set[int] = set()
    for directory, _, _ in os.walk(top):
        with contextlib.suppress(OSError):  # gone since it was listed, or going
            pids |= {int(pid) for pid in (Path(directory) / "cgroup.procs").read_text().split()}
    if (top / "cgroup.kill").exists():
        (top / "cgroup.kill").write_text("1")
        return pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def _remove_empty(top: Path) -> bool:
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            Path(directory).rmdir()
        except OSError:
            return False
    return True


def hierarchies(mountinfo: str) -> tuple[Path, ...]:
    """Mount points that carry pods: cgroup v2, and on hybrid machines v1's pids and memory."""
    unified: list[Path] = []
    legacy: list[Path] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount_point = Path(left.split()[4])
        kind, _, options = right.split(maxsplit=2)
        if kind == "cgroup2":
            unified.append(mount_point)
        elif kind == "cgroup" and V1_CONTROLLERS & set(options.split(",")):
            legacy.append(mount_point)
    return tuple(dict.fromkeys([*unified[:1], *legacy]))


def tree(lab: str) -> CgroupTree:
    mounts = hierarchies(Path("/proc/self/mountinfo").read_text())
    if not mounts:
        raise MachineError("no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup")
    return CgroupTree(tuple(mount / f"{PREFIX}{lab}" for mount in mounts))


def labs_left() -> set[str]:
    """Names of labs that have a directory somewhere, running or not."""
    mounts = hierarchies(Path("/proc/self/mountinfo").read_text())
    return {found.name.removeprefix(PREFIX) for mount in mounts for found in mount.glob(f"{PREFIX}*") if found.is_dir()}


def quality_of_service(pod: Manifest) -> str:
    """Kubernetes' own rule, from the containers' requests and limits."""
    resources = [container.get("resources", {}) for container in pod["spec"]["containers"]]
    if not any(r.get("requests") or r.get("limits") for r in resources):
        return "BestEffort"
    for r in resources:
        limits = r.get("limits", {})
        if set(limits) < {"cpu", "memory"} or any(
            r.get("requests", limits).get(k, limits[k]) != limits[k] for k in limits
        ):
            return "Burstable"
    return "Guaranteed"


def container_path(driver: str, quality: str, pod_uid: str, container_id: str) -> str:
    """The kubelet's path below its root, as its systemd and its cgroupfs driver write it."""
    level = "" if quality == "Guaranteed" else quality.lower()
    if driver == "cgroupfs":
        return "/".join(filter(None, ["kubepods", level, f"pod{pod_uid}", container_id]))
    dashed = f"kubepods-{level}" if level else "kubepods"
    parents = ["kubepods.slice", f"{dashed}.slice"] if level else ["kubepods.slice"]
    return "/".join(
        [*parents, f"{dashed}-pod{pod_uid.replace('-', '_')}.slice", f"cri-containerd-{container_id}.scope"]
    )
