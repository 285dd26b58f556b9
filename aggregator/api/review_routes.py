"""Namespaces, workloads, tables, agents: what there is and what was seen."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from aggregator.api import examples
from aggregator.api.asking import (
    CallerDep,
    DirectionDep,
    NamespacePath,
    NamespaceQuery,
    RefDep,
    ReviewDep,
    SpanQuery,
    WantedLinks,
    WantedRows,
)
from aggregator.api.problems import Responses, documented
from aggregator.api.tabular import links_as_csv
from aggregator.services.deciding.said_views import BaselineView
from aggregator.services.paging import Page, page_of_addresses, page_of_links, page_of_namespaces, sorted_rows
from aggregator.services.spans import ALL
from aggregator.services.topology_views import TopologyView
from aggregator.services.views import AddressRow, AgentView, CallerView, LinkRow, NamespaceRow, StatusView, WorkloadRow

routes = APIRouter()

FormatQuery = Annotated[Literal["json", "csv"], Query(description="CSV has every row that matches, not one page")]
CSV = "text/csv"
_REFUSALS = documented(401, 403, 404, 422, 429, 503)
_TABLE: Responses = {
    200: {
        "content": {
            **examples.LINKS["content"],
            CSV: {"schema": {"type": "string"}, "example": examples.CSV},
        }
    }
}


@routes.get(
    "/me",
    tags=["review"],
    summary="Who asks, and what they may do",
    responses=documented(401, 404, 422, 429, 503),
)
def me(review: ReviewDep, caller: CallerDep, namespace: NamespaceQuery = "") -> CallerView:
    return review.me(caller, namespace)


@routes.get(
    "/namespaces",
    tags=["review"],
    summary="The namespaces that the caller may see",
    responses={**documented(401, 404, 422, 429, 503), 200: examples.NAMESPACES},
)
def namespaces(review: ReviewDep, caller: CallerDep, wanted: WantedRows) -> Page[NamespaceRow]:
    return page_of_namespaces(review.namespaces(caller), wanted)


@routes.get(
    "/workloads",
    tags=["review"],
    summary="Workloads, also those with no recorded communication",
    responses={**_REFUSALS, 200: examples.WORKLOADS},
)
def workloads(
    review: ReviewDep,
    caller: CallerDep,
    wanted: WantedRows,
    namespace: NamespaceQuery = "",
    span: SpanQuery = ALL,
) -> Page[WorkloadRow]:
    return review.workloads_page(caller, wanted, namespace, span)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/links",
    tags=["review"],
    summary="The INGRESS and EGRESS rows of a workload",
    response_model=Page[LinkRow],
    responses={**_REFUSALS, **_TABLE},
)
def workload_links(
    review: ReviewDep,
    caller: CallerDep,
    ref: RefDep,
    direction: DirectionDep,
    wanted: WantedLinks,
    span: SpanQuery = ALL,
    format: FormatQuery = "json",  # noqa: A002  # the parameter's name is the API's
) -> Page[LinkRow] | Response:
    rows = review.workload_links(caller, ref, direction=direction, span=span)
    if format == "csv":
        return Response(links_as_csv(sorted_rows(rows, wanted)), media_type=CSV)
    return page_of_links(rows, wanted)


@routes.get(
    "/namespaces/{namespace}/links",
    tags=["review"],
    summary="The rows of a namespace, a link inside it once",
    response_model=Page[LinkRow],
    responses={**_REFUSALS, **_TABLE},
)
def namespace_links(
    review: ReviewDep,
    caller: CallerDep,
    namespace: NamespacePath,
    direction: DirectionDep,
    wanted: WantedLinks,
    span: SpanQuery = ALL,
    format: FormatQuery = "json",  # noqa: A002  # the parameter's name is the API's
) -> Page[LinkRow] | Response:
    rows = review.namespace_links(caller, namespace, direction=direction, span=span)
    if format == "csv":
        return Response(links_as_csv(sorted_rows(rows, wanted)), media_type=CSV)
    return page_of_links(rows, wanted)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/topology",
    tags=["review"],
    summary="The map of a workload, with its DOT",
    responses=_REFUSALS,
)
def workload_topology(review: ReviewDep, caller: CallerDep, ref: RefDep, span: SpanQuery = ALL) -> TopologyView:
    return review.topology(caller, ref, span=span)


@routes.get(
    "/namespaces/{namespace}/topology",
    tags=["review"],
    summary="The map of a namespace, with its DOT",
    responses=_REFUSALS,
)
def namespace_topology(
    review: ReviewDep, caller: CallerDep, namespace: NamespacePath, span: SpanQuery = ALL
) -> TopologyView:
    return review.topology(caller, namespace, span=span)


@routes.get(
    "/addresses",
    tags=["review"],
    summary="Addresses that nobody in the cluster owns, those that ask for a person first",
    responses=documented(401, 403, 404, 422, 429, 503),
)
def addresses(
    review: ReviewDep,
    caller: CallerDep,
    wanted: WantedLinks,
    namespace: NamespaceQuery = "",
    span: SpanQuery = ALL,
) -> Page[AddressRow]:
    return page_of_addresses(review.addresses(caller, namespace, span=span), wanted)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/baseline",
    tags=["review"],
    summary="How much has probably been seen, and what drifted",
    responses=_REFUSALS,
)
def workload_baseline(review: ReviewDep, caller: CallerDep, ref: RefDep) -> BaselineView:
    return review.baseline(caller, ref)


@routes.get(
    "/agents", tags=["agents"], summary="Every node's agent", responses=documented(401, 403, 404, 422, 429, 503)
)
def agents(review: ReviewDep, caller: CallerDep) -> list[AgentView]:
    return review.agents(caller)


@routes.get(
    "/status",
    tags=["agents"],
    summary="Does it work: agents, the data's age, what was lost",
    responses=documented(401, 403, 404, 422, 429, 503),
)
def status(review: ReviewDep, caller: CallerDep) -> StatusView:
    return review.status(caller)
