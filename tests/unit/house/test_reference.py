"""The reference pages are what the code says, word for word: no setting and no metric goes undocumented."""

import re
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


def test_every_reason_for_which_a_record_becomes_no_link_is_explained_to_operators() -> None:
    sources = "".join(path.read_text() for path in (DOCS.parent / "aggregator").rglob("*.py"))
    reasons = set(re.findall(r'Refused\(reason="([a-z-]+)"\)', sources)) | {"link-id-collision"}
    page = (DOCS / "operation.md").read_text()
    (table,) = re.findall(r"became part of no link, by reason:\n\n((?:\|.*\n)+)", page)
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == reasons
