"""What is on a map, and what stands for what."""

import random

from aggregator.topology.dot import fitting, to_dot
from aggregator.topology.graph import (
    MOST_LINES,
    Band,
    DrawnLink,
    End,
    Fate,
    Graph,
    Look,
    namespace_graph,
    workload_graph,
)


def end(name: str, namespace: str = "shop", kind: str = "Deployment") -> End:
    return End(namespace=namespace, kind=kind, name=name)


def outside(name: str) -> End:
    return End(namespace="", kind="Address", name=name)


def link(src: End, dst: End, port: str = "TCP 80", fate: Fate = Fate.ALLOWED) -> DrawnLink:
    return DrawnLink(
        identity=f"{src.namespace}/{src.name}>{dst.namespace}/{dst.name}:{port}", src=src, dst=dst, port=port, fate=fate
    )


WEB, DB, PROBE, SHIP = end("web"), end("db"), end("probe", "monitoring"), end("ship", "monitoring")
LINKS = (link(WEB, DB, "TCP 5432"), link(PROBE, WEB), link(SHIP, WEB), link(WEB, PROBE, "TCP 9090"))


def bands(graph: Graph) -> dict[Band, list[str]]:
    return {band: [card.name for card in graph.cards if card.band is band] for band in Band}


def test_another_namespace_is_one_card_on_each_side() -> None:
    graph = namespace_graph(LINKS, "shop")
    assert bands(graph) == {Band.CALLER: ["monitoring"], Band.INSIDE: ["db", "web"], Band.CALLED: ["monitoring"]}
    folded = next(card for card in graph.cards if card.band is Band.CALLER)
    assert (folded.look, folded.note) == (Look.FOLDED, "namespace, 2 workloads")


def test_a_workloads_peers_each_have_a_card() -> None:
    graph = workload_graph(LINKS, frozenset({("shop", "Deployment", "web")}))
    assert bands(graph) == {Band.CALLER: ["probe", "ship"], Band.INSIDE: ["web"], Band.CALLED: ["probe", "db"]}
    assert [card.look for card in graph.cards if card.name == "web"] == [Look.SELF]


def test_links_of_one_port_end_on_one_row() -> None:
    graph = namespace_graph(LINKS, "shop")
    web = next(card for card in graph.cards if card.name == "web")
    assert [row.port for row in web.rows] == ["TCP 80"]
    assert len(web.rows[0].links) == 2


def test_a_row_says_what_becomes_of_each_of_its_links() -> None:
    links = [link(WEB, DB), link(end("job"), DB, fate=Fate.DENIED)]
    graph = namespace_graph(links, "shop")
    row = next(card for card in graph.cards if card.name == "db").rows[0]
    assert (row.fate, row.word) == (Fate.DENIED, "in part")
    assert row.title == "TCP 80: web to db, allowed; job to db, not allowed"


def test_a_folded_line_is_denied_when_one_of_its_links_is() -> None:
    links = [link(PROBE, WEB), link(SHIP, WEB, fate=Fate.DENIED)]
    (line,) = namespace_graph(links, "shop").lines
    assert line.fate is Fate.DENIED


def test_many_addresses_are_one_card() -> None:
    links = [link(WEB, outside(f"198.51.100.{number}"), "TCP 443") for number in range(20)]
    graph = namespace_graph(links, "shop")
    called = [card for card in graph.cards if card.band is Band.CALLED]
    assert [(card.name, card.note) for card in called] == [("addresses", "20 addresses outside the namespaces")]


def test_what_is_not_allowed_is_drawn_before_what_is_and_the_rest_is_counted() -> None:
    allowed = [link(WEB, end(f"a{number}")) for number in range(MOST_LINES + 30)]
    denied = [link(WEB, end(f"z{number}"), fate=Fate.DENIED) for number in range(5)]
    graph = namespace_graph([*allowed, *denied], "shop")
    assert graph.left_out == 35
    assert sum(line.fate is Fate.DENIED for line in graph.lines) == 5


def test_a_workload_without_links_has_a_card() -> None:
    assert bands(namespace_graph([], "shop", [end("idle")]))[Band.INSIDE] == ["idle"]


def test_the_order_of_links_does_not_matter() -> None:
    shuffled = list(LINKS)
    random.Random(7).shuffle(shuffled)
    assert to_dot(namespace_graph(shuffled, "shop")) == to_dot(namespace_graph(LINKS, "shop"))


def test_a_workload_that_calls_itself_is_drawn() -> None:
    graph = workload_graph([link(WEB, WEB)], frozenset({("shop", "Deployment", "web")}))
    assert [(line.src, line.dst) for line in graph.lines] == [(graph.cards[0].key, graph.cards[0].key)]


def test_names_enter_dot_as_text_only() -> None:
    hostile = '"]; x [label=<<B>>' + "\x00\n<script>&"
    text = to_dot(namespace_graph([link(WEB, end(hostile))], "shop"))
    assert "<script>" not in text
    assert "\x00" not in text
    assert hostile not in text


def test_a_long_name_is_shortened_to_what_fits() -> None:
    assert fitting("short", 13, 160) == "short"
    shortened = fitting("w" * 60, 13, 160)
    assert shortened.endswith("…")
    assert len(shortened) < 14
