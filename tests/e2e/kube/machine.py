"""Where the cluster sits on this machine, and how every trace of it goes away again.

Every process of the cluster, pods and daemons, lives below one directory of each cgroup hierarchy; every network and
mount namespace is held by such a process alone, and every file lies in one folder. So a sweep needs no list of what was
started: it ends what is in the directory, and the kernel drops the rest. It works as well for a run that was killed.
"""

import ctypes
import fcntl
import functools
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lab.cgroups import CgroupTree, await_reaped

NAME = "wattle-e2e"
BUILD = Path(__file__).parents[3] / "build" / "e2e"
STATE = BUILD / "run"  # on the disk of the image store, whose files the nodes link to
LOCK = Path("/run") / f"{NAME}.lock"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLONE_NEWNET = 0x40000000
_started: "list[subprocess.Popen[bytes]]" = []  # to be waited for, once they were ended
HIERARCHIES = "/proc/self/mountinfo"


# What a dual-stack cluster asks of the kernel and its tools, tried in a network of its own.
IPV6_TRIAL = """
ip link set lo up
ip addr add fd00::1/128 dev lo nodad
test -e /proc/sys/net/bridge/bridge-nf-call-ip6tables
ip6tables -t nat -A POSTROUTING -m comment --comment trial -j MASQUERADE
ip6tables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
ip6tables -A FORWARD -j REJECT
nft add table ip6 trial
nft add chain ip6 trial post '{ type nat hook postrouting priority srcnat; }'
nft add rule ip6 trial post masquerade
"""


class MachineError(Exception):
    """The machine did not do what the cluster needs; the message says which command and why."""


def run(*command: str, given: str | None = None, seconds: float = 120) -> str:
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env={"PATH": PATH, "LANG": "C.UTF-8"},
    )
    if done.returncode:
        raise MachineError(f"`{' '.join(command)[:200]}` failed: {(done.stderr.strip() or done.stdout.strip())[-500:]}")
    return done.stdout


@functools.cache
def without_ipv6() -> str:
    """Why the cluster is IPv4 only on this machine; "" where it is dual-stack."""
    if os.environ.get("IPV6") == "no":
        return "IPV6=no was asked for"
    try:
        run("unshare", "--net", "sh", "-ec", IPV6_TRIAL)
    except (MachineError, OSError) as error:
        return f"this machine cannot do IPv6: {str(error).rpartition('failed: ')[2]}"
    return ""


def hierarchies() -> tuple[Path, ...]:
    """Mount points of every cgroup hierarchy: a kubelet wants its root in all of them."""
    found = []
    for line in Path(HIERARCHIES).read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in {"cgroup", "cgroup2"}:
            found.append(Path(left.split()[4]))
    return tuple(dict.fromkeys(path for path in found if str(path).startswith("/sys/fs/cgroup")))


def tree() -> CgroupTree:
    return CgroupTree(tuple(root / NAME for root in hierarchies()))


def make_group(path: str) -> list[Path]:
    """A directory below the cluster's in each hierarchy; cpuset (v1) must be told its processors and memory."""
    for root in hierarchies():
        directory = root
        for part in (NAME, *path.split("/")):
            above, directory = directory, directory / part
            directory.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (directory / file).exists() and not (directory / file).read_text().strip():
                    (directory / file).write_text((above / file).read_text())
    return [root / NAME / path for root in hierarchies()]


def start(
    name: str, command: Sequence[str], *, inside: int | None = None, environment: dict[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """A daemon in the cluster's cgroup, with a log; `inside` names a process whose namespaces it shares."""
    groups = make_group("system")
    enter = [] if inside is None else ["nsenter", "--net", "--mount", "-t", str(inside), "--"]
    join = "; ".join(f"echo 0 > {group / 'cgroup.procs'}" for group in groups)
    script = f'{join}; exec "$@"'
    log = STATE / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        process = subprocess.Popen(
            ["sh", "-c", script, name, *enter, *command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            cwd="/",
            env={"PATH": PATH, "LANG": "C.UTF-8", **(environment or {})},
        )
    _started.append(process)
    return process


def hold_namespaces(name: str) -> "subprocess.Popen[bytes]":
    """A process that does nothing but hold a network and a mount namespace of its own."""
    holder = start(name, ("unshare", "--net", "--mount", "--propagation", "private", "sleep", "infinity"))
    deadline = time.monotonic() + 30
    while Path(f"/proc/{holder.pid}/comm").read_text().strip() != "sleep":
        if time.monotonic() > deadline:
            raise MachineError(f"{name} has no namespaces of its own after 30 s")
        time.sleep(0.01)
    return holder


def leave_the_network() -> None:
    """This process goes on in a network namespace of its own: the cluster's outside world, and nobody else's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise MachineError(f"no network namespace of our own: {os.strerror(ctypes.get_errno())}")
    run("ip", "link", "set", "lo", "up")


def hold() -> int:
    """One cluster at a time on a machine; the descriptor that keeps it so, until this process ends."""
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise MachineError("another run has its cluster up on this machine; wait for it") from None
    return descriptor


def sweep() -> None:
    """End everything of the cluster and remove what it left. Nothing to do is fine."""
    await_reaped(tree().remove(deadline_seconds=30))
    while _started:
        _started.pop().wait(10)
    shutil.rmtree(STATE, ignore_errors=True)


def left() -> list[str]:
    """What a sweep should have taken away."""
    return [str(path) for path in (*(root / NAME for root in hierarchies()), STATE) if path.exists()]
