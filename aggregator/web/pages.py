"""What is looked at: Home, a namespace, a workload and its policy, addresses, findings, agents.

Routes parse, ask one service for each part, and render; see saying.py for what changes something.
"""

from collections import Counter
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import RedirectResponse

from aggregator.services.policies.previews import ExportKind
from aggregator.services.question import WorkloadRef
from aggregator.services.topology_views import fate_of
from aggregator.services.views import LinkRow, WorkloadRow
from aggregator.web.frame import BASE, VisitDep, allowed
from aggregator.web.maps import infrastructure, namespace_map
from aggregator.web.rendering import Values, segment
from aggregator.web.workload import Tab, basic_values, head_values, path_of, workload_values

routes = APIRouter()

NamespacePath = Annotated[str, Path(max_length=63)]
_SEVERITIES = ("error", "warning", "info")
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
    return visit.page(
        "home.html",
        nav="home",
        namespaces=namespaces,
        all_workloads=workloads,
        coverage=coverage,
        total=_coverage(workloads),
        links=sum(row.egress_links for row in workloads),
        agents=agents,
    )


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
) -> Response:
    """The scope picker's way: to the page of what was chosen."""
    kind, _, name = entity.partition("/")
    if not namespace:
        target = f"{BASE}/"
    elif namespace == was and name:
        target = path_of(WorkloadRef(namespace=namespace, kind=kind, name=name)) + (f"/{segment(tab)}" if tab else "")
    else:
        target = f"{BASE}/namespaces/{segment(namespace)}"
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
    return visit.page(
        "namespace.html",
        nav="",
        namespace=namespace,
        workloads=workloads,
        coverage=_coverage(workloads),
        summary=_summary(rows),
        fates=Counter(fate_of(row).value for row in rows if row.established),
        waiting=sum(row.proposal.reason in {"unresolved", "internal-unresolved"} for row in rows),
        map=namespace_map(BASE, namespace, shown, () if filtered else workloads),
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
    return RedirectResponse(f"{path_of(ref)}/{tab}{visit.query()}", status_code=303)


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


@routes.get("/workloads/{namespace}/{kind}/{name}/{tab}")
def workload_tab(visit: VisitDep, ref: RefDep, tab: Tab) -> Response:
    values = workload_values(visit, ref, tab)
    return visit.page(f"workload_{_template(tab)}.html", nav="", **values, **head_values(visit, ref))


def _template(tab: Tab) -> str:
    return "table" if tab in {"ingress", "egress"} else tab


@routes.get("/addresses")
def addresses(visit: VisitDep, q: Annotated[str, Query(max_length=100)] = "") -> Response:
    rows = visit.review.addresses(visit.caller, span=visit.span)
    words = q.lower().split()
    shown = [row for row in rows if all(word in f"{row.ip} {row.alias} {row.workloads}".lower() for word in words)]
    by_class = Counter(row.address_class for row in rows)
    return visit.page("addresses.html", nav="addresses", addresses=shown, by_class=by_class, total=len(rows), q=q)


@routes.get("/findings")
def findings(visit: VisitDep) -> Response:
    found = list(visit.status.findings) if visit.status else []
    for row in visit.review.namespaces(visit.caller):
        name = row.name
        found += allowed(lambda name=name: visit.review.findings(visit.caller, name)) or []  # type: ignore[misc]
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for one in dict.fromkeys((f.severity, f.message, f.way_out, f.code, f.subject) for f in found):
        alike.setdefault(one[:4], []).append(one[4])
    order = sorted(alike.items(), key=lambda item: (_SEVERITIES.index(item[0][0]), item[0][3], item[1]))
    return visit.page("findings.html", nav="findings", findings=order)


@routes.get("/agents")
def agents(visit: VisitDep) -> Response:
    return visit.page("agents.html", nav="agents", agents=visit.review.agents(visit.caller))
