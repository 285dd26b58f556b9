"""The built images' root file systems, entered as the chart enters them: its user, capabilities, read-only root."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "build" / "images"
BUILDAH = ["buildah", "--root", str(IMAGES / "storage"), "--runroot", str(IMAGES / "run")]
ENVIRONMENT = os.environ | {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}


def buildah(*arguments: str) -> str:
    done = subprocess.run(
        [*BUILDAH, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    program: str
    root: Path
    config: dict[str, Any]  # the image's own: Entrypoint, User, Env, Labels, Healthcheck

    @property
    def environment(self) -> dict[str, str]:
        return dict(each.split("=", 1) for each in self.config["Env"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """`mounts`: (host's path or "tmpfs", path inside, writable)."""

    image: Image
    uid: int
    capabilities: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str, bool], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        """Runs `arguments` inside; root alone may call it. /proc is this machine's, as with hostPID."""
        steps = ["mount --make-rprivate /", f"mount --bind {self.image.root} /mnt", "mount -o remount,bind,ro /mnt"]
        steps += ["mount --bind /proc /mnt/proc", "mount --rbind /dev /mnt/dev"]
        for source, target, writable in (("tmpfs", "/tmp", True), *self.mounts):
            inside = f"/mnt{target}"
            steps.append(f"mount -t tmpfs tmpfs {inside}" if source == "tmpfs" else f"mount --rbind {source} {inside}")
            if not writable:
                steps.append(f"mount -o remount,bind,ro {inside}")
        bounding = ",".join(["-all", *(f"+{name.lower()}" for name in self.capabilities)])
        drop = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--no-new-privs"]
        drop += ["--inh-caps=-all", f"--bounding-set={bounding}"]
        given = self.image.environment | self.environment
        variables = [f"{name}={value}" for name, value in given.items()]
        return [
            *("unshare", "--mount", "sh", "-ec", "; ".join(steps) + '; exec "$@"', "sh"),
            *("chroot", "/mnt", "/usr/bin/env", "-i", *variables, *drop, *arguments),
        ]

    def run(self, *arguments: str, seconds: float = 120) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, timeout=seconds, cwd="/"
        )


@pytest.fixture(scope="session")
def built() -> Iterator[dict[str, Image]]:
    """Needs `make images`; each is mounted for the session."""
    assert os.geteuid() == 0, "this tier runs as root: `make test-images` does that"
    if shutil.which("buildah") is None or not (IMAGES / "wattle-postgres.tar").exists():
        pytest.fail("no images: `make images` builds them")
    made: list[str] = []
    found = {}
    try:
        for program in ("agent", "aggregator", "postgres"):
            names = json.loads(buildah("images", "--json"))
            [name] = {n for each in names for n in each["names"] or () if f"/wattle-{program}:" in n}
            container = buildah("from", "--pull-never", name)
            made.append(container)
            inspected = json.loads(buildah("inspect", container))
            found[program] = Image(
                program=program,
                root=Path(buildah("mount", container)),
                config=inspected["Docker"]["config"],
            )
        yield found
    finally:
        for container in made:
            buildah("rm", container)
