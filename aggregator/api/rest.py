"""create_api: the REST door, /api/v1, with its OpenAPI 3.1 document; and what probes and Prometheus ask for.

Enters: a Review, an Authenticator, a readiness question. Leaves: a FastAPI application. Invariant: routes only parse,
call one service and write its view out; every refusal is an RFC 9457 problem.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import PlainTextResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from aggregator.api import (
    decision_routes,
    event_routes,
    policy_routes,
    preview_routes,
    review_routes,
    signing_routes,
    watch_routes,
)
from aggregator.api.asking import Answering, Authenticator
from aggregator.api.limits import Buckets, Limits, Rate
from aggregator.api.problems import Problem, install_problems
from aggregator.errors import UnauthenticatedError
from aggregator.services.authority.caller import Caller, developer
from aggregator.services.review import Review
from wattle import __version__

PREFIX = "/api/v1"
DESCRIPTION = """\
Who talks to whom in a cluster, the NetworkPolicies that allow exactly that, and the proof.

Every list is paged by cursor. Every refusal is `application/problem+json` (RFC 9457). Ids of links are text: they are
signed 64-bit numbers. What a caller may not see is masked or refused as if it did not exist.
"""


class Development:
    """Development mode: no token, everybody is the developer. Refused by the configuration unless on loopback."""

    def caller(self, token: str) -> Caller:  # noqa: ARG002  # the Protocol's signature
        return developer()


class NobodyYet:
    """Without development mode and without Kubernetes nobody can be known."""

    def caller(self, token: str) -> Caller:  # noqa: ARG002  # the Protocol's signature
        raise UnauthenticatedError("this aggregator knows no way to tell who calls")


def create_api(
    review: Review,
    authenticator: Authenticator,
    *,
    others: Mapping[str, Answering] | None = None,
    ready: Callable[[], str] = lambda: "",
    registry: CollectorRegistry = REGISTRY,
    rate: Rate | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """`others` answer for further clusters, by name. `ready` says why it cannot serve yet, or "" when it can."""
    api = FastAPI(
        title="Wattle",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    api.state.review = review
    api.state.authenticator = authenticator
    home = Answering(review=review, authenticator=authenticator)
    api.state.clusters = {"": home, **(others or {})}
    install_problems(api)
    for routes in (
        review_routes.routes,
        policy_routes.routes,
        preview_routes.routes,
        decision_routes.routes,
        signing_routes.routes,
        event_routes.routes,
        watch_routes.routes,
    ):
        api.include_router(routes, prefix=PREFIX)
    _add_operations(api, ready, registry)
    api.add_middleware(Limits, buckets=Buckets(rate or Rate(), clock))
    api.openapi = lambda: _document(api)  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return api


def _add_operations(api: FastAPI, ready: Callable[[], str], registry: CollectorRegistry) -> None:
    @api.get("/docs", include_in_schema=False)
    async def docs() -> RedirectResponse:
        return RedirectResponse(f"{PREFIX}/openapi.json")

    @api.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @api.get("/readyz", include_in_schema=False)
    def readyz() -> PlainTextResponse:
        reason = ready()
        return PlainTextResponse(f"{reason or 'ok'}\n", status_code=503 if reason else 200)

    @api.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _document(api: FastAPI) -> dict[str, Any]:
    """FastAPI's document with problems in the place of its own validation errors."""
    if api.openapi_schema is None:
        document = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}))
        schemas["Problem"] = problem
        api.openapi_schema = document
    return api.openapi_schema
