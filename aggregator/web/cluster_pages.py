"""What is looked at across namespaces: policies, addresses, drift, findings, agents, settings.

Routes parse, ask one service for each part, and render; see cluster_saying.py for what changes something. Long lists
are cut on the server and say what they leave out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import collapse_addresses, ip_network
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from aggregator.errors import NotFoundError
from aggregator.model.address import IPNetwork
from aggregator.services.authority.caller import Resource, Verb
from aggregator.services.keeping.events import WantedEvents
from aggregator.services.paging import Wanted, page_of_addresses
from aggregator.services.policies.policy_views import AppliedPolicyView, UncoveredView
from aggregator.services.views import AddressRow, FindingView
from aggregator.web.frame import Visit, VisitDep, allowed

routes = APIRouter()
SEVERITIES = ("error", "warning", "info")
SHOWN = 100
MOST_AGENTS = 1000
LATE_SECONDS = 120.0  # an agent delivers every few seconds
MOST_NAMESPACES = 20  # with policies, past which one is to be chosen before they are judged
NamespaceQuery = Annotated[str, Query(max_length=63)]
WordsQuery = Annotated[str, Query(max_length=100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """Addresses that were picked together, as the CIDRs that are exactly they, and as one that covers them all."""

    ips: Sequence[str]
    exact: Sequence[IPNetwork]
    cover: IPNetwork | None  # None where they are of both families, or where it would be wider than a person means
    others: int  # addresses of the cover that were not picked


@routes.get("/policies")
def policies(
    visit: VisitDep, namespace: NamespaceQuery = "", q: WordsQuery = "", unused: Literal["", "1"] = ""
) -> Response:
    namespaces = [row for row in visit.review.namespaces(visit.caller) if row.policies]
    choose = not namespace and len(namespaces) > MOST_NAMESPACES
    applied = None
    if not choose:
        applied = allowed(lambda: visit.review.applied(visit.caller, namespace, span=visit.span))
    found = list(applied.policies) if applied else []
    words = q.casefold().split()
    shown = [p for p in found if (not unused or p.unused) and all(word in _text(p) for word in words)]
    return visit.page(
        "policies.html",
        nav="policies",
        namespace=namespace,
        namespaces=namespaces,
        choose=choose,
        applied=applied,
        policies=shown[:SHOWN],
        hidden=max(len(shown) - SHOWN, 0),
        total=len(found),
        unused_count=sum(policy.unused for policy in found),
        findings=_by_policy(visit, namespace, found),
        open_directions=_open(applied.uncovered if applied else ()),
        filters={"q": q, "unused": unused},
    )


def _open(uncovered: Sequence[UncoveredView]) -> dict[str, list[str]]:
    """By workload: the directions that nothing limits."""
    found: dict[str, list[str]] = {}
    for row in uncovered:
        found.setdefault(row.workload, []).append("in" if row.direction == "Ingress" else "out")
    return found


def _text(policy: AppliedPolicyView) -> str:
    return " ".join((policy.namespace, policy.name, *policy.selects, policy.yaml)).casefold()


def _by_policy(visit: Visit, namespace: str, policies: Sequence[AppliedPolicyView]) -> dict[str, list[FindingView]]:
    """What lint says of each policy, by "namespace/name"."""
    names = {namespace} if namespace else {policy.namespace for policy in policies}
    found: dict[str, list[FindingView]] = {}
    for name in sorted(names):
        for one in allowed(lambda name=name: visit.review.findings(visit.caller, name)) or []:  # type: ignore[misc]
            found.setdefault(one.subject.partition(":")[0], []).append(one)
    return found


@routes.get("/addresses")
def addresses(
    visit: VisitDep,
    q: WordsQuery = "",
    kind: Literal["", "external", "internal", "unknown", "aliased"] = "",
    show: Annotated[int, Query(ge=1, le=5000)] = SHOWN,
    pick: Annotated[list[str] | None, Query(max_length=500)] = None,
) -> Response:
    rows = visit.review.addresses(visit.caller, span=visit.span)
    page = page_of_addresses(rows, Wanted(search=q, address_class=kind, limit=show))
    values: dict[str, Any] = {
        "addresses": page.items,
        "groups": _groups(page.items),
        "hidden": page.total - len(page.items),
        "more": visit.query(q=q, kind=kind, show=str(min(show * 4, 5000))),
        "total": len(rows),
        "filters": {"q": q, "kind": kind},
        "picked": picked_of(rows, pick or []),
        "may_name": visit.caller.may(Verb.UPDATE, Resource.ADDRESSES),
    }
    if visit.htmx and visit.request.headers.get("hx-target") == "address-rows":
        return visit.part("address_rows.html", **values)
    return visit.page(
        "addresses.html",
        nav="addresses",
        by_class=Counter(row.address_class for row in rows),
        aliases=allowed(lambda: visit.deciding.aliases(visit.caller)),
        grounds=allowed(lambda: visit.review.grounds(visit.caller)),
        **values,
    )


@routes.get("/addresses/picked")
def picked(visit: VisitDep, pick: Annotated[list[str] | None, Query(max_length=500)] = None) -> Response:
    """What may be done with the addresses that are picked: asked again with every tick."""
    rows = visit.review.addresses(visit.caller, span=visit.span)
    return visit.part("picked.html", picked=picked_of(rows, pick or []))


def picked_of(rows: Sequence[AddressRow], pick: Sequence[str]) -> Picked:
    """Only addresses that are listed. The cover is no wider than a /16, or a /48."""
    known = [row.ip for row in rows if row.ip in set(pick)]
    networks = [ip_network(ip) for ip in known]
    four = [n for n in networks if n.version == 4]
    six = [n for n in networks if n.version == 6]
    exact: list[IPNetwork] = [*collapse_addresses(four), *collapse_addresses(six)]
    cover = None
    if len(networks) > 1 and not (four and six):
        cover = networks[0]
        while not all(network.subnet_of(cover) for network in networks):  # type: ignore[arg-type]  # one family
            cover = cover.supernet()
        if cover.prefixlen < (16 if cover.version == 4 else 48):
            cover = None
    others = cover.num_addresses - len(networks) if cover is not None else 0
    return Picked(ips=known, exact=exact, cover=cover, others=others)


def _groups(rows: Sequence[AddressRow]) -> list[tuple[str, str, list[AddressRow]]]:
    """Title, what it means, rows."""
    titles = {
        "unknown": ("Unknown", "inside or outside? The cluster's ranges are not complete"),
        "external": ("External, without a name", "outside every range of the cluster"),
        "internal": ("Internal", "in the cluster's ranges, owned by nothing now: never part of a policy"),
        "aliased": ("Named", "a person gave them a name"),
    }
    found = {key: [row for row in rows if row.address_class == key] for key in titles}
    return [(title, means, found[key]) for key, (title, means) in titles.items() if found[key]]


@routes.get("/drift")
def drift(visit: VisitDep, namespace: NamespaceQuery = "", which: Literal["holding", "ended"] = "holding") -> Response:
    events = visit.review.events.events(visit.caller, WantedEvents(namespace=namespace, which=which))
    return visit.page(
        "drift.html",
        nav="drift",
        namespace=namespace,
        events=events[:SHOWN],
        hidden=max(len(events) - SHOWN, 0),
        which=which,
    )


@routes.get("/findings")
def findings(
    visit: VisitDep, namespace: NamespaceQuery = "", severity: Literal["", "error", "warning", "info"] = ""
) -> Response:
    found = list(visit.status.findings) if visit.status and not namespace else []
    for row in visit.review.namespaces(visit.caller):
        if row.policies and namespace in {"", row.name}:
            found += allowed(lambda name=row.name: visit.review.findings(visit.caller, name)) or []  # type: ignore[misc]
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for one in dict.fromkeys((f.severity, f.message, f.way_out, f.code, f.subject) for f in found):
        alike.setdefault(one[:4], []).append(one[4])
    order = sorted(alike.items(), key=lambda item: (SEVERITIES.index(item[0][0]), item[0][3], item[1]))
    counts = Counter(key[0] for key, _ in order)
    return visit.page(
        "findings.html",
        nav="findings",
        namespace=namespace,
        findings=[item for item in order if severity in {"", item[0][0]}],
        counts=counts,
        total=len(order),
        severity=severity,
    )


@routes.get("/agents")
def agents(visit: VisitDep) -> Response:
    found = visit.review.agents(visit.caller)
    now = visit.review.now
    behind = {agent.name: _behind_seconds(agent.last_batch, now) for agent in found}
    late = sum(seconds is None or seconds > LATE_SECONDS for seconds in behind.values())
    return visit.page(
        "agents.html", nav="agents", agents=found[:MOST_AGENTS], total=len(found), behind=behind, late=late
    )


def _behind_seconds(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else max((now - at).total_seconds(), 0.0)


@routes.get("/settings")
def settings(visit: VisitDep, problem: str = "") -> Response:
    """Raises ForbiddenError for whoever may not see them."""
    return settings_page(visit, problem)


def settings_page(visit: Visit, problem: str = "", status_code: int = 200) -> Response:
    held = visit.deciding.settings(visit.caller)
    kinds = {"labels", "cluster-cidrs", "process-names"}
    history = [said for said in visit.deciding.history(visit.caller) if said.kind in kinds]
    return visit.page(
        "settings.html",
        status_code=status_code,
        nav="settings",
        settings=held,
        grounds=visit.review.grounds(visit.caller),
        may_set=visit.caller.may(Verb.UPDATE, Resource.SETTINGS),
        history=history[:20],
        problem=problem,
    )


def must_be_known(rows: Sequence[str]) -> None:
    if not rows:
        raise NotFoundError("none of the picked addresses is listed any more")
