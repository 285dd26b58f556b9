"""Up, down, status, sweep: what a person or a test does with a whole lab.

A lab is found again by its name alone: cgroups `wl-<lab>`, network namespaces `wl-<lab>.*` (nft tables and wires live
and die in them), the state directory behind /run/wattle-lab/<lab>. So `down` is the same whether the supervisor lives
or was killed.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import cgroups, network, pods
from lab.controller import without
from lab.errors import LabError, MachineError, NotSettledError, StateError
from lab.network import PATH, Wires
from lab.scenario import Scenario, load
from lab.settings import NAME_PATTERN, Cidrs
from lab.supervisor import supervise

HOME = Path("/run/wattle-lab")
MARK = "wattle-lab"
OWN_FILES = ("objects", "pods", "run", "dns", "status.json", "error.txt", "supervisor.log", "supervisor.pid", MARK)
NAME = re.compile(NAME_PATTERN)
SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """What a caller of `up` needs to go on."""

    name: str
    state: str
    objects: str
    pod_logs: str
    select: str
    supervisor_pid: int
    cgroup_roots: list[str]
    nodes: dict[str, str]
    """The network namespace of each node, by the node's name."""

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def require_machine() -> None:
    if os.geteuid() != 0:
        raise MachineError("the lab makes network namespaces and cgroups and so needs root: run it with sudo")
    packages = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "dnsmasq": "dnsmasq-base"}
    missing = sorted(package for tool, package in packages.items() if shutil.which(tool, path=PATH) is None)
    if missing:
        raise MachineError(f"the lab needs {', '.join(missing)}: apt-get install {' '.join(missing)}")


def require_programs(scenario: Scenario) -> None:
    for key, run in scenario.lab.run.items():
        for container, program in run.containers.items():
            if (
                program.command
                and "/" not in program.command[0]
                and shutil.which(program.command[0], path=PATH) is None
            ):
                raise MachineError(
                    f"{scenario.path}, lab.run[{key}].containers.{container}.command: there is no {program.command[0]} "
                    "on this machine; install the Debian package that has it"
                )


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One change of what exists at a time; waiting for a lab to settle is outside of it."""
    while True:
        try:
            HOME.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(HOME, os.O_RDONLY)
        except (FileNotFoundError, FileExistsError):  # taken away in between
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # whoever had it before took the empty folder away
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # labs live there
            HOME.rmdir()
        os.close(descriptor)


def up(
    path: Path,
    *,
    state: Path | None = None,
    left_out: tuple[str, ...] = (),
    name: str | None = None,
    deadline_seconds: float = SETTLE_SECONDS,
) -> Up:
    """Start a lab in the background; returns once every pod is ready and every client has finished a full round."""
    scenario = without(load(path), left_out)
    require_machine()
    require_programs(scenario)
    name = name or scenario.lab.name
    if not NAME.fullmatch(name):
        raise StateError(f"--name {name}: a lab's name has small letters, digits and hyphens, 20 at most")
    if any(network.version == 6 for network in scenario.lab.cidrs.pods) and not Path("/proc/net/if_inet6").exists():
        raise MachineError(f"{path}: lab.cidrs has IPv6, which this kernel has switched off; remove the IPv6 ranges")
    folder = (state or HOME / name).absolute()
    with locked():
        if alive(name):
            raise StateError(f"lab {name} is running already: `python -m lab down {name}` ends it")
        clean(name)
        prepare(name, folder)
        pid = start_supervisor(path, name, folder, left_out)
    try:
        wait_settled(folder, pid, deadline_seconds)
    except BaseException:
        with locked():
            clean(name)
        raise
    wires = Wires(lab=name, cidrs=scenario.lab.cidrs)
    return Up(
        name=name,
        state=str(folder),
        objects=str(folder / "objects"),
        pod_logs=str(folder / "pods"),
        select=scenario.lab.select,
        supervisor_pid=pid,
        cgroup_roots=[str(root) for root in cgroups.tree(name).roots],
        nodes={node: wires.node(node) for node in scenario.node_names()},
    )


def prepare(name: str, folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise StateError(f"{folder} is not empty and no lab's; give --state another directory")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / MARK).write_text(f"{name}\n")
    for part in ("objects", "pods", "run", "dns"):
        (folder / part).mkdir()
    if folder != HOME / name:
        (HOME / name).symlink_to(folder)


def start_supervisor(path: Path, name: str, folder: Path, left_out: tuple[str, ...]) -> int:
    command = [sys.executable, "-m", "lab", "supervise", str(path.absolute()), "--state", str(folder), "--name", name]
    command += [word for item in left_out for word in ("--without", item)]
    environment = {**os.environ, "PATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[1],
            env=environment,
            start_new_session=True,
        )
    # Here and not by itself: when the lock is given back, the lab must count as running.
    for directory in cgroups.tree(name).make("supervisor"):
        (directory / "cgroup.procs").write_text(str(process.pid))
    (folder / "supervisor.pid").write_text(f"{process.pid}\n")
    # Python would warn that the process still runs: it is meant to outlive this one.
    process.returncode = 0
    return process.pid


def wait_settled(folder: Path, pid: int, deadline_seconds: float) -> None:
    end = time.monotonic() + deadline_seconds
    while True:
        found = read_status(folder)
        if found.get("settled"):
            return
        if (folder / "error.txt").exists():
            raise LabError((folder / "error.txt").read_text().strip())
        if ended(pid):
            log = (folder / "supervisor.log").read_text().strip().splitlines()[-15:]
            raise LabError("the lab's supervisor ended by itself; its last words:\n" + "\n".join(log))
        if time.monotonic() > end:
            raise NotSettledError(f"the lab did not settle within {deadline_seconds:.0f} s: {unsettled(found)}")
        time.sleep(POLL_SECONDS)


def ended(pid: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return fields.rpartition(")")[2].split()[0] == "Z"


def unsettled(found: dict[str, Any]) -> str:
    """What is still missing, in a sentence."""
    reasons = [
        f"pod {p['pod']} is not ready" for p in found.get("pods", []) if not p["ready"] and p["phase"] == "Running"
    ]
    reasons += [f"client {c['pod']}: {c['last_error']}" for c in found.get("clients", []) if c["last_error"]]
    reasons += [f"{j['workload']} never succeeded" for j in found.get("jobs", []) if not j["succeeded"]]
    return "; ".join(reasons[:5]) or "the supervisor said nothing yet; see supervisor.log in the state directory"


def read_status(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def alive(name: str) -> bool:
    """Whether a supervisor runs: its own cgroup has a process."""
    for root in cgroups.tree(name).roots:
        procs = root / "supervisor" / "cgroup.procs"
        if procs.exists() and procs.read_text().strip():
            return True
    return False


def clean(name: str) -> bool:
    """Take away whatever there is of a lab; false when there was nothing."""
    tree = cgroups.tree(name)
    wires = Wires(lab=name, cidrs=Cidrs())
    left = wires.left()
    place = HOME / name
    found = bool(left) or place.is_symlink() or place.exists() or any(root.exists() for root in tree.roots)
    cgroups.await_reaped(tree.remove())
    for netns in left:
        wires.drop(netns)
    remove_state(place)
    return found


def remove_state(place: Path) -> None:
    folder = place.resolve()
    if (folder / MARK).exists():
        for part in OWN_FILES:
            target = folder / part
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    if place.is_symlink():
        place.unlink()


def name_of(wanted: str) -> str:
    """A lab's name from a name or a scenario file."""
    return load(Path(wanted)).lab.name if wanted.endswith((".yaml", ".yml")) else wanted


