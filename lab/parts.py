"""The processes of a demo: who runs as whom, started and stopped by one owner.

Enters: commands. Leaves: running processes, each tied to this one's life (lab.tether), and their last words when one
fails.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

ROOT = Path(__file__).parents[1]


class PartError(LabError):
    """A part of the demo did not start, or ended too early."""


def as_root(command: Sequence[str]) -> list[str]:
    """The command as root, by sudo where it has to be."""
    return list(command) if os.geteuid() == 0 else ["sudo", *command]


def as_owner(command: Sequence[str]) -> list[str]:
    """The command as the checkout's owner: what is built belongs to them, whoever calls."""
    checkout = ROOT.stat()
    if os.geteuid() != 0 or checkout.st_uid == 0:
        return list(command)
    return ["setpriv", f"--reuid={checkout.st_uid}", f"--regid={checkout.st_gid}", "--clear-groups", *command]


def _give_to_owner(descriptor: int) -> None:
    if os.geteuid() == 0:
        checkout = ROOT.stat()
        os.fchown(descriptor, checkout.st_uid, checkout.st_gid)


def python(module: str, *arguments: str) -> list[str]:
    """A module of this checkout. -B: root must leave no compiled files in somebody's checkout."""
    return [sys.executable, "-B", "-m", module, *arguments]


class Part:
    """One background process; closing its standard input ends it, so that kill -9 of the demo does, too."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            _give_to_owner(output.fileno())
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def must_run(self) -> None:
        """Raise PartError with the process's last words when it has ended."""
        if self.ended:
            raise PartError(f"the {self.name} ended with code {self._process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "(it said nothing)"

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Close its standard input and wait until it has cleaned up."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()
