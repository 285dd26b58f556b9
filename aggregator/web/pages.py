"""What is looked at: Home, a namespace, a workload and its policy, addresses, findings, agents.

Routes parse, ask one service for each part, and render; see saying.py for what changes something.
"""

from collections import Counter
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import RedirectResponse

from aggregator.errors import NotFoundError
from aggregator.services.keeping.events import WantedEvents
from aggregator.services.policies.previews import ExportKind
from aggregator.services.question import WorkloadRef
from aggregator.services.spans import parse_span
from aggregator.services.topology_views import fate_of
from aggregator.services.views import LinkRow, WorkloadRow
from aggregator.web.frame import VisitDep, allowed
from aggregator.web.maps import infrastructure, namespace_map
from aggregator.web.rendering import Values, segment
from aggregator.web.workload import (
    Tab,
    basic_values,
    consequences,
    head_values,
    proved_values,
    workload_values,
)

routes = APIRouter()
SHOWN = 100  # rows of a list, until more are asked for
MOST_SHOWN = 2000
DRIFT = WantedEvents(kinds=("new-link", "gone-link"))

NamespacePath = Annotated[str, Path(max_length=63)]
YAML = "application/yaml"  # RFC 9512


def _ref(
    namespace: NamespacePath, kind: Annotated[str, Path(max_length=63)], name: Annotated[str, Path(max_length=253)]
) -> WorkloadRef:
    return WorkloadRef(namespace=namespace, kind=kind, name=name)


RefDep = Annotated[WorkloadRef, Depends(_ref)]


@routes.get("/")
def home(visit: VisitDep) -> Response:
    namespaces = visit.review.namespaces(visit.caller)
    workloads = visit.review.workloads(visit.caller, span=visit.span)
    agents = allowed(lambda: visit.review.agents(visit.caller))
    by_namespace: dict[str, list[WorkloadRow]] = {row.name: [] for row in namespaces}
    for row in workloads:
        by_namespace.setdefault(row.namespace, []).append(row)
    coverage = {name: _coverage(rows) for name, rows in by_namespace.items()}
    drift = Counter(event.subject.partition("/")[0] for event in visit.review.events.events(visit.caller, DRIFT))
    words = visit.asked("q").casefold()
    listed = [row for row in namespaces if words in row.name.casefold()]
    most = _most(visit.asked("show"))
    return visit.page(
        "home.html",
        nav="home",
        namespaces=listed[:most],
        hidden=max(len(listed) - most, 0),
        more=visit.query(q=words, show=str(most * 4)),
        q=words,
        count=len(namespaces),
        drift=drift,
        all_workloads=workloads,
        coverage=coverage,
        total=_coverage(workloads),
        links=sum(row.egress_links for row in workloads),
        agents=agents,
    )


def _most(text: str) -> int:
    return min(int(text), MOST_SHOWN) if text.isdecimal() and int(text) else SHOWN


@routes.get("/namespaces/{namespace}/baselines")
def baselines(visit: VisitDep, namespace: NamespacePath) -> Response:
    """Asked for by the list of namespaces, row by row as each comes into sight."""
    states = visit.review.baseline_states(visit.caller, namespace)
    return visit.part("baselines.html", states=states)


def _coverage(rows: list[WorkloadRow]) -> dict[str, int]:
    return {
        "workloads": len(rows),
        "observed": sum(row.observed for row in rows),
        "ingress": sum("Ingress" in row.isolated for row in rows),
        "egress": sum("Egress" in row.isolated for row in rows),
    }


