"""Kubernetes' own binaries, built once from its Go module and kept outside the repository.

Enters: the Go toolchain and the module proxy that the machine is set up for. Leaves: a folder with the programs in
${XDG_CACHE_HOME:-~/.cache}/wattle/kube/VERSION/bin, or `NotToBeHad` that says why. Invariant: a program is there whole
or not at all (built aside, then renamed), also when two builds run at once.

`python -m tests.cluster.kubebinaries [PROGRAM...]` builds them by hand: minutes when cold, nothing when they are there.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "v1.36.2"
STAGING_VERSION = "v0.36.2"  # each staging module is published beside the main one
PROGRAMS = ("kube-apiserver", "kube-controller-manager")


class NotToBeHad(Exception):  # noqa: N818 - it names a state of the machine, not a mistake
    """The programs cannot be built here; the message is the reason."""


def folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "wattle" / "kube" / VERSION


def binaries(programs: tuple[str, ...] = PROGRAMS) -> Path:
    """The folder that holds `programs`, building what is missing. Raises NotToBeHad."""
    target = folder() / "bin"
    if all((target / program).exists() for program in programs):
        return target
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise NotToBeHad("no Go toolchain: Kubernetes is built from source")
    target.mkdir(parents=True, exist_ok=True)
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [program for program in programs if not (target / program).exists()]
        if missing:
            _write_module(go)
        for program in missing:
            aside = target / f".{program}.building"
            _run(go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(aside), f"k8s.io/kubernetes/cmd/{program}")
            aside.rename(target / program)
    return target


def _write_module(go: str) -> None:
    """A module of our own that takes k8s.io/kubernetes as a dependency, its ./staging replacements by version."""
    module = folder() / "module"
    module.mkdir(exist_ok=True)
    if (module / "go.mod").exists():
        return
    downloaded = json.loads(_run(go, "mod", "download", "-json", f"k8s.io/kubernetes@{VERSION}"))
    source = Path(downloaded["GoMod"]).read_text()
    staging = sorted(set(re.findall(r"^\s*(\S+) => \./staging/", source, re.MULTILINE)))
    go_version = re.search(r"^go (\S+)", source, re.MULTILINE)
    assert staging, "the module's layout has changed"
    assert go_version, "the module's layout has changed"
    lines = [
        "module wattle.test/kube",
        f"go {go_version.group(1)}",
        f"require k8s.io/kubernetes {VERSION}",
        "replace (",
        *(f"\t{name} => {name} {STAGING_VERSION}" for name in staging),
        ")",
    ]
    (module / "go.mod").write_text("\n".join(lines) + "\n")


def _run(go: str, *arguments: str) -> str:
    module = folder() / "module"
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}
    finished = subprocess.run(
        ["nice", "-n", "15", go, *arguments], cwd=module, env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        said = (finished.stderr.strip() or finished.stdout.strip()).splitlines()
        raise NotToBeHad(f"go {arguments[0]} failed: {' / '.join(said[-3:])}")
    return finished.stdout


if __name__ == "__main__":
    try:
        print(binaries(tuple(sys.argv[1:]) or PROGRAMS))
    except NotToBeHad as reason:
        sys.exit(f"not to be had: {reason}")