def down(wanted: str) -> str:
    require_machine()
    name = name_of(wanted)
    with locked():
        if not clean(name):
            raise StateError(f"there is no lab {name}; known: {', '.join(sorted(known())) or 'none'}")
    return name


def sweep(names: Sequence[str] = ()) -> list[str]:
    """Take away the labs whose supervisor is gone: those named, or all."""
    require_machine()
    swept = []
    for name in sorted(names or known()):
        with locked():
            if not alive(name) and clean(name):
                swept.append(name)
    return swept


def known() -> set[str]:
    here = {found.name for found in HOME.iterdir() if not found.name.startswith(".")} if HOME.is_dir() else set()
    return here | cgroups.labs_left() | network.labs_left()


def status(name: str) -> dict[str, Any]:
    folder = HOME / name
    if not (folder / MARK).exists():
        raise StateError(f"there is no lab {name}; known: {', '.join(sorted(known())) or 'none'}")
    error = (folder / "error.txt").read_text().strip() if (folder / "error.txt").exists() else None
    return {"running": alive(name), "error": error, "state": str(folder.resolve()), **read_status(folder)}


def exec_in(name: str, pod: str, command: list[str]) -> None:
    """Become a process of a pod's first container: its network, its cgroup, its resolver. Does not return."""
    require_machine()
    found = status(name)
    chosen = next((p for p in found.get("pods", []) if p["pod"] == pod and p["netns"]), None)
    if chosen is None:
        running = ", ".join(p["pod"] for p in found.get("pods", []) if p["netns"])
        raise StateError(f"lab {name} has no running pod {pod}; running: {running}")
    container, path = next(iter(chosen["cgroups"].items()))
    folder = Path(found["state"]) / "run" / chosen["uid"] / container
    plan = {
        "cgroups": [str(root / path) for root in cgroups.tree(name).roots],
        "netns": str(network.NETNS_FOLDER / chosen["netns"]),
        "binds": pods.own_files(folder),
        "hostname": pod.partition("/")[2],
        "environment": {},
        "inherit": True,
        "folder": str(folder),
        "command": command,
    }
    words = pods.enter_command(plan)
    os.execv(words[0], words)


def run_supervisor(path: Path, name: str, state: Path, left_out: tuple[str, ...]) -> None:
    supervise(without(load(path), left_out), name, state)
