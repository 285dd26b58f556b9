"""Problems: every refusal as RFC 9457 problem details, with the way out in words.

Enters: errors of aggregator.errors and of the framework. Leaves: application/problem+json. Invariant: what the program
did wrong says nothing of its inside; it is logged once, here.
"""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from aggregator.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    StoreError,
    TooManyRequestsError,
    UnauthenticatedError,
    WattleError,
)

Responses = dict[int | str, dict[str, Any]]
MEDIA_TYPE = "application/problem+json"
log = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    """One thing that is wrong with the request."""

    field: str = Field(examples=["query.span"])
    message: str = Field(examples=["'3 weeks' is no span: write one of 3h, 12h, 24h, 7d, all"])


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "there is no Deployment shop in the namespace store",
                "errors": [],
            }
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


_STATUSES: tuple[tuple[type[WattleError], HTTPStatus], ...] = (
    (UnauthenticatedError, HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (TooManyRequestsError, HTTPStatus.TOO_MANY_REQUESTS),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ClusterError, HTTPStatus.SERVICE_UNAVAILABLE),
)

_WORDS = {
    401: "No caller: send a bearer token.",
    403: "The caller lacks the right. What does not exist and what may not be seen are answered alike.",
    404: "There is no such thing.",
    409: "Changed since it was read (If-Match), or others decide at the same moment.",
    413: "The request body is too large.",
    422: "The request cannot be understood; `errors` names the fields.",
    428: "If-Match is needed: say which version the decision was made against.",
    429: "Too many requests; Retry-After says when to come back.",
    503: "The database or the cluster view is not there now; the same request may succeed later.",
}

_INSIDE = "something in Wattle went wrong; its log says what"


def documented(*statuses: int) -> Responses:
    """The `responses` of a route, as FastAPI wants them."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status: {"description": _WORDS[status], "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses}


def problem_response(
    status: int, detail: str, *, errors: list[FieldProblem] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [])
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install_problems(api: FastAPI) -> None:
    """Every error of every route leaves through here."""

    @api.exception_handler(WattleError)
    async def _ours(_request: Request, error: WattleError) -> JSONResponse:
        return of_error(error)

    @api.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            FieldProblem(field=".".join(str(part) for part in found["loc"]), message=str(found["msg"]))
            for found in error.errors()
        ]
        return problem_response(422, "the request cannot be understood", errors=errors)

    @api.exception_handler(Exception)
    async def _unexpected(_request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=error)
        return problem_response(500, _INSIDE)

    @api.exception_handler(HTTPException)
    async def _framework(_request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return problem_response(error.status_code, str(error.detail), headers=headers)


def of_error(error: WattleError) -> JSONResponse:
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return _known(error, status)
    log.error("a request failed", exc_info=error)
    return problem_response(500, _INSIDE)


def _known(error: WattleError, status: HTTPStatus) -> JSONResponse:
    headers: dict[str, str] = {}
    errors: list[FieldProblem] = []
    detail = str(error)
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, InputError):
        detail = error.reason
        errors = [FieldProblem(field=error.field or "request", message=error.reason)]
    if isinstance(error, StoreError | ClusterError):
        log.warning("a request could not be answered: %s", error)
        detail = "the database or the cluster view is not there now: try again in some seconds"
        headers["Retry-After"] = "5"
    return problem_response(status.value, detail, errors=errors, headers=headers)
