"""Views as topology's links, and the maps of a namespace and of a workload.

Enters: LinkRow views. Leaves: SVG, and what it leaves out. Nothing is decided here: a row's fate is what its view says.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from aggregator.services.question import WorkloadRef
from aggregator.services.views import LinkRow, PeerView, WorkloadRow
from aggregator.topology.graph import Band, Card, DrawnLink, End, Fate, Graph, Row, namespace_graph, workload_graph
from aggregator.web.drawing import DrawingError, draw
from aggregator.web.rendering import segment

_DNS_PORT = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    svg: Markup
    links: int
    left_out: int = 0
    problem: str = ""  # why there is no picture


def fate_of(row: LinkRow) -> Fate:
    if row.proposal.included:
        return Fate.ALLOWED
    return Fate.UNKNOWN if row.peer.masked or row.proposal.reason == "no-proposal" else Fate.DENIED


def infrastructure(row: LinkRow) -> bool:
    """What every workload has, and nobody looks for: DNS, and the nodes' own probes."""
    return row.peer.kind == "Nodes" or (row.port == _DNS_PORT and row.peer.namespace == "kube-system")


def namespace_map(base: str, namespace: str, rows: Iterable[LinkRow], workloads: Iterable[WorkloadRow]) -> Map:
    links = _drawn(rows)
    seen = {end for link in links for end in (link.src, link.dst)}
    idle = (_own_end(row) for row in workloads)
    graph = namespace_graph(links, namespace, [end for end in idle if end not in seen])
    titles = {
        Band.CALLER: "Who calls in",
        Band.INSIDE: f"Workloads in {namespace}",
        Band.CALLED: "What they call",
    }
    by_id = {link.identity: link for link in links}

    def href(card: Card, row: Row) -> str:
        end, tab = card.end, "ingress"
        if end is None or end.namespace != namespace:
            end, tab = by_id[row.links[0]].src, "egress"
        return f"{base}/workloads/{segment(end.namespace)}/{segment(end.kind)}/{segment(end.name)}/{tab}"

    return _map(graph, f"Map of {namespace}", titles, href, len(links), panel=True)


def workload_map(ref: WorkloadRef, rows: Sequence[LinkRow], href: Callable[[Card, Row], str]) -> Map:
    links = _drawn(rows)
    selected = frozenset((row.workload.namespace, row.workload.kind, row.workload.name) for row in rows)
    graph = workload_graph(links, selected or frozenset({(ref.namespace, ref.kind, ref.name)}))
    titles = {Band.CALLER: f"Who calls {ref.name}", Band.INSIDE: "", Band.CALLED: f"What {ref.name} calls"}
    return _map(graph, f"Map of {ref.name}", titles, href, len(links), panel=False)


def _map(
    graph: Graph,
    label: str,
    titles: dict[Band, str],
    href: Callable[[Card, Row], str],
    links: int,
    *,
    panel: bool,
) -> Map:
    if not graph.cards:
        return Map(svg=Markup(), links=0)
    try:
        svg = draw(graph, label, titles, href, panel=panel)
    except DrawingError as exc:
        return Map(svg=Markup(), links=links, problem=str(exc))
    return Map(svg=Markup(svg), links=links - graph.left_out, left_out=graph.left_out)  # noqa: S704  # an XML writer made it


def _drawn(rows: Iterable[LinkRow]) -> list[DrawnLink]:
    """Attempts that nobody answered are no links; a link inside the scope is drawn once."""
    found: dict[str, DrawnLink] = {}
    for row in rows:
        if not row.established:
            continue
        own, peer = _end(row.workload), _end(row.peer)
        src, dst = (own, peer) if row.direction == "Egress" else (peer, own)
        port = f"{row.protocol} {row.port}"
        found[row.id] = DrawnLink(
            identity=row.id, src=src, dst=dst, port=port, fate=fate_of(row), connections=row.connections
        )
    return list(found.values())


def _end(peer: PeerView) -> End:
    if peer.masked:
        return End(namespace="", kind="Masked", name="hidden", note="a namespace you may not see")
    if peer.address is not None:
        address = peer.address
        note = address.ip if address.alias else f"{address.address_class.capitalize()} address"
        return End(namespace="", kind="Address", name=address.alias or address.ip, note=note)
    if not peer.namespace:
        return End(namespace="", kind=peer.kind, name=peer.name, note="of the cluster")
    return End(namespace=peer.namespace, kind=peer.kind, name=peer.name)


def _own_end(row: WorkloadRow) -> End:
    return End(namespace=row.namespace, kind=row.kind, name=row.name)