@routes.get("/go")
def go(
    visit: VisitDep,
    namespace: Annotated[str, Query(max_length=63)] = "",
    entity: Annotated[str, Query(max_length=320)] = "",
    was: Annotated[str, Query(max_length=63)] = "",
    tab: Annotated[str, Query(max_length=20)] = "",
    cluster: Annotated[str, Query(max_length=253)] = "",
    find: Annotated[str, Query(max_length=253)] = "",
    find_namespace: Annotated[str, Query(max_length=63, alias="find-namespace")] = "",
    first: Annotated[str, Query(max_length=20, alias="from")] = "",
    last: Annotated[str, Query(max_length=20, alias="to")] = "",
) -> Response:
    """The scope picker's way: to the page of what was chosen. Another cluster has other namespaces: to its Home."""
    kind, _, name = entity.partition("/")
    if first or last:  # of a date and time without a zone: UTC, as the labels say
        visit = replace(visit, span="..".join(f"{at}Z" if at else "" for at in (first, last)))
        parse_span(visit.span, visit.review.now)
    if cluster not in {"", visit.site.cluster}:
        if cluster not in visit.site.clusters:
            raise NotFoundError("there is no such cluster here")
        target = f"{visit.site.clusters[cluster]}/"
    elif find_namespace:
        return RedirectResponse(f"{visit.base}/{visit.query(q=find_namespace)}", status_code=303)
    elif find and namespace == was and find != name:
        there = f"{visit.base}/namespaces/{segment(namespace)}"
        return RedirectResponse(f"{there}{visit.query(w=find)}#list", status_code=303)
    elif not namespace:
        target = f"{visit.base}/"
    elif namespace == was and name:
        target = visit.path_of(WorkloadRef(namespace=namespace, kind=kind, name=name)) + (
            f"/{segment(tab)}" if tab else ""
        )
    else:
        target = f"{visit.base}/namespaces/{segment(namespace)}"
    return RedirectResponse(target + visit.query(), status_code=303)


@routes.get("/namespaces/{namespace}")
def namespace_page(
    visit: VisitDep,
    namespace: NamespacePath,
    q: Annotated[str, Query(max_length=100)] = "",
    verdict: Literal["", "allowed", "denied", "unknown"] = "",
    infra: Literal["", "1"] = "",
) -> Response:
    workloads = visit.review.workloads(visit.caller, namespace, span=visit.span)
    rows = visit.review.namespace_links(visit.caller, namespace, span=visit.span)
    hidden = 0 if infra else sum(infrastructure(row) for row in rows)
    shown = [
        row
        for row in rows
        if (infra or not infrastructure(row)) and _matches(row, q.lower()) and verdict in {"", fate_of(row).value}
    ]
    filtered = bool(q or verdict)
    words, most = visit.asked("w").casefold(), _most(visit.asked("show"))
    listed = [row for row in workloads if words in f"{row.name} {row.kind}".casefold()]
    drift = Counter(event.subject for event in visit.review.events.events(visit.caller, DRIFT))
    return visit.page(
        "namespace.html",
        nav="",
        namespace=namespace,
        workloads=workloads,
        listed=listed[:most],
        hidden_workloads=max(len(listed) - most, 0),
        more=visit.query(w=words, show=str(most * 4)),
        w=words,
        drift=drift,
        coverage=_coverage(workloads),
        summary=_summary(rows),
        fates=Counter(fate_of(row).value for row in rows if row.established),
        waiting=sum(row.proposal.reason in {"unresolved", "internal-unresolved"} for row in rows),
        map=namespace_map(visit.base, namespace, shown, () if filtered else workloads),
        hidden=hidden,
        filters={"q": q, "verdict": verdict, "infra": infra},
        infra_links=sum(infrastructure(row) for row in rows),
    )


def _matches(row: LinkRow, words: str) -> bool:
    ends = (row.workload.name, row.peer.name, row.peer.namespace, row.peer.address.ip if row.peer.address else "")
    text = " ".join((*ends, row.protocol, str(row.port), *row.services, *row.processes)).lower()
    return all(word in text for word in words.split())


