"""The maps of a namespace and of a workload, drawn.

Enters: LinkRow views. Leaves: SVG, and what it leaves out. Nothing is decided here: a row's fate is what its view says.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from aggregator.services.question import WorkloadRef
from aggregator.services.topology_views import FateOf, drawn, fate_of, graph_of_namespace, graph_of_workloads
from aggregator.services.views import LinkRow, WorkloadRow
from aggregator.topology.graph import Band, Card, Graph, Look, Row
from aggregator.web.drawing import DrawingError, HeadHref, RowHref, draw
from aggregator.web.rendering import segment

_DNS_PORT = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    svg: Markup
    links: int
    left_out: int = 0
    problem: str = ""  # why there is no picture
    shown: frozenset[str] = frozenset()  # ids of the rows that are drawn
    cards: tuple[Card, ...] = ()


def infrastructure(row: LinkRow) -> bool:
    """What every workload has, and nobody looks for: DNS, and the nodes' own probes."""
    return row.peer.kind == "Nodes" or (row.port == _DNS_PORT and row.peer.namespace == "kube-system")


def namespace_map(base: str, namespace: str, rows: Sequence[LinkRow], workloads: Iterable[WorkloadRow]) -> Map:
    links = drawn(rows)
    graph = graph_of_namespace(namespace, rows, workloads)
    titles = {
        Band.CALLER: "Who calls in",
        Band.INSIDE: f"Workloads in {namespace}",
        Band.CALLED: "What they call",
    }
    by_id = {link.identity: link for link in links}

    def head(card: Card) -> str:
        end = card.end
        if end is not None and end.namespace == namespace:
            return f"{base}/workloads/{segment(end.namespace)}/{segment(end.kind)}/{segment(end.name)}"
        if card.band is Band.INSIDE:
            return "#list"
        folded = end is None and card.look is Look.FOLDED
        return f"{base}/namespaces/{segment(card.name)}" if folded else f"{base}/addresses"

    def href(card: Card, row: Row) -> str:
        end, tab = card.end, "ingress"
        if end is None or end.namespace != namespace:
            end, tab = by_id[row.links[0]].src, "egress"
        return f"{base}/workloads/{segment(end.namespace)}/{segment(end.kind)}/{segment(end.name)}/{tab}"

    return _map(graph, f"Map of {namespace}", titles, href, head, panel=True)


def workload_map(
    ref: WorkloadRef, rows: Sequence[LinkRow], href: RowHref, head: HeadHref, fate: FateOf = fate_of
) -> Map:
    graph = graph_of_workloads([(ref.namespace, ref.kind, ref.name)], rows, fate)
    titles = {Band.CALLER: f"Who calls {ref.name}", Band.INSIDE: "", Band.CALLED: f"What {ref.name} calls"}
    return _map(graph, f"Map of {ref.name}", titles, href, head, panel=False)


def _map(
    graph: Graph,
    label: str,
    titles: dict[Band, str],
    href: RowHref,
    head: HeadHref,
    *,
    panel: bool,
) -> Map:
    if not graph.cards:
        return Map(svg=Markup(), links=0)
    shown = frozenset(link for line in graph.lines for link in line.links)
    try:
        svg = draw(graph, label, titles, href, head, panel=panel)
    except DrawingError as exc:
        return Map(svg=Markup(), links=len(shown), left_out=graph.left_out, problem=str(exc))
    return Map(
        svg=Markup(svg),  # noqa: S704  # an XML writer made it
        links=len(shown),
        left_out=graph.left_out,
        shown=shown,
        cards=graph.cards,
    )
