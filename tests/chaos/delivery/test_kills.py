"""Everything is killed, frozen and cut off at random and at named places: 0 lost, 0 double, edge by edge.

WATTLE_CHAOS_SECONDS sets how long; `make chaos` runs the same driver for as long as one likes.
"""

import os
import re
import subprocess
import sys

import pytest

from tests.demo import ROOT

SECONDS = float(os.environ.get("WATTLE_CHAOS_SECONDS", "60"))
VERDICT = re.compile(r"^kills (\d+), records (\d+), (\d+) lost, (\d+) double$", re.MULTILINE)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("database", "share"), [("postgresql", 2 / 3), ("sqlite", 1 / 3)])
def test_nothing_is_lost_and_nothing_counted_twice(database: str, share: float) -> None:
    # The driver forks, and pytest has threads by now: a program of its own, not a child of this process's memory.
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "tests.chaos.driver", "--seconds", str(SECONDS * share), "--seed", "2026"),
            *(["--sqlite"] if database == "sqlite" else []),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    verdict = VERDICT.search(ran.stdout)
    assert verdict is not None, ran.stdout + ran.stderr
    kills, records, lost, double = map(int, verdict.groups())
    assert kills > 3
    assert records > 1_000
    assert (lost, double, ran.returncode) == (0, 0, 0), ran.stdout + ran.stderr
