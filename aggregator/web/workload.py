"""One workload's page: what each of its tabs shows.

Enters: a Visit, a WorkloadRef, a tab. Leaves: the values of its templates. Invariant: a tab and the answer to a
decision made on it are rendered from the same values, so that they cannot tell two stories.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from aggregator.services.authority.caller import Resource, Verb
from aggregator.services.deciding.said_views import WorkloadDecisionsView
from aggregator.services.question import SERVICE_KIND, WorkloadRef
from aggregator.services.topology_views import fate_of
from aggregator.services.views import LinkRow
from aggregator.topology.graph import Card, Row
from aggregator.web.frame import BASE, Visit, allowed
from aggregator.web.maps import workload_map
from aggregator.web.rendering import Values, segment

Tab = Literal["ingress", "egress", "topology", "policy", "applied", "history"]
RULES = {
    "observed": "Observed rows",
    "block-all": "Block all",
    "allow-namespace": "Allow inside namespace",
    "allow-all": "Allow all",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    title: str
    rows: Sequence[LinkRow]


def path_of(ref: WorkloadRef) -> str:
    return f"{BASE}/workloads/{segment(ref.namespace)}/{segment(ref.kind)}/{segment(ref.name)}"


def workload_values(visit: Visit, ref: WorkloadRef, tab: Tab) -> Values:
    """What a tab shows, and what a decision on it changes. Raises NotFoundError, ForbiddenError."""
    rows = visit.review.workload_links(visit.caller, ref, span=visit.span)
    values = basic_values(visit, ref, tab, rows)
    decisions = values["decisions"]
    match tab:
        case "ingress" | "egress":
            values |= _proposal(visit, ref) | _table(ref, rows, decisions, tab)
            values["map"] = workload_map(ref, rows, _to_row(path_of(ref), rows, tab, visit.query()))
        case "topology":
            values |= _proposal(visit, ref)
            values["map"] = workload_map(ref, rows, lambda _card, row: f"#d-{row.links[0]}")
        case "policy":
            values |= _proposal(visit, ref) | _consequences(visit, ref)
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
    return {
        "ref": ref,
        "namespace": ref.namespace,
        "path": path_of(ref),
        "tab": tab,
        "rows": rows,
        "counts": {word: sum(row.direction.lower() == word for row in rows) for word in ("ingress", "egress")},
        "decisions": decisions,
        "editable": decisions is not None and visit.caller.may(Verb.UPDATE, Resource.DECISIONS, ref.namespace),
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


def _decisions(visit: Visit, ref: WorkloadRef) -> WorkloadDecisionsView | None:
    """None where the caller may not see them, and for a Service, which is a view."""
    if ref.kind == SERVICE_KIND:
        return None
    return allowed(lambda: visit.deciding.of_workload(visit.caller, ref))


def _proposal(visit: Visit, ref: WorkloadRef) -> Values:
    return {"proposal": allowed(lambda: visit.review.proposal(visit.caller, ref, span=visit.span))}


def _consequences(visit: Visit, ref: WorkloadRef) -> Values:
    return {
        "simulation": allowed(lambda: visit.review.simulation(visit.caller, ref, span=visit.span)),
        "diff": allowed(lambda: visit.review.diff(visit.caller, ref, span=visit.span)),
        "plan": allowed(lambda: visit.review.plan(visit.caller, ref, span=visit.span)),
    }


def _table(
    ref: WorkloadRef,
    rows: Sequence[LinkRow],
    decisions: WorkloadDecisionsView | None,
    tab: Literal["ingress", "egress"],
) -> Values:
    own = [row for row in rows if row.direction.lower() == tab]
    rule = next((r.rule for r in decisions.rules if r.direction.lower() == tab), None) if decisions else None
    cidrs = [c for c in decisions.cidrs if c.direction.lower() == tab] if decisions else []
    return {"groups": list(_grouped(own, ref.namespace)), "rule": rule or "observed", "rules": RULES, "cidrs": cidrs}


def _grouped(rows: Iterable[LinkRow], namespace: str) -> Iterable[Group]:
    found: dict[str, list[LinkRow]] = {
        f"In {namespace}": [],
        "In other namespaces": [],
        "Nodes and the API server": [],
        "Addresses that nothing in the cluster owns": [],
        "In namespaces that you may not see": [],
        "Attempts that nobody answered": [],
    }
    own, other, cluster, outside, hidden, attempts = found.values()
    for row in rows:
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
    return (Group(title=title, rows=members) for title, members in found.items() if members)


def _to_row(path: str, rows: Sequence[LinkRow], tab: str, query: str) -> Callable[[Card, Row], str]:
    """A row of the map leads to the row of the table."""
    directions = {row.id: row.direction.lower() for row in rows}

    def href(_card: Card, row: Row) -> str:
        identity = row.links[0]
        there = directions.get(identity, tab)
        return f"#row-{identity}" if there == tab else f"{path}/{there}{query}#row-{identity}"

    return href
