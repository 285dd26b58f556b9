"""A store whose clock stands still, on either database."""

from collections.abc import Iterator

import pytest

from aggregator.store import Store, migrate, open_store
from aggregator.store.keys import moment
from tests.contract.store.rows import NOW_MS


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    migrate(database_url)
    opened = open_store(database_url, clock=lambda: moment(NOW_MS))
    yield opened
    opened.close()
