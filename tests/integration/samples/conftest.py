"""One lab for every case, and the command line at its aggregator."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aggregator.cli.main import run
from tests.watched import Watched, watching


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watching(tmp_path_factory.mktemp("samples")) as found:
        yield found


Wattle = Callable[..., str]


@pytest.fixture
def wattle(
    watched: Watched, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Wattle]:
    """The command line at the aggregator, as a person uses it; what was decided is taken back after each case."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def ask(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        ended = run(["--server", watched.address, *words])
        told = capsys.readouterr()
        assert ended == code, told.err
        return told.out

    before = decided(ask)
    yield ask
    for record in decided(ask) - before:
        ask("decide", "undo", record)


def decided(ask: Wattle) -> set[str]:
    rows = json.loads(ask("decide", "list", "-o", "json"))
    return {row["record"] for row in rows if row["in_force"]}
