"""add_web: the page below /ui, beside the REST door.

Enters: the FastAPI application that create_api made. Leaves: the same application with the page mounted.
Invariant: the page has its own error pages and headers; REST keeps answering problems.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from aggregator.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    StoreError,
    UnauthenticatedError,
    WattleError,
)
from aggregator.services.review import Review
from aggregator.web import cluster_pages, cluster_saying, pages, saying
from aggregator.web.frame import BASE, Authenticator, Site, Visit
from aggregator.web.rendering import STATIC, environment, segment
from aggregator.web.security import SafeHeaders

log = logging.getLogger(__name__)
_STATUSES: tuple[tuple[type[WattleError], HTTPStatus], ...] = (
    (UnauthenticatedError, HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ClusterError, HTTPStatus.SERVICE_UNAVAILABLE),
)
_INSIDE = "something in Wattle went wrong; its log says what"


def add_web(api: FastAPI) -> FastAPI:
    """The same application, with pages for each of its clusters: those of its own are at BASE."""
    answering = {name or one.review.cluster: (name, one) for name, one in api.state.clusters.items()}
    bases = {name: f"{BASE}/clusters/{segment(key)}" if key else BASE for name, (key, _) in answering.items()}
    for name, base in sorted(bases.items(), key=lambda known: known[1], reverse=True):  # the longer path first
        _, one = answering[name]
        web = create_web(one.review, one.authenticator, cluster=name, base=base, clusters=bases)
        api.mount(base, web, name=f"web of {name}")
    api.add_api_route("/", _to_web, include_in_schema=False)
    return api


def _to_web() -> Response:
    return RedirectResponse(f"{BASE}/")


def create_web(
    review: Review, authenticator: Authenticator, *, cluster: str, base: str, clusters: Mapping[str, str]
) -> FastAPI:
    """The pages of one cluster. `clusters`: where each cluster's are, by its name."""
    web = FastAPI(title="Wattle", openapi_url=None, docs_url=None, redoc_url=None)
    web.state.site = Site(
        review=review,
        authenticator=authenticator,
        templates=environment(),
        cluster=cluster,
        base=base,
        clusters=clusters,
    )
    web.mount("/static", StaticFiles(directory=STATIC), name="static")
    web.include_router(pages.routes)
    web.include_router(saying.routes)
    web.include_router(cluster_pages.routes)
    web.include_router(cluster_saying.routes)
    web.add_exception_handler(WattleError, _refused)
    web.add_exception_handler(HTTPException, _http)
    web.add_exception_handler(RequestValidationError, _invalid)
    web.add_middleware(SafeHeaders)
    return web


async def _refused(request: Request, exc: Exception) -> Response:
    status = next((known for kind, known in _STATUSES if isinstance(exc, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status is HTTPStatus.UNAUTHORIZED:
        return _login(request, str(exc))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", request.method, request.url.path, exc, exc_info=exc)
    return _error(request, status, str(exc) if status < HTTPStatus.INTERNAL_SERVER_ERROR else _INSIDE)


async def _http(request: Request, exc: Exception) -> Response:
    status = HTTPStatus(exc.status_code) if isinstance(exc, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    return _error(request, status, "there is no such page" if status is HTTPStatus.NOT_FOUND else status.description)


async def _invalid(request: Request, exc: Exception) -> Response:  # noqa: ARG001  # the framework's signature
    return _error(request, HTTPStatus.NOT_FOUND, "there is no such page")


def _visit(request: Request) -> Visit:
    return Visit(request=request, site=request.app.state.site)


def _login(request: Request, why: str) -> Response:
    visit = _visit(request)
    answer = visit.part("login.html", status_code=HTTPStatus.UNAUTHORIZED, why=why, development=False)
    if "hx-request" in request.headers:
        answer.headers["HX-Redirect"] = f"{visit.base}/"
    return answer


def _error(request: Request, status: HTTPStatus, detail: str) -> Response:
    visit = _visit(request)
    values = {"title": status.phrase, "detail": detail, "development": visit.development}
    return visit.part("error.html", status_code=status, **values)
