"""Debian's Chromium, a served shop, a folder for the pictures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import browser_type_launch_args, page, pictures
from tests.integration.services.world import World
from tests.ui.shop import served, shop

__all__ = ["browser_type_launch_args", "page", "pictures"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = shop(tmp_path)
    yield made
    made.close()


@pytest.fixture
def site(world: World) -> Iterator[str]:
    with served(world) as address:
        yield f"{address}/ui"
