"""Debian's Chromium for the tiers that drive the page, and a page that complains aloud."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "build" / "screenshots"
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
    _to_owner(PICTURES)
    return PICTURES


def photograph(page: Page, path: Path) -> None:
    """The whole page, for the checkout's owner also where root took it."""
    page.screenshot(path=path, full_page=True)
    _to_owner(path)


def _to_owner(path: Path) -> None:
    if os.geteuid() == 0:
        checkout = ROOT.stat()
        os.chown(path, checkout.st_uid, checkout.st_gid)
