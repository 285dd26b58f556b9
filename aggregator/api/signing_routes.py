"""Sign-off: a proposal is submitted, approved by another person, and fixed by its digest until it changes."""

from typing import Annotated

from fastapi import APIRouter, Depends

from aggregator.api.asking import AnsweringDep, CallerDep, NamespacePath, RefDep
from aggregator.api.bodies import ApproveBody, SubmitBody
from aggregator.api.problems import documented
from aggregator.services.deciding.said_views import SignOffView
from aggregator.services.policies.signing import Signing

routes = APIRouter(tags=["sign-off"])


def _signing(answering: AnsweringDep) -> Signing:
    return answering.review.signing


SigningDep = Annotated[Signing, Depends(_signing)]
_READ = documented(401, 403, 404, 409, 422, 429, 503)
_WRITE = documented(401, 403, 404, 409, 413, 422, 429, 503)


@routes.get(
    "/workloads/{namespace}/{kind}/{name}/policy/sign-off", summary="Is it submitted, is it approved", responses=_READ
)
def workload_sign_off(signing: SigningDep, caller: CallerDep, ref: RefDep) -> SignOffView:
    return signing.state(caller, ref)


@routes.post(
    "/workloads/{namespace}/{kind}/{name}/policy/sign-off", summary="Submit the proposal as it is now", responses=_WRITE
)
def submit_workload(signing: SigningDep, caller: CallerDep, ref: RefDep, body: SubmitBody) -> SignOffView:
    return signing.submit(caller, ref, reason=body.reason)


@routes.put(
    "/workloads/{namespace}/{kind}/{name}/policy/sign-off", summary="Approve what was submitted", responses=_WRITE
)
def approve_workload(signing: SigningDep, caller: CallerDep, ref: RefDep, body: ApproveBody) -> SignOffView:
    return signing.approve(caller, ref, body.digest, reason=body.reason)


@routes.get("/namespaces/{namespace}/policy/sign-off", summary="Is it submitted, is it approved", responses=_READ)
def namespace_sign_off(signing: SigningDep, caller: CallerDep, namespace: NamespacePath) -> SignOffView:
    return signing.state(caller, namespace)


@routes.post("/namespaces/{namespace}/policy/sign-off", summary="Submit the proposal as it is now", responses=_WRITE)
def submit_namespace(signing: SigningDep, caller: CallerDep, namespace: NamespacePath, body: SubmitBody) -> SignOffView:
    return signing.submit(caller, namespace, reason=body.reason)


@routes.put("/namespaces/{namespace}/policy/sign-off", summary="Approve what was submitted", responses=_WRITE)
def approve_namespace(
    signing: SigningDep, caller: CallerDep, namespace: NamespacePath, body: ApproveBody
) -> SignOffView:
    return signing.approve(caller, namespace, body.digest, reason=body.reason)
