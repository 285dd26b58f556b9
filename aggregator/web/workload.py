"""One workload's page: what each of its tabs shows.

Enters: a Visit, a WorkloadRef, a tab. Leaves: the values of its templates. Invariant: a tab and the answer to a
decision made on it are rendered from the same values, so that they cannot tell two stories.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, assert_never

from aggregator.services.authority.caller import Resource, Verb
from aggregator.services.deciding.said_views import WorkloadDecisionsView
from aggregator.services.paging import Wanted, filtered
from aggregator.services.question import SERVICE_KIND, WorkloadRef
from aggregator.services.topology_views import applied_fate_of, end_of, fate_of
from aggregator.services.views import LinkRow
from aggregator.topology.graph import Card, Row
from aggregator.web.besides import announced, obstacles
from aggregator.web.frame import Visit, allowed
from aggregator.web.maps import Map, workload_map
from aggregator.web.rendering import Values

Tab = Literal["ingress", "egress", "topology", "policy", "applied", "history"]
RULES = {
    "observed": "Observed rows",
    "block-all": "Block all",
    "allow-namespace": "Allow inside namespace",
    "allow-all": "Allow all",
}
ROWS_SHOWN = 50  # of a table, until more are asked for
MOST_ROWS_SHOWN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    title: str
    total: int
    rows: Sequence[LinkRow]


@dataclass(slots=True, kw_only=True)
class CardPane:
    """What the pane of the map says of one card."""

    number: int
    name: str
    kind: str
    namespace: str
    labels: dict[str, str] = field(default_factory=dict)
    services: dict[str, None] = field(default_factory=dict)
    pods: dict[str, None] = field(default_factory=dict)
    ports: dict[str, None] = field(default_factory=dict)
    note: str = ""


def workload_values(visit: Visit, ref: WorkloadRef, tab: Tab) -> Values:
    """What a tab shows, and what a decision on it changes. Raises NotFoundError, ForbiddenError."""
    rows = visit.review.workload_links(visit.caller, ref, span=visit.span)
    values = basic_values(visit, ref, tab, rows)
    decisions = values["decisions"]
    match tab:
        case "ingress" | "egress":
            own = f"{visit.path_of(ref)}/topology{visit.query()}"
            to_row = _to_row(visit.path_of(ref), rows, tab, visit.query())
            with ThreadPoolExecutor(max_workers=1) as beside:  # Graphviz is a process of its own: the proof goes on
                drawing = beside.submit(workload_map, ref, rows, to_row, lambda _card: own)
                values |= draft_values(visit, ref) | _table(visit, ref, rows, decisions, tab)
                values["announced"] = announced(values["proposal"], rows, ref, tab)
                values["map"] = drawing.result()
        case "topology":
            values |= draft_values(visit, ref) | _topology(visit, ref, rows)
        case "policy":
            values |= draft_values(visit, ref)
            values |= consequences(visit, ref) if values["proved"] else {}
        case "applied":
            values["applied"] = allowed(lambda: visit.review.applied(visit.caller, ref, span=visit.span))
        case "history":
            pass
        case other:
            assert_never(other)
    return values


def basic_values(visit: Visit, ref: WorkloadRef, tab: Tab, rows: Sequence[LinkRow]) -> Values:
    """What every tab has."""
    decisions = _decisions(visit, ref)
    may = visit.caller.may
    return {
        "ref": ref,
        "namespace": ref.namespace,
        "path": visit.path_of(ref),
        "tab": tab,
        "rows": rows,
        "counts": {word: sum(row.direction.lower() == word for row in rows) for word in ("ingress", "egress")},
        "decisions": decisions,
        "editable": decisions is not None and may(Verb.UPDATE, Resource.DECISIONS, ref.namespace),
        "may_freeze": decisions is not None and may(Verb.UPDATE, Resource.BASELINES, ref.namespace),
        "may_name": may(Verb.UPDATE, Resource.ADDRESSES),
        "fate_of": fate_of,
        "is_service": ref.kind == SERVICE_KIND,
        "problem": "",
        "done": "",
    }


def head_values(visit: Visit, ref: WorkloadRef) -> Values:
    """What stands above the tabs."""
    workloads = visit.review.workloads(visit.caller, ref.namespace)
    known = next((row for row in workloads if (row.kind, row.name) == (ref.kind, ref.name)), None)
    baseline = None
    if ref.kind != SERVICE_KIND:
        baseline = allowed(lambda: visit.review.baseline(visit.caller, ref))
    return {"workloads": workloads, "known": known, "baseline": baseline}


def draft_values(visit: Visit, ref: WorkloadRef) -> Values:
    """The proposal, proved where that is at hand or quick; the page asks for the proof of a large one by itself."""
    draft = allowed(lambda: visit.review.draft(visit.caller, ref, span=visit.span))
    proposal = draft.proposal if draft else None
    return {"proposal": proposal, "proved": draft.proved if draft else True, "obstacles": obstacles(proposal)}


def proved_values(visit: Visit, ref: WorkloadRef) -> Values:
    """The proposal with its proof, however long that takes."""
    proposal = allowed(lambda: visit.review.proposal(visit.caller, ref, span=visit.span))
    return {"proposal": proposal, "proved": True, "obstacles": obstacles(proposal)}


def consequences(visit: Visit, ref: WorkloadRef) -> Values:
    return {
        "simulation": allowed(lambda: visit.review.simulation(visit.caller, ref, span=visit.span)),
        "diff": allowed(lambda: visit.review.diff(visit.caller, ref, span=visit.span)),
        "plan": allowed(lambda: visit.review.plan(visit.caller, ref, span=visit.span)),
    }


def _decisions(visit: Visit, ref: WorkloadRef) -> WorkloadDecisionsView | None:
    """None where the caller may not see them, and for a Service, which is a view."""
    if ref.kind == SERVICE_KIND:
        return None
    return allowed(lambda: visit.deciding.of_workload(visit.caller, ref))


def _table(
    visit: Visit,
    ref: WorkloadRef,
    rows: Sequence[LinkRow],
    decisions: WorkloadDecisionsView | None,
    tab: Literal["ingress", "egress"],
) -> Values:
    """The rows that pass the filter, as many as are asked for; the rest is counted."""
    words, most = visit.asked("q"), _most(visit.asked("show"))
    own = filtered([row for row in rows if row.direction.lower() == tab], Wanted(search=words))
    rule = next((r.rule for r in decisions.rules if r.direction.lower() == tab), None) if decisions else None
    cidrs = [c for c in decisions.cidrs if c.direction.lower() == tab] if decisions else []
    return {
        "groups": list(_grouped(own, ref.namespace, most)),
        "rule": rule or "observed",
        "rules": RULES,
        "cidrs": cidrs,
        "q": words,
        "show": most,
        "hidden_rows": max(len(own) - most, 0),
        "state": visit.query(q=words, show=str(most) if most != ROWS_SHOWN else ""),
        "more": visit.query(q=words, show=str(min(most * 4, MOST_ROWS_SHOWN))),
    }


def _most(text: str) -> int:
    return min(int(text), MOST_ROWS_SHOWN) if text.isdecimal() and int(text) else ROWS_SHOWN


def _grouped(rows: Iterable[LinkRow], namespace: str, most: int) -> Iterable[Group]:
    """What asks for a person comes into a cut table first, then by how much it is used."""
    found: dict[str, list[LinkRow]] = {
        f"In {namespace}": [],
        "In other namespaces": [],
        "Nodes and the API server": [],
        "Addresses that nothing in the cluster owns": [],
        "In namespaces that you may not see": [],
        "Attempts that nobody answered": [],
    }
    own, other, cluster, outside, hidden, attempts = found.values()
    listed = list(rows)
    if len(listed) > most:
        urgent = sorted(listed, key=lambda row: (row.proposal.included, row.decision is not None, -row.connections))
        kept = {row.id for row in urgent[:most]}
    else:
        kept = {row.id for row in listed}
    for row in listed:
        if not row.established:
            attempts.append(row)
        elif row.peer.masked:
            hidden.append(row)
        elif row.peer.address is not None:
            outside.append(row)
        elif not row.peer.namespace:
            cluster.append(row)
        else:
            (own if row.peer.namespace == namespace else other).append(row)
    for title, members in found.items():
        shown = [row for row in members if row.id in kept]
        if shown:
            yield Group(title=title, total=len(members), rows=shown)


def _to_row(path: str, rows: Sequence[LinkRow], tab: str, query: str) -> Callable[[Card, Row], str]:
    """A row of the map leads to the row of the table."""
    directions = {row.id: row.direction.lower() for row in rows}

    def href(_card: Card, row: Row) -> str:
        identity = row.links[0]
        there = directions.get(identity, tab)
        return f"#row-{identity}" if there == tab else f"{path}/{there}{query}#row-{identity}"

    return href


def _topology(visit: Visit, ref: WorkloadRef, rows: Sequence[LinkRow]) -> Values:
    """The map under the proposal, or under what is applied now, with a pane for each of its links and cards."""
    under = "applied" if visit.asked("under") == "applied" else ""
    numbers: dict[str, int] = {}

    def head(card: Card) -> str:
        return f"#w-{numbers.setdefault(card.key, len(numbers))}"

    fate = applied_fate_of if under else fate_of
    drawn = workload_map(ref, rows, lambda _card, row: f"#d-{row.links[0]}", head, fate)
    return {
        "map": drawn,
        "under": under,
        "state": visit.query(under=under),
        "drawn_rows": sorted(
            (r for r in rows if r.id in drawn.shown), key=lambda r: (r.proposal.included, r.direction)
        ),
        "cards": _panes(drawn, numbers, rows),
    }


def _panes(drawn: Map, numbers: dict[str, int], rows: Sequence[LinkRow]) -> list[CardPane]:
    found: list[CardPane] = []
    for card in drawn.cards:
        end = card.end
        pane = CardPane(
            number=numbers[card.key],
            name=card.name,
            kind=end.kind if end else card.note,
            namespace=end.namespace if end else "",
            note=card.note,
        )
        pane.ports = {row.port: None for row in card.rows}
        for row in rows:
            for peer, pods in ((row.peer, row.peer_pods), (row.workload, row.workload_pods)):
                if end is not None and end_of(peer) == end:
                    pane.labels |= peer.labels
                    pane.pods |= dict.fromkeys(pods)
                    called = (row.direction == "Egress") == (peer is row.peer)
                    pane.services |= dict.fromkeys(row.services) if called else {}
        found.append(pane)
    return found
