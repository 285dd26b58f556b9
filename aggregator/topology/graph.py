"""Topology: links as a picture of cards and lines, still without places.

Enters: links with their ends and what becomes of them. Leaves: a Graph in three bands: who calls in, the scope's own
workloads, what they call. Invariant: the same links give the same Graph whatever their order; a line ends on a row of
its card; what is left out of a picture is counted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_LINES = 120  # past this a picture is no longer read; the rest is counted
MOST_IDLE = 24  # workloads without links that get a card of their own; more are one card together
MOST_OUTSIDE = 6  # addresses on one side that get a card of their own


class Fate(StrEnum):
    """What becomes of a link: in the proposal, not in it, or not known."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"


class Band(StrEnum):
    CALLER = "caller"
    INSIDE = "inside"
    CALLED = "called"


class Look(StrEnum):
    """How a card is drawn."""

    PLAIN = "plain"
    SELF = "self"  # the selected workload
    FOLDED = "folded"  # another namespace, as one card
    OUTSIDE = "outside"  # nothing that the cluster owns


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class End:
    """One end of a link as it is drawn; without a namespace it is outside of all of them."""

    namespace: str
    kind: str
    name: str
    note: str = ""  # what the card says below the name


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLink:
    identity: str
    src: End
    dst: End
    port: str
    fate: Fate
    connections: int = 0
    services: tuple[str, ...] = ()  # by which it went, as "name:port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A port of a card. `links` are those that end on it."""

    key: str
    port: str
    fate: Fate
    word: str
    title: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    key: str
    name: str
    note: str
    look: Look
    band: Band
    rows: tuple[Row, ...]
    end: End | None = None  # None when it stands for several


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    src: str
    dst: str
    row: str
    fate: Fate
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    cards: tuple[Card, ...]
    lines: tuple[Line, ...]
    left_out: int  # links that the picture has no room for


def workload_graph(links: Iterable[DrawnLink], selected: frozenset[tuple[str, str, str]]) -> Graph:
    """Of the workloads with these (namespace, kind, name): every other end has a card of its own."""

    def own(end: End) -> bool:
        return (end.namespace, end.kind, end.name) in selected

    return _drawn(links, own, fold=False)


