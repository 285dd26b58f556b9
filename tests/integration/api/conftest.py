from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.services.world import World, everything


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = everything(tmp_path)
    yield made
    made.close()
