"""The lab for programs that may not be root themselves: each call is the command line, by sudo where it has to be.

Enters: a scenario file. Leaves: a LabHandle whose folders any user may read.
"""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError, NotSettledError, StateError
from lab.parts import ROOT, as_root, python


def run(*words: str) -> str:
    done = subprocess.run(as_root(python("lab", *words)), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(done.stderr.strip().removeprefix("lab: ") or f"`lab {words[0]}` ended with {done.returncode}")
    return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class LabHandle:
    name: str
    state: Path
    objects_dir: Path
    pod_logs_dir: Path
    select: str
    supervisor_pid: int
    cgroup_roots: tuple[Path, ...]
    nodes: dict[str, str]

    def status(self) -> dict[str, Any]:
        """What `lab status` prints. Raises StateError when the lab was taken down by somebody else."""
        try:
            found: dict[str, Any] = json.loads((self.state / "status.json").read_text())
        except FileNotFoundError as exc:
            raise StateError(f"lab {self.name} is gone: somebody took it down") from exc
        return found

    def pod(self, workload: str) -> dict[str, Any]:
        """The first running pod of a workload, "namespace/Kind/name"."""
        found: dict[str, Any] = next(p for p in self.status()["pods"] if p["workload"] == workload and p["netns"])
        return found

    def wait_settled(self, deadline_seconds: float = 60.0) -> None:
        end = time.monotonic() + deadline_seconds
        while not self.status()["settled"]:
            if time.monotonic() > end:
                raise NotSettledError(f"lab {self.name} did not settle within {deadline_seconds:.0f} s")
            time.sleep(0.05)

    def execute(self, pod: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command as a process of a pod, "namespace/name"."""
        return subprocess.run(
            as_root(python("lab", "exec", self.name, pod, "--", *command)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def down(self) -> None:
        run("down", self.name)


def up(
    path: Path,
    *,
    state: Path | None = None,
    without: Sequence[str] = (),
    name: str | None = None,
    deadline_seconds: float | None = None,
) -> LabHandle:
    """Start a lab; returns when every pod is ready and every client has finished a full round."""
    words = ["up", str(path.absolute()), "--json"]
    words += ["--state", str(state.absolute())] if state else []
    words += ["--name", name] if name else []
    words += ["--deadline", str(deadline_seconds)] if deadline_seconds is not None else []
    words += [word for item in without for word in ("--without", item)]
    found = json.loads(run(*words))
    return LabHandle(
        name=found["name"],
        state=Path(found["state"]),
        objects_dir=Path(found["objects"]),
        pod_logs_dir=Path(found["pod_logs"]),
        select=found["select"],
        supervisor_pid=found["supervisor_pid"],
        cgroup_roots=tuple(map(Path, found["cgroup_roots"])),
        nodes=found["nodes"],
    )


@contextmanager
def running(
    path: Path, *, state: Path | None = None, without: Sequence[str] = (), name: str | None = None
) -> Iterator[LabHandle]:
    """A lab for as long as the block lasts."""
    handle = up(path, state=state, without=without, name=name)
    try:
        yield handle
    finally:
        handle.down()
