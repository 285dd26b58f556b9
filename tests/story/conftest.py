"""One watched lab for every case, its page in Debian's Chromium; what a case decides is taken back after it."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.browser import browser_type_launch_args, page, pictures
from tests.watched import Watched, watching

__all__ = ["browser_type_launch_args", "page", "pictures"]


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watching(tmp_path_factory.mktemp("story")) as found:
        yield found


@pytest.fixture
def site(watched: Watched) -> Iterator[str]:
    before = _decided(watched)
    yield f"{watched.address}/ui"
    for record in _decided(watched) - before:
        _ask(watched, f"/decisions/{record}/undo", {"reason": "the case is over"})


def _decided(watched: Watched) -> set[str]:
    found = _ask(watched, "/decisions?limit=500")
    return {row["record"] for row in found["items"] if row["in_force"] and not row["undoes"]}


def _ask(watched: Watched, path: str, body: dict[str, str] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{watched.address}/api/v1{path}", data=data, headers={"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return json.load(answer)
