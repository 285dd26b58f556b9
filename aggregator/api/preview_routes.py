"""What proposals would do, and what is applied: simulation, difference, order, other forms, policies in force."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from aggregator.api.asking import CallerDep, NamespacePath, RefDep, ReviewDep, SpanQuery
from aggregator.api.problems import documented
from aggregator.services.policies.policy_views import (
    AppliedPoliciesView,
    BundleView,
    DiffView,
    DryRunView,
    ExplainedLinkView,
    ExportView,
    PlanView,
    SimulationView,
)
from aggregator.services.policies.previews import ExportKind
from aggregator.services.spans import ALL
from aggregator.services.views import FindingView

routes = APIRouter()

ExportPath = Annotated[ExportKind, Path(description="The form")]
UnusedQuery = Annotated[bool, Query(description="Only policies that select nothing that runs")]
LinkPath = Annotated[str, Path(pattern=r"^-?[0-9]{1,20}$", description="`id` of a row")]
_REFUSALS = documented(401, 403, 404, 422, 429, 503)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/policy/simulation",
    tags=["proposals"],
    summary="What the recorded links would have met",
    responses=_REFUSALS,
)
def workload_simulation(review: ReviewDep, caller: CallerDep, ref: RefDep, span: SpanQuery = ALL) -> SimulationView:
    return review.simulation(caller, ref, span=span)


@routes.get(
    "/namespaces/{namespace}/policy/simulation",
    tags=["proposals"],
    summary="What the recorded links would have met",
    responses=_REFUSALS,
)
def namespace_simulation(
    review: ReviewDep, caller: CallerDep, namespace: NamespacePath, span: SpanQuery = ALL
) -> SimulationView:
    return review.simulation(caller, namespace, span=span)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/policy/diff",
    tags=["proposals"],
    summary="How the proposals differ from what is applied",
    responses=_REFUSALS,
)
def workload_diff(review: ReviewDep, caller: CallerDep, ref: RefDep, span: SpanQuery = ALL) -> DiffView:
    return review.diff(caller, ref, span=span)


@routes.get(
    "/namespaces/{namespace}/policy/diff",
    tags=["proposals"],
    summary="How the proposals differ from what is applied",
    responses=_REFUSALS,
)
def namespace_diff(review: ReviewDep, caller: CallerDep, namespace: NamespacePath, span: SpanQuery = ALL) -> DiffView:
    return review.diff(caller, namespace, span=span)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/policy/plan",
    tags=["proposals"],
    summary="The order in which the proposals may be applied",
    responses=_REFUSALS,
)
def workload_plan(review: ReviewDep, caller: CallerDep, ref: RefDep, span: SpanQuery = ALL) -> PlanView:
    return review.plan(caller, ref, span=span)


@routes.get(
    "/namespaces/{namespace}/policy/plan",
    tags=["proposals"],
    summary="The order in which the proposals may be applied",
    responses=_REFUSALS,
)
def namespace_plan(review: ReviewDep, caller: CallerDep, namespace: NamespacePath, span: SpanQuery = ALL) -> PlanView:
    return review.plan(caller, namespace, span=span)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/policy/dry-run",
    tags=["proposals"],
    summary="What the API server would say to the proposals; nothing is kept",
    responses=_REFUSALS,
)
def workload_dry_run(review: ReviewDep, caller: CallerDep, ref: RefDep, span: SpanQuery = ALL) -> DryRunView:
    return review.dry_run(caller, ref, span=span)


@routes.get(
    "/namespaces/{namespace}/policy/dry-run",
    tags=["proposals"],
    summary="What the API server would say to the proposals; nothing is kept",
    responses=_REFUSALS,
)
def namespace_dry_run(
    review: ReviewDep, caller: CallerDep, namespace: NamespacePath, span: SpanQuery = ALL
) -> DryRunView:
    return review.dry_run(caller, namespace, span=span)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/policy/exports/{form}",
    tags=["proposals"],
    summary="The proposals in another form, certified or labelled",
    responses=_REFUSALS,
)
def workload_export(
    review: ReviewDep, caller: CallerDep, ref: RefDep, form: ExportPath, span: SpanQuery = ALL
) -> ExportView:
    return review.export(caller, ref, form, span=span)


@routes.get(
    "/namespaces/{namespace}/policy/exports/{form}",
    tags=["proposals"],
    summary="The proposals in another form, certified or labelled",
    responses=_REFUSALS,
)
def namespace_export(
    review: ReviewDep, caller: CallerDep, namespace: NamespacePath, form: ExportPath, span: SpanQuery = ALL
) -> ExportView:
    return review.export(caller, namespace, form, span=span)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/policies",
    tags=["applied policies"],
    summary="The applied policies, what they say and what they did",
    responses=_REFUSALS,
)
def workload_applied(
    review: ReviewDep, caller: CallerDep, ref: RefDep, span: SpanQuery = ALL, *, unused: UnusedQuery = False
) -> AppliedPoliciesView:
    return review.applied(caller, ref, span=span, unused=unused)


@routes.get(
    "/policy/exports/{form}",
    tags=["proposals"],
    summary="The proposals of every namespace that the caller sees, as one folder for GitOps",
    responses=documented(401, 403, 404, 422, 429, 503),
)
def bundle(review: ReviewDep, caller: CallerDep, form: ExportPath, span: SpanQuery = ALL) -> BundleView:
    return review.bundle(caller, form, span=span)


@routes.get(
    "/namespaces/{namespace}/policies",
    tags=["applied policies"],
    summary="The applied policies, what they say and what they did",
    responses=_REFUSALS,
)
def namespace_applied(
    review: ReviewDep,
    caller: CallerDep,
    namespace: NamespacePath,
    span: SpanQuery = ALL,
    *,
    unused: UnusedQuery = False,
) -> AppliedPoliciesView:
    return review.applied(caller, namespace, span=span, unused=unused)


@routes.get(
    "/policies",
    tags=["applied policies"],
    summary="Every applied policy that the caller may see",
    responses=documented(401, 403, 404, 422, 429, 503),
)
def all_applied(
    review: ReviewDep, caller: CallerDep, span: SpanQuery = ALL, *, unused: UnusedQuery = False
) -> AppliedPoliciesView:
    return review.applied(caller, "", span=span, unused=unused)


@routes.get(
    "/namespaces/{namespace}/findings",
    tags=["applied policies"],
    summary="What the applied policies do that a person should know",
    responses=_REFUSALS,
)
def namespace_findings(review: ReviewDep, caller: CallerDep, namespace: NamespacePath) -> list[FindingView]:
    return review.findings(caller, namespace)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/links/{link}/explanation",
    tags=["applied policies"],
    summary="Why a row is allowed or blocked now, and the smallest change that would let it through",
    responses=_REFUSALS,
)
def link_explanation(review: ReviewDep, caller: CallerDep, ref: RefDep, link: LinkPath) -> ExplainedLinkView:
    return review.explain_link(caller, ref, link)
