"""`wattle doctor` reads the aggregator's settings, tells line by line, and its exit code says whether all is well."""

from pathlib import Path

import pytest

from aggregator.cli.main import run
from aggregator.store import migrate


def test_it_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'wattle.db'}"
    monkeypatch.setenv("WATTLE_DEVELOPMENT", "true")
    monkeypatch.setenv("WATTLE_MANIFESTS", str(tmp_path))
    monkeypatch.setenv("WATTLE_DATABASE_URL", url)
    assert run(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "ill   database: SQLite" in said
    assert "      -> run `wattle-aggregator --migrate`" in said
    migrate(url)
    assert run(["doctor"]) == 1
    assert "ill   agents: none has ever delivered" in capsys.readouterr().out


def test_wrong_settings_are_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WATTLE_PAIR_SERIES", "many")
    assert run(["doctor"]) == 2
    assert "WATTLE_PAIR_SERIES" in capsys.readouterr().err
