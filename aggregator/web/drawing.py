"""A Graph as the SVG that a page embeds: Graphviz places, the style sheet paints.

Enters: a Graph and where its rows lead. Leaves: SVG text. `dot` writes colours, fonts and sizes as attributes; here
they become classes, so that one picture serves both themes. Invariant: text comes out of the Graph's values through an
XML writer, never by concatenation; the same Graph gives the same bytes.
"""

import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from aggregator.errors import WattleError
from aggregator.topology.dot import to_dot
from aggregator.topology.graph import Band, Card, Graph, Row

SVG = "{http://www.w3.org/2000/svg}"
HEAD_HEIGHT = 52  # of a card
HEAD, FOOT = 36, 16  # room for the bands' headings
DEADLINE_SECONDS = 10.0

Frame = tuple[float, float, float, float]
RowHref = Callable[[Card, Row], str]
HeadHref = Callable[[Card], str]


class DrawingError(WattleError):
    """Graphviz could not draw the map."""


def draw(graph: Graph, label: str, titles: Mapping[Band, str], href: RowHref, head: HeadHref, *, panel: bool) -> str:
    """Raises DrawingError."""
    source = ET.fromstring(_dot(to_dot(graph)))  # noqa: S314  # from Graphviz, over names that were escaped
    root = source.find(f"{SVG}g")
    if root is None:
        raise DrawingError("Graphviz drew nothing")
    dx, dy = _moved(root)
    *_, width, height = map(float, source.get("viewBox", "0 0 0 0").split())
    out = ET.Element("svg", {"class": "map", "role": "group", "aria-label": label})
    body = ET.SubElement(out, "g")
    groups = [(group.get("class", "").split(), group) for group in root.findall(f"{SVG}g")]
    lines = [group for classes, group in groups if classes[:1] == ["edge"]]
    for line in sorted(lines, key=_number):
        _draw_line(body, line, graph)
    frames = {}
    touching = _touching(graph)
    cards = [group for classes, group in groups if classes[:1] == ["node"]]
    for group in cards:
        card = graph.cards[int((group.findtext(f"{SVG}title") or "n0")[1:])]
        frames[card.key] = _draw_card(body, group, card, href, head(card), touching.get(card.key, ()))
    dy, height = dy + HEAD, height + HEAD + FOOT
    _draw_bands(out, graph, frames, titles, dx, height, panel=panel)
    body.set("transform", f"translate({dx:g},{dy:g})")
    left, right = (0.0, width) if not panel else (-18.0, width + 36)
    out.set("viewBox", f"{left:g} 0 {right:g} {height:g}")
    out.set("width", f"{right:g}")
    out.set("height", f"{height:g}")
    return ET.tostring(out, encoding="unicode")


@lru_cache(maxsize=64)
def _dot(source: str) -> str:
    try:
        ran = subprocess.run(
            ["dot", "-Tsvg"], input=source, capture_output=True, text=True, check=True, timeout=DEADLINE_SECONDS
        )
    except FileNotFoundError as exc:
        raise DrawingError("the map needs Graphviz, and `dot` is not installed: apt install graphviz") from exc
    except subprocess.TimeoutExpired as exc:
        raise DrawingError("the map has too many links to draw in time: filter, or open one workload") from exc
    except subprocess.CalledProcessError as exc:
        raise DrawingError(f"Graphviz refused the map: {exc.stderr.strip()[:200]}") from exc
    return ran.stdout


def _moved(root: ET.Element) -> tuple[float, float]:
    found = re.search(r"translate\((\S+) (\S+)\)", root.get("transform", ""))
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


def _number(line: ET.Element) -> int:
    return int(line.get("class", "k0").rpartition("k")[2])


def _draw_line(parent: ET.Element, group: ET.Element, graph: Graph) -> None:
    line = graph.lines[_number(group)]
    drawn = ET.SubElement(parent, "g", {"class": f"link {line.fate.value}", "data-links": " ".join(line.links)})
    for path in group.findall(f"{SVG}path"):
        ET.SubElement(drawn, "path", {"class": "line", "d": path.get("d", "")})
    for tip in group.findall(f"{SVG}polygon"):
        ET.SubElement(drawn, "polygon", {"class": "tip", "points": tip.get("points", "")})
    for stem in group.findall(f"{SVG}polyline"):
        ET.SubElement(drawn, "polyline", {"class": "line", "points": stem.get("points", "").strip()})


