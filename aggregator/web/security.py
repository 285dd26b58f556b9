"""What keeps the page safe: its headers, its cookies, and the token that every change carries.

Invariant: no answer leaves without the Content-Security-Policy, which allows nothing inline and nothing from elsewhere;
no change is made without a token that only a page of ours could have read (double submit, compared in constant time).
"""

import hmac
import secrets
from urllib.parse import parse_qs

from fastapi import Request, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator.errors import ForbiddenError, InputError

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CSRF_COOKIE = "wattle_csrf"
TOKEN_COOKIE = "wattle_token"  # noqa: S105  # the name of a cookie
_MOST_FIELDS = 1100
MANY = "pick"  # the one field that a form may send many times: joined by commas
_TOKEN_SECONDS = 3600  # tokens are short-lived; the API server has the last word


class SafeHeaders:
    """ASGI middleware: every answer of the page has them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                # What is ours is asked for again with its ETag; what is the cluster's is not kept at all.
                headers.setdefault("Cache-Control", "no-cache" if "/static/" in scope["path"] else "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


def csrf_of(request: Request) -> str:
    """The visitor's token: the cookie's, or a new one for this answer."""
    known = request.cookies.get(CSRF_COOKIE, "")
    if len(known) < 32:
        known = getattr(request.state, "csrf", "") or secrets.token_urlsafe(32)
        request.state.csrf = known
    return known


def keep_csrf(request: Request, response: Response) -> None:
    """Set the cookie where csrf_of made a new token."""
    made = getattr(request.state, "csrf", "")
    if made:
        _cookie(request, response, CSRF_COOKIE, made)


def keep_token(request: Request, response: Response, name: str, token: str) -> None:
    _cookie(request, response, name, token, max_age_seconds=_TOKEN_SECONDS)


def forget_token(response: Response, name: str) -> None:
    response.delete_cookie(name, path="/ui", httponly=True, samesite="strict")


def _cookie(request: Request, response: Response, name: str, value: str, max_age_seconds: int | None = None) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age_seconds,
        path="/ui",
        httponly=True,
        secure=request.url.scheme == "https",
        samesite="strict",
    )


Fields = dict[str, str]


async def said(request: Request) -> Fields:
    """The fields of a form that one of our own pages sent. Raises ForbiddenError, InputError."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise ForbiddenError("this form was sent by another site")
    body = await request.body()
    try:
        parsed = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as exc:
        raise InputError("the form cannot be read") from exc
    fields = {name: ",".join(values) if name == MANY else values[-1] for name, values in parsed.items()}
    kept = request.cookies.get(CSRF_COOKIE, "")
    if not kept or not hmac.compare_digest(kept.encode(), fields.pop("csrf", "").encode()):
        raise ForbiddenError("this page is too old to decide from, or cookies are off: load it again")
    return fields