def _summary(rows: list[LinkRow]) -> dict[tuple[str, str], Values]:
    """By (kind, name): who calls it, what it calls, what becomes of its links."""
    found: dict[tuple[str, str], Values] = {}

    def known(kind: str, name: str) -> Values:
        empty: Values = {"by": {}, "calls": {}, "fates": Counter()}
        return found.setdefault((kind, name), empty)

    for row in rows:
        if not row.established:
            continue
        own = known(row.workload.kind, row.workload.name)
        own["fates"][fate_of(row).value] += 1
        own["calls" if row.direction == "Egress" else "by"][row.peer.name or "hidden"] = True
        if row.direction == "Egress" and row.peer.namespace == row.workload.namespace:
            other = known(row.peer.kind, row.peer.name)
            other["fates"][fate_of(row).value] += 1
            other["by"][row.workload.name] = True
    return found


@routes.get("/namespaces/{namespace}/policy.yaml")
def download_namespace(visit: VisitDep, namespace: NamespacePath) -> Response:
    return _file(visit.review.proposal(visit.caller, namespace, span=visit.span).yaml, namespace)


def _file(yaml: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{segment(name)}.yaml"'}
    return Response(yaml, media_type=YAML, headers=headers)


@routes.get("/workloads/{namespace}/{kind}/{name}")
def workload(visit: VisitDep, ref: RefDep) -> Response:
    rows = visit.review.workload_links(visit.caller, ref, span=visit.span)
    tab = "egress" if any(row.direction == "Egress" for row in rows) else "ingress"
    return RedirectResponse(f"{visit.path_of(ref)}/{tab}{visit.query()}", status_code=303)


@routes.get("/workloads/{namespace}/{kind}/{name}/policy.yaml")
def download(visit: VisitDep, ref: RefDep) -> Response:
    return _file(visit.review.proposal(visit.caller, ref, span=visit.span).yaml, ref.name)


@routes.get("/workloads/{namespace}/{kind}/{name}/exports/{form}")
def export(visit: VisitDep, ref: RefDep, form: ExportKind) -> Response:
    """The tab of the policy in another form."""
    rows = visit.review.workload_links(visit.caller, ref, span=visit.span)
    values = basic_values(visit, ref, "policy", rows)
    found = visit.review.export(visit.caller, ref, form, span=visit.span)
    return visit.page("workload_export.html", nav="", export=found, **values, **head_values(visit, ref))


@routes.get("/workloads/{namespace}/{kind}/{name}/links/{identity}")
def evidence(visit: VisitDep, ref: RefDep, identity: Annotated[str, Path(max_length=24)]) -> Response:
    """What one row rests on, and why it is allowed or blocked now: below the row, or without a script as a page."""
    rows = visit.review.workload_links(visit.caller, ref, span=visit.span)
    row = next((row for row in rows if row.id == identity), None)
    if row is None:
        raise NotFoundError(f"{ref} has no such row in this span")
    explained = None if row.peer.masked else visit.review.explain_link(visit.caller, ref, identity)
    values = basic_values(visit, ref, "egress" if row.direction == "Egress" else "ingress", rows)
    values |= {"row": row, "explained": explained}
    if visit.htmx:
        return visit.part("evidence.html", **values)
    return visit.page("workload_link.html", nav="", **values, **head_values(visit, ref))


@routes.get("/workloads/{namespace}/{kind}/{name}/proof")
def proof(visit: VisitDep, ref: RefDep) -> Response:
    """The proof of a large proposal, asked for by the page once it is shown."""
    tab: Tab = "policy" if visit.asked("tab") == "policy" else "egress"
    values = basic_values(visit, ref, tab, visit.review.workload_links(visit.caller, ref, span=visit.span))
    values |= proved_values(visit, ref) | (consequences(visit, ref) if tab == "policy" else {})
    return visit.part("proved.html", **values)


@routes.get("/workloads/{namespace}/{kind}/{name}/{tab}")
def workload_tab(visit: VisitDep, ref: RefDep, tab: Tab) -> Response:
    values = workload_values(visit, ref, tab)
    if visit.htmx and visit.request.headers.get("hx-target") == "decide-rows":
        return visit.part("decide.html", **values)
    return visit.page(f"workload_{_template(tab)}.html", nav="", **values, **head_values(visit, ref))


def _template(tab: Tab) -> str:
    return "table" if tab in {"ingress", "egress"} else tab