def _touching(graph: Graph) -> Mapping[str, Sequence[str]]:
    """By card: every link that begins or ends on it."""
    found: dict[str, dict[str, None]] = {}
    for line in graph.lines:
        for key in (line.src, line.dst):
            found.setdefault(key, {}).update(dict.fromkeys(line.links))
    return {key: tuple(links) for key, links in found.items()}


def _draw_card(
    parent: ET.Element, group: ET.Element, card: Card, href: RowHref, head: str, links: Sequence[str]
) -> Frame:
    classes = group.get("class", "").removeprefix("node ")
    drawn = ET.SubElement(parent, "g", {"class": classes, "role": "group", "aria-label": f"{card.name}, {card.note}"})
    shapes = [shape for shape in group.findall(f"{SVG}polygon") if shape.get("points")]
    frame = next(_box(shape) for shape in shapes if shape.get("fill") != "none")
    _rect(drawn, "box", frame, 6)
    for rule in (_box(shape) for shape in shapes if _box(shape)[3] == 0):
        ET.SubElement(drawn, "path", {"class": "rule", "d": f"M{frame[0]:g},{rule[1]:g}h{frame[2]:g}"})
    top = ET.SubElement(drawn, "a", {"class": "row head", "href": head, "data-links": " ".join(links)})
    ET.SubElement(top, "title").text = f"{card.name}, {card.note}"
    _rect(top, "hit", (frame[0], frame[1], frame[2], HEAD_HEIGHT), 4, inset=2.5)
    for part in group.findall(f"{SVG}text"):
        _text(top, "name" if part.get("font-weight") else "kind", part)
    for row, link in zip(card.rows, _links(group), strict=True):
        _draw_row(drawn, link, row, href(card, row))
    return frame


def _links(group: ET.Element) -> Sequence[ET.Element]:
    """In reading order, which is that of the card's rows."""
    return sorted(group.iter(f"{SVG}a"), key=lambda link: _box(link.find(f"{SVG}polygon"))[1])


def _draw_row(parent: ET.Element, link: ET.Element, row: Row, href: str) -> None:
    known = {"class": f"row {row.fate.value}", "href": href, "aria-label": row.title, "data-links": " ".join(row.links)}
    drawn = ET.SubElement(parent, "a", known)
    _rect(drawn, "hit", _box(link.find(f"{SVG}polygon")), 4, inset=2.5)
    for name, part in zip(("port", "verdict"), link.iter(f"{SVG}text"), strict=False):
        _text(drawn, name, part)


def _draw_bands(
    out: ET.Element,
    graph: Graph,
    frames: Mapping[str, Frame],
    titles: Mapping[Band, str],
    dx: float,
    height: float,
    *,
    panel: bool,
) -> None:
    """Headings over the three groups of columns, and a panel behind the middle one."""
    for place, (band, title) in enumerate(titles.items()):
        found = [frames[card.key] for card in graph.cards if card.band is band]
        group = ET.Element("g", {"class": f"band {band.value}"})
        if found:
            left, right = min(x for x, *_ in found) + dx, max(x + w for x, _, w, _ in found) + dx
            if band is Band.INSIDE and panel:
                _rect(group, "panel", (left - 16, 0.5, right - left + 32, height - 1), 8)
            ET.SubElement(group, "text", {"x": f"{left:g}", "y": "22"}).text = title
        out.insert(place, group)


def _box(shape: ET.Element | None) -> Frame:
    points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", shape.get("points", "") if shape is not None else "")
    xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
    return (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


def _rect(parent: ET.Element, name: str, frame: Frame, radius: int, inset: float = 0) -> None:
    x, y, w, h = frame
    size = {"x": x + inset, "y": y + inset, "width": w - 2 * inset, "height": h - 2 * inset, "rx": radius}
    ET.SubElement(parent, "rect", {"class": name} | {key: f"{value:g}" for key, value in size.items()})


def _text(parent: ET.Element, name: str, source: ET.Element) -> None:
    place = {"class": name, "x": source.get("x", ""), "y": source.get("y", "")}
    ET.SubElement(parent, "text", place).text = source.text
