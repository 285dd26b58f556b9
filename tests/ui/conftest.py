"""Debian's Chromium, a served shop, a folder for the pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page

from tests.integration.services.world import World
from tests.ui.shop import served, shop

PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
QUIET = (
    "--no-sandbox",  # as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    return {**browser_type_launch_args, "executable_path": "/usr/bin/chromium", "args": list(QUIET)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = shop(tmp_path)
    yield made
    made.close()


@pytest.fixture
def site(world: World) -> Iterator[str]:
    with served(world) as address:
        yield f"{address}/ui"


@pytest.fixture
def page(page: Page) -> Iterator[Page]:
    """Whatever a page complains about is a failure: a script's error, a refused style, a missing file."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if _complaint(line) else None)
    page.set_default_timeout(15_000)
    yield page
    assert complaints == []


def _complaint(line: ConsoleMessage) -> bool:
    """A refused decision (409) is an answer that the browser calls an error."""
    return line.type in {"error", "warning"} and "409" not in line.text


@pytest.fixture(scope="session")
def pictures() -> Path:
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES
