"""The map of a scope as a caller is shown it: cards, their ports, and the lines between them.

Enters: LinkRow and WorkloadRow views, already masked. Leaves: topology's links, a Graph, a TopologyView. Invariant: a
row's fate on the map is what its view says; nothing is decided here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from aggregator.services.views import LinkRow, PeerView, WorkloadRow
from aggregator.topology.dot import to_dot
from aggregator.topology.graph import Card, DrawnLink, End, Fate, Graph, namespace_graph, workload_graph

FateWord = Literal["allowed", "denied", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PortView:
    """A port that is called on a card. `text` says by whom, and what becomes of it."""

    port: str
    fate: FateWord
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CardView:
    """A workload, or what stands for several: another namespace, addresses outside."""

    key: str
    band: Literal["caller", "inside", "called"]
    name: str
    note: str
    namespace: str
    kind: str
    ports: list[PortView]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineView:
    """From a card to a port of another one. `links` are ids of rows."""

    src: str
    dst: str
    port: str
    fate: FateWord
    links: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyView:
    scope: str
    span: str
    cards: list[CardView]
    lines: list[LineView]
    left_out: int  # links that the picture has no room for
    dot: str


def graph_of_namespace(namespace: str, rows: Iterable[LinkRow], workloads: Iterable[WorkloadRow]) -> Graph:
    """Every workload of the namespace, also the silent ones; other namespaces are folded."""
    links = drawn(rows)
    seen = {end for link in links for end in (link.src, link.dst)}
    idle = (End(namespace=row.namespace, kind=row.kind, name=row.name) for row in workloads)
    return namespace_graph(links, namespace, [end for end in idle if end not in seen])


def graph_of_workloads(
    selected: Iterable[tuple[str, str, str]], rows: Sequence[LinkRow], fate: "FateOf | None" = None
) -> Graph:
    """Of the workloads with these (namespace, kind, name) and of those that own the rows."""
    own = frozenset((row.workload.namespace, row.workload.kind, row.workload.name) for row in rows)
    return workload_graph(drawn(rows, fate or fate_of), own or frozenset(selected))


def topology_view(graph: Graph, *, scope: str, span: str) -> TopologyView:
    ports = {(card.key, row.key): row.port for card in graph.cards for row in card.rows}
    return TopologyView(
        scope=scope,
        span=span,
        cards=[_card(card) for card in graph.cards],
        lines=[
            LineView(
                src=line.src,
                dst=line.dst,
                port=ports[line.dst, line.row],
                fate=line.fate.value,
                links=list(line.links),
            )
            for line in graph.lines
        ],
        left_out=graph.left_out,
        dot=to_dot(graph),
    )


def _card(card: Card) -> CardView:
    return CardView(
        key=card.key,
        band=card.band.value,
        name=card.name,
        note=card.note,
        namespace=card.end.namespace if card.end else "",
        kind=card.end.kind if card.end else "",
        ports=[PortView(port=row.port, fate=row.fate.value, text=row.title) for row in card.rows],
    )


FateOf = Callable[[LinkRow], Fate]


def drawn(rows: Iterable[LinkRow], fate: FateOf | None = None) -> list[DrawnLink]:
    """Attempts that nobody answered are no links; a link inside the scope is drawn once."""
    judge = fate or fate_of
    found: dict[str, DrawnLink] = {}
    for row in rows:
        if not row.established:
            continue
        own, peer = end_of(row.workload), end_of(row.peer)
        src, dst = (own, peer) if row.direction == "Egress" else (peer, own)
        port = f"{row.protocol} {row.port}"
        found[row.id] = DrawnLink(
            identity=row.id,
            src=src,
            dst=dst,
            port=port,
            fate=judge(row),
            connections=row.connections,
            services=tuple(name.rpartition("/")[2] for name in row.services),
        )
    return list(found.values())


def fate_of(row: LinkRow) -> Fate:
    if row.proposal.included:
        return Fate.ALLOWED
    return Fate.UNKNOWN if row.peer.masked or row.proposal.reason == "no-proposal" else Fate.DENIED


def applied_fate_of(row: LinkRow) -> Fate:
    """Under the policies that are applied now."""
    return Fate(row.applied.verdict)


def end_of(peer: PeerView) -> End:
    if peer.masked:
        return End(namespace="", kind="Masked", name="hidden", note="a namespace you may not see")
    if peer.address is not None:
        address = peer.address
        note = address.ip if address.alias else f"{address.address_class.capitalize()} address"
        return End(namespace="", kind="Address", name=address.alias or address.ip, note=note)
    if not peer.namespace:
        return End(namespace="", kind=peer.kind, name=peer.name, note="of the cluster")
    return End(namespace=peer.namespace, kind=peer.kind, name=peer.name)
