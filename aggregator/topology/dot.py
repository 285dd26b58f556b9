"""A Graph as DOT, Graphviz' own language.

Enters: a Graph. Leaves: text for `dot`. Invariant: the same Graph gives the same bytes; names of things in the cluster
only ever enter as escaped text; every line leaves the head of its caller and ends on the row that it calls.
Classes say what is what, so that one picture serves every theme; the colours here are those of the light one.
"""

from collections.abc import Iterable
from html import escape

from aggregator.topology.graph import Band, Card, Fate, Graph, Line, Look, Row

CARD_WIDTH = 172
_PAD = 12
# Widths in 1/1000 em of DejaVu Sans, the widest common face: what fits in it fits in any other.
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[] -"), frozenset("mwMWGOQ%@")
_WIDTHS = (400, 640, 1000)

_HEAD = """\
digraph "topology" {
  graph [rankdir=LR, nodesep=0.22, ranksep=%s, pad=0.03, bgcolor="transparent", outputorder=edgesfirst]
  node  [shape=plain, fontname="DejaVu Sans", fontsize=12, fontcolor="#15181c"]
  edge  [color="#15181c", penwidth=1.5, arrowsize=1]
"""
_STROKES = {
    Fate.ALLOWED: "",
    Fate.DENIED: ', style=dashed, color="#c1272d", arrowhead=tee, arrowsize=1.2',
    Fate.UNKNOWN: ', style=dotted, color="#875600", arrowhead=none',
}


def to_dot(graph: Graph) -> str:
    """`n0`, `n1`, ... are the cards, `k0`, `k1`, ... the lines, in the order of the Graph."""
    names = {card.key: f"n{number}" for number, card in enumerate(graph.cards)}
    inside = sum(card.band is Band.INSIDE for card in graph.cards)
    parts = [_HEAD % ("2.0" if inside <= 1 else "1.0")]  # inches: three columns have room for easy curves
    parts.extend(_card(names[card.key], card) for card in graph.cards)
    parts.extend(_line(number, line, names) for number, line in enumerate(graph.lines))
    parts.extend(_columns(graph, names))
    parts.append("}\n")
    return "".join(parts)


def fitting(text: str, size: int, pixels: int) -> str:
    """The text, or its beginning with an ellipsis, in so many pixels."""
    left = pixels * 1000 // size
    for number, letter in enumerate(text):
        left -= _width(letter)
        if left < 0:
            return text[: max(number - 2, 1)] + "…"
    return text


def _width(letter: str) -> int:
    if letter in _NARROW:
        return _WIDTHS[0]
    return _WIDTHS[2] if letter in _WIDE or ord(letter) > 0x2FF else _WIDTHS[1]


def _card(name: str, card: Card) -> str:
    inner = CARD_WIDTH - _PAD
    selected = card.look is Look.SELF
    paper = "#f6f7f9" if card.look in {Look.FOLDED, Look.OUTSIDE} else "#ffffff"
    frame = f'BORDER="{2 if selected else 1}" COLOR="{"#1d5bd6" if selected else "#cfd5dc"}" BGCOLOR="{paper}"'
    head = (
        f'<TR><TD PORT="calls" HEIGHT="52">{_TABLE}<TR><TD WIDTH="{_PAD}" HEIGHT="29"></TD>'
        f'<TD WIDTH="{inner}" ALIGN="LEFT" VALIGN="BOTTOM"><FONT POINT-SIZE="13"><B>'
        f'{_text(fitting(card.name, 14, inner - 8))}</B></FONT></TD></TR><TR><TD HEIGHT="23"></TD>'
        f'<TD ALIGN="LEFT" VALIGN="TOP"><FONT POINT-SIZE="11" COLOR="#5b6470">'
        f"{_text(fitting(card.note, 11, inner - 8))}</FONT></TD></TR></TABLE></TD></TR>"
    )
    rule = "<HR/>" if card.rows else ""
    rows = "".join(_row(row) for row in card.rows)
    look = "" if card.look is Look.PLAIN else f" {card.look.value}"
    return (
        f'  {name} [class="card {card.band.value}{look}", label=<<TABLE {frame} CELLBORDER="0" CELLSPACING="0" '
        f'CELLPADDING="0">{head}{rule}{rows}</TABLE>>]\n'
    )


_TABLE = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">'


def _row(row: Row) -> str:
    """HREF marks it: whoever draws puts the real address there."""
    half = (CARD_WIDTH - _PAD) // 2
    word = f'<FONT POINT-SIZE="11" COLOR="#5b6470">{_text(fitting(row.word, 11, half - 4))}</FONT>' if row.word else ""
    return (
        f'<TR><TD PORT="{row.key}" HREF="#row" TITLE="{_text(row.title)}" BGCOLOR="#ffffff">{_TABLE}'
        f'<TR><TD WIDTH="{_PAD}" HEIGHT="30"></TD><TD WIDTH="{half}" ALIGN="LEFT">{_text(row.port)}</TD>'
        f'<TD WIDTH="{half}" ALIGN="LEFT">{word}</TD>'
        "</TR></TABLE></TD></TR>"
    )


def _text(text: str) -> str:
    """Control characters have no place in a label, nor in XML."""
    return escape("".join(letter for letter in text if letter.isprintable()), quote=True)


def _line(number: int, line: Line, names: dict[str, str]) -> str:
    ends = f"{names[line.src]}:calls:e -> {names[line.dst]}:{line.row}:w"
    return f'  {ends} [class="{line.fate.value} k{number}"{_STROKES[line.fate]}]\n'


def _columns(graph: Graph, names: dict[str, str]) -> Iterable[str]:
    """Callers alone in the first column, what is called alone in the last one."""
    found = {band: [names[card.key] for card in graph.cards if card.band is band] for band in Band}
    for band, rank in ((Band.CALLER, "source"), (Band.CALLED, "sink")):
        if found[band] and found[Band.INSIDE]:
            yield f"  {{ rank={rank}; {'; '.join(found[band])} }}\n"
