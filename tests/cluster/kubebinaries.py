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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "v1.36.2"
STAGING_VERSION = "v0.36.2"  # each staging module is published beside the main one
PROGRAMS = ("kube-apiserver", "kube-controller-manager")
NODE_PROGRAMS = ("kube-scheduler", "kubelet", "kube-proxy")  # with these, pods run
# Built from a module, a program does not know its version; Helm asks the API server for it.
LINKING = f"-s -w -X k8s.io/component-base/version.gitVersion={VERSION}"
ENFORCER = "kube-router"
ENFORCER_MODULE = "github.com/cloudnativelabs/kube-router/v2"
ENFORCER_VERSIONS = ("v2.11.1", "v2.1.0")  # the first that the module proxy hands out; for the tests' own cluster alone


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
    with _building() as go:
        missing = [program for program in programs if not (target / program).exists()]
        if missing:
            _write_module(go)
        for program in missing:
            aside = target / f".{program}.building"
            _run(go, "build", "-trimpath", f"-ldflags={LINKING}", "-o", str(aside), f"k8s.io/kubernetes/cmd/{program}")
            aside.rename(target / program)
    return target


def enforcer() -> Path:
    """kube-router, which enforces NetworkPolicies by iptables and ipset. Raises NotToBeHad."""
    program = folder() / "bin" / ENFORCER
    reasons = []
    for version in ENFORCER_VERSIONS:
        if program.exists():
            break
        try:
            _build_enforcer(program, version)
        except NotToBeHad as reason:
            reasons.append(f"{version}: {reason}")
    if not program.exists():
        raise NotToBeHad("; ".join(reasons))
    return program


def enforcer_version(program: Path) -> str:
    """As the program itself tells what it was built from."""
    with _building() as go:
        told = _run(go, "version", "-m", str(program))
    [version] = re.findall(rf"^\s*(?:mod|dep)\s+{re.escape(ENFORCER_MODULE)}\s+(\S+)", told, re.MULTILINE)
    return str(version)


def _build_enforcer(program: Path, version: str) -> None:
    """As a dependency of a module of our own: `go install MODULE/cmd/...@VERSION` would first ask a proxy for a module
    of the longer path, and not every proxy says of it that there is none.
    """
    place = folder() / f"{ENFORCER}-{version}"
    with _building() as go:
        place.mkdir(exist_ok=True)
        if not (place / "go.mod").exists():
            lines = ("module wattle.test/enforcer", "go 1.25.0", f"require {ENFORCER_MODULE} {version}")
            (place / "go.mod").write_text("\n".join(lines) + "\n")
        if not program.exists():
            aside = program.with_name(f".{ENFORCER}.building")
            package = f"{ENFORCER_MODULE}/cmd/{ENFORCER}"
            _run(go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(aside), package, place=place)
            aside.rename(program)


@contextmanager
def _building() -> Iterator[str]:
    """The Go program, for one build at a time."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise NotToBeHad("no Go toolchain: Kubernetes is built from source")
    (folder() / "bin").mkdir(parents=True, exist_ok=True)
    (folder() / "module").mkdir(exist_ok=True)
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield go


def _write_module(go: str) -> None:
    """A module of our own that takes k8s.io/kubernetes as a dependency, its ./staging replacements by version."""
    module = folder() / "module"
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


def _run(go: str, *arguments: str, place: Path | None = None) -> str:
    module = place or folder() / "module"
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}
    finished = subprocess.run(
        ["nice", "-n", "10", go, *arguments], cwd=module, env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        said = (finished.stderr.strip() or finished.stdout.strip()).splitlines()
        raise NotToBeHad(f"go {arguments[0]} failed: {' / '.join(said[-3:])}")
    return finished.stdout


if __name__ == "__main__":
    try:
        wanted = tuple(sys.argv[1:]) or PROGRAMS
        print(binaries(tuple(program for program in wanted if program != ENFORCER)))
        if ENFORCER in wanted:
            print(enforcer())
    except NotToBeHad as reason:
        sys.exit(f"not to be had: {reason}")
