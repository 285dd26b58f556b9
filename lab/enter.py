"""Becomes a container's process: cgroups, network namespace, own mount and host name, then exec. Standard library only.

Runs as a script of its own, one JSON argument; nothing of it is left after exec. Mounts live in the new mount namespace
alone and vanish with its last process.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
LIBC = ctypes.CDLL(None, use_errno=True)  # Python 3.11 has no os.setns and os.unshare


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def enter(plan: dict[str, Any]) -> None:
    for directory in plan["cgroups"]:
        (Path(directory) / "cgroup.procs").write_text("0")
    descriptor = os.open(plan["netns"], os.O_RDONLY)
    check(LIBC.setns(descriptor, CLONE_NEWNET), f"setns {plan['netns']}")
    os.close(descriptor)
    check(LIBC.unshare(CLONE_NEWNS | CLONE_NEWUTS), "unshare")
    check(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make mounts private")
    for target, source in plan["binds"].items():
        real = os.path.realpath(target)
        check(LIBC.mount(source.encode(), real.encode(), None, MS_BIND, None), f"mount {source} on {real}")
    name = plan["hostname"].encode()[:63]
    check(LIBC.sethostname(name, len(name)), "sethostname")


def main() -> None:
    plan = json.loads(sys.argv[1])
    enter(plan)
    environment = {**os.environ, **plan["environment"]} if plan["inherit"] else plan["environment"]
    os.chdir(plan["folder"])
    os.execvpe(plan["command"][0], plan["command"], environment)


if __name__ == "__main__":
    main()
