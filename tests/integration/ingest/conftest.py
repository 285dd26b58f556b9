"""A store of each kind, and an agent's spool."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.spool import Spool
from aggregator.store import Store, migrate, open_store


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    migrate(database_url)
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    migrate(sqlite_url)
    opened = open_store(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", boot_id="boot")
    yield opened
    opened.close()
