"""Proposals and their proof, as JSON or as the YAML itself."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response

from aggregator.api import examples
from aggregator.api.asking import CallerDep, NamespacePath, RefDep, ReviewDep, SpanQuery
from aggregator.api.problems import Responses, documented
from aggregator.services.policies.policy_views import CertificateView, ProposalView
from aggregator.services.spans import ALL

routes = APIRouter()

YAML = "application/yaml"  # RFC 9512
FormatQuery = Annotated[
    Literal["json", "yaml"] | None, Query(description="Wins over the Accept header; without either, JSON")
]
AcceptHeader = Annotated[str, Header(alias="accept", include_in_schema=False)]
_REFUSALS = documented(401, 403, 404, 422, 429, 503)
_PROPOSAL: Responses = {
    200: {
        "content": {
            **examples.PROPOSAL["content"],
            YAML: {"schema": {"type": "string"}, "example": examples.YAML},
        }
    }
}


def _answer(proposal: ProposalView, wanted: str | None, accept: str) -> ProposalView | Response:
    if wanted == "yaml" or (wanted is None and _prefers_yaml(accept)):
        return Response(proposal.yaml, media_type=YAML, headers={"ETag": f'"{proposal.digest}"'})
    return proposal


def _prefers_yaml(accept: str) -> bool:
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    yaml = next((i for i, kind in enumerate(kinds) if kind in {YAML, "application/x-yaml", "text/yaml"}), None)
    json = next((i for i, kind in enumerate(kinds) if kind in {"application/json", "*/*", "application/*"}), None)
    return yaml is not None and (json is None or yaml < json)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/policy",
    tags=["proposals"],
    summary="The proposal for a workload, with its proof",
    response_model=ProposalView,
    responses={**_REFUSALS, **_PROPOSAL},
)
def workload_policy(
    review: ReviewDep,
    caller: CallerDep,
    ref: RefDep,
    span: SpanQuery = ALL,
    format: FormatQuery = None,  # noqa: A002  # the parameter's name is the API's
    accept: AcceptHeader = "",
) -> ProposalView | Response:
    return _answer(review.proposal(caller, ref, span=span), format, accept)


@routes.get(
    "/namespaces/{namespace}/policy",
    tags=["proposals"],
    summary="The proposals for a whole namespace, DNS included, with their proof",
    response_model=ProposalView,
    responses={**_REFUSALS, **_PROPOSAL},
)
def namespace_policy(
    review: ReviewDep,
    caller: CallerDep,
    namespace: NamespacePath,
    span: SpanQuery = ALL,
    format: FormatQuery = None,  # noqa: A002  # the parameter's name is the API's
    accept: AcceptHeader = "",
) -> ProposalView | Response:
    return _answer(review.proposal(caller, namespace, span=span), format, accept)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/certificate",
    tags=["proposals"],
    summary="The proof of a workload's proposal alone",
    responses=_REFUSALS,
)
def workload_certificate(review: ReviewDep, caller: CallerDep, ref: RefDep, span: SpanQuery = ALL) -> CertificateView:
    return review.proposal(caller, ref, span=span).certificate


@routes.get(
    "/namespaces/{namespace}/certificate",
    tags=["proposals"],
    summary="The proof of a namespace's proposals alone",
    responses=_REFUSALS,
)
def namespace_certificate(
    review: ReviewDep, caller: CallerDep, namespace: NamespacePath, span: SpanQuery = ALL
) -> CertificateView:
    return review.proposal(caller, namespace, span=span).certificate
