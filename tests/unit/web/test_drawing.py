"""Graphviz' picture as the page's own SVG."""

import subprocess
import xml.etree.ElementTree as ET

import pytest

from aggregator.topology.graph import Band, DrawnLink, End, Fate, Graph, namespace_graph
from aggregator.web import drawing

TITLES = {Band.CALLER: "Who calls in", Band.INSIDE: "Workloads", Band.CALLED: "What they call"}
WEB = End(namespace="shop", kind="Deployment", name="web")
DB = End(namespace="shop", kind="StatefulSet", name="db")
HOSTILE = End(namespace="", kind="Address", name='"><script>alert(1)</script>')


def graph() -> Graph:
    links = [
        DrawnLink(identity="1", src=WEB, dst=DB, port="TCP 5432", fate=Fate.ALLOWED),
        DrawnLink(identity="2", src=WEB, dst=HOSTILE, port="TCP 443", fate=Fate.DENIED),
    ]
    return namespace_graph(links, "shop")


def drawn() -> str:
    return drawing.draw(
        graph(), "Map", TITLES, lambda card, row: f"/{card.name}/{row.key}", lambda card: f"/{card.name}", panel=True
    )


def test_every_link_is_a_line_with_its_fate() -> None:
    root = ET.fromstring(drawn())
    lines = {part.get("data-links"): part.get("class") for part in root.iter("g") if part.get("data-links")}
    assert lines == {"1": "link allowed", "2": "link denied"}


def test_a_row_leads_where_it_was_told_to_and_has_a_name() -> None:
    rows = {row.get("aria-label"): row.get("href") for row in ET.fromstring(drawn()).iter("a")}
    assert rows["TCP 5432: web to db, allowed"] == "/db/tcp5432"


def test_a_hostile_name_stays_text() -> None:
    assert "<script" not in drawn()
    assert all(part.tag != "script" for part in ET.fromstring(drawn()).iter())


def test_nothing_is_styled_inline() -> None:
    for part in ET.fromstring(drawn()).iter():
        assert {"style", "fill", "stroke", "font-family", "onload"}.isdisjoint(part.keys())


def test_the_same_graph_gives_the_same_bytes() -> None:
    first = drawn()
    drawing._dot.cache_clear()
    assert drawn() == first


def test_without_graphviz_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_args: object, **_kwargs: object) -> None:
        raise FileNotFoundError("dot")

    drawing._dot.cache_clear()
    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(drawing.DrawingError, match="apt install graphviz"):
        drawn()
