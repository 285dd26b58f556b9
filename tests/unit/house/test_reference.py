"""The reference pages are what the code says, word for word: no setting and no metric goes undocumented."""

from pathlib import Path

import pytest

from docs.reference import PAGES

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), f"docs/{name} is old: run `make docs`"


def test_every_setting_and_metric_says_what_it_means() -> None:
    for name, page in PAGES.items():
        for line in page().splitlines():
            if line.startswith("| `"):
                assert len(line.rstrip(" |").rsplit("|", 1)[-1].strip()) > 5, f"docs/{name}: {line}"
