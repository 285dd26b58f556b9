"""Root first, the plain owner after: only apt, the lab and the agent run as root, and nothing of theirs stays."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo import ROOT

OWNER = 12_345


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A clean copy of the tracked and new files, in a folder that a plain user can reach and owns."""
    names = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        for name in names:
            if (ROOT / name).is_file():
                (there / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, there / name)
        for path in (there, *there.rglob("*")):
            os.chown(path, OWNER, OWNER)
        yield there


def test_root_first_and_the_plain_owner_after(checkout: Path) -> None:
    ran = subprocess.run(["make", "demo", "ONCE=1"], cwd=checkout, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (checkout / "build/demo/policy.yaml").exists()
    foreign = [str(path) for path in checkout.rglob("*") if path.lstat().st_uid != OWNER]
    assert foreign == []
    as_owner = ["/usr/bin/setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"]
    for command in (
        ["rm", "-r", "build/demo"],
        [".venv/bin/pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", "."],
        [".venv/bin/wattle", "--version"],
    ):
        after = subprocess.run([*as_owner, *command], cwd=checkout, capture_output=True, text=True, check=False)
        assert after.returncode == 0, f"{command}: {after.stdout}{after.stderr}"
