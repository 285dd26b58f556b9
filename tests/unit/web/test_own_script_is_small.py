"""The page's own script stays small, and nothing in a template is inline."""

import re
from pathlib import Path

import pytest

WEB = Path(__file__).parents[3] / "aggregator" / "web"
TEMPLATES = sorted((WEB / "templates").glob("*.html"))
MOST_LINES = 250


def test_own_script_has_at_most_250_lines() -> None:
    assert sum(len(path.read_text().splitlines()) for path in (WEB / "static").glob("*.js")) <= MOST_LINES


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_nothing_inline_and_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\son[a-z]+=|\sstyle=|<style|<script(?![^>]*\ssrc=)|javascript:", text)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)
    assert "hx-on" not in text
