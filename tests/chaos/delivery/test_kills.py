"""Everything is killed, frozen and cut off at random and at named places: 0 lost, 0 double, edge by edge.

WATTLE_CHAOS_SECONDS sets how long; `make chaos` runs the same driver for as long as one likes.
"""

import os

import pytest

from tests.chaos.driver import fork, torment

SECONDS = float(os.environ.get("WATTLE_CHAOS_SECONDS", "60"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("database", "share"), [("postgresql", 2 / 3), ("sqlite", 1 / 3)])
def test_nothing_is_lost_and_nothing_counted_twice(database: str, share: float, tmp_path) -> None:
    result = tmp_path / "result"

    def run() -> None:
        # A process of its own: pytest's has threads, and must not be forked.
        kills, verdict = torment(seconds=SECONDS * share, kills=0, seed=20_26, sqlite=database == "sqlite")
        result.write_text(
            f"{sum(kills.values())} {verdict.records} {verdict.lost} {verdict.double}\n"
            + "\n".join(verdict.remarks[:20])
        )

    os.waitpid(fork(run), 0)
    line, _, remarks = result.read_text().partition("\n")
    kills, records, lost, double = map(int, line.split())
    print(f"{database}: kills {kills}, records {records}, {lost} lost, {double} double")
    assert kills > 3
    assert records > 1_000
    assert (lost, double, remarks) == (0, 0, "")