def namespace_graph(links: Iterable[DrawnLink], namespace: str, idle: Iterable[End] = ()) -> Graph:
    """Every workload of a namespace; other namespaces are folded. `idle` ones have no links and get a card, too."""

    def own(end: End) -> bool:
        return end.namespace == namespace

    return _drawn(links, own, fold=True, idle=sorted(idle))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The card that an end is drawn on."""

    key: str
    name: str
    look: Look
    band: Band
    end: End | None = None


def _drawn(links: Iterable[DrawnLink], own: Callable[[End], bool], *, fold: bool, idle: Sequence[End] = ()) -> Graph:
    ordered = sorted(links, key=_urgency)
    shown, left_out = ordered[:MOST_LINES], len(ordered[MOST_LINES:])
    crowded = {band: len(_outside(shown, band)) > MOST_OUTSIDE for band in (Band.CALLER, Band.CALLED)}

    def place(end: End, band: Band) -> _Place:
        if own(end):
            look = Look.PLAIN if fold else Look.SELF
            return _Place(
                key=f"in/{end.kind}/{end.namespace}/{end.name}", name=end.name, look=look, band=Band.INSIDE, end=end
            )
        side = "from" if band is Band.CALLER else "to"
        if not end.namespace:
            if crowded[band] and end.kind == "Address":
                return _Place(key=f"{side}/outside", name="addresses", look=Look.OUTSIDE, band=band)
            return _Place(key=f"{side}/@{end.kind}/{end.name}", name=end.name, look=Look.OUTSIDE, band=band, end=end)
        if fold:
            return _Place(key=f"{side}/{end.namespace}", name=end.namespace, look=Look.FOLDED, band=band)
        key = f"{side}/{end.kind}/{end.namespace}/{end.name}"
        return _Place(key=key, name=end.name, look=Look.PLAIN, band=band, end=end)

    places: dict[str, _Place] = {}
    members: dict[str, dict[End, None]] = {}
    arrivals: dict[tuple[str, str], list[DrawnLink]] = {}
    lines: dict[tuple[str, str, str], list[DrawnLink]] = {}
    silent = _Place(key="in/~silent", name="silent workloads", look=Look.FOLDED, band=Band.INSIDE)
    for end in idle:
        known = place(end, Band.INSIDE) if len(idle) <= MOST_IDLE else silent
        places[known.key] = known
        members.setdefault(known.key, {})[end] = None
    for link in shown:
        src, dst = place(link.src, Band.CALLER), place(link.dst, Band.CALLED)
        for spot, end in ((src, link.src), (dst, link.dst)):
            places[spot.key] = spot
            members.setdefault(spot.key, {})[end] = None
        arrivals.setdefault((dst.key, link.port), []).append(link)
        lines.setdefault((src.key, dst.key, link.port), []).append(link)
    rows: dict[str, list[Row]] = {}
    for (key, port), found in sorted(arrivals.items()):
        rows.setdefault(key, []).append(_row(places[key], port, found))
    return Graph(
        cards=tuple(
            Card(
                key=spot.key,
                name=spot.name,
                note=_note(spot, tuple(members[spot.key])),
                look=spot.look,
                band=spot.band,
                rows=tuple(rows.get(spot.key, ())),
                end=spot.end,
            )
            for spot in sorted(places.values(), key=lambda spot: spot.key)
        ),
        lines=tuple(
            Line(src=src, dst=dst, row=_key(port), fate=_fate(found), links=tuple(link.identity for link in found))
            for (src, dst, port), found in sorted(lines.items())
        ),
        left_out=left_out,
    )


def _urgency(link: DrawnLink) -> tuple[int, int, End, End, str, str]:
    """What is not allowed is never what there is no room for."""
    return (link.fate is Fate.ALLOWED, -link.connections, link.src, link.dst, link.port, link.identity)


def _outside(links: Sequence[DrawnLink], band: Band) -> frozenset[End]:
    ends = (link.src if band is Band.CALLER else link.dst for link in links)
    return frozenset(end for end in ends if not end.namespace and end.kind == "Address")


def _note(place: _Place, ends: Sequence[End]) -> str:
    if place.end is not None and len(ends) > 1:
        return _count(len(ends), "address")  # of one alias
    if place.end is not None:
        return place.end.note or place.end.kind
    if place.look is Look.FOLDED and place.band is Band.INSIDE:
        return f"{_count(len(ends), 'workload')} without links"
    if place.look is Look.FOLDED:
        return f"namespace, {_count(len(ends), 'workload')}"
    return f"{_count(len(ends), 'address')} outside the namespaces"


def _count(number: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{number} {word if number == 1 else plural}"


_WORDS: Mapping[Fate, str] = {Fate.ALLOWED: "", Fate.DENIED: "not allowed", Fate.UNKNOWN: "unknown"}
_SAID: Mapping[Fate, str] = {Fate.ALLOWED: "allowed", Fate.DENIED: "not allowed", Fate.UNKNOWN: "unknown"}


def _fate(links: Sequence[DrawnLink]) -> Fate:
    fates = {link.fate for link in links}
    if Fate.DENIED in fates:
        return Fate.DENIED
    return Fate.UNKNOWN if Fate.UNKNOWN in fates else Fate.ALLOWED


def _row(place: _Place, port: str, links: Sequence[DrawnLink]) -> Row:
    fate = _fate(links)
    by_fate: dict[Fate, dict[str, None]] = {}
    for link in links:
        by_fate.setdefault(link.fate, {})[link.src.name] = None
    said = "; ".join(
        f"{', '.join(by_fate[known])} to {place.name}, {_SAID[known]}" for known in Fate if known in by_fate
    )
    mixed = len(by_fate) > 1 and fate is Fate.DENIED
    services = tuple(dict.fromkeys(name for link in links for name in link.services))
    through = f", through Service {' and '.join(services)}" if services else ""
    via = f"via {services[0].partition(':')[0]}" if services else ""
    return Row(
        key=_key(port),
        port=port,
        fate=fate,
        word="in part" if mixed else _WORDS[fate] or via,
        title=f"{port}: {said}{through}",
        links=tuple(link.identity for link in links),
    )


def _key(port: str) -> str:
    return "".join(letter for letter in port.lower() if letter.isalnum())
