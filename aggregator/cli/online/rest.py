"""Rest: what the command line asks of /api/v1.

Enters: an address, a way to a token. Leaves: decoded JSON, or one of aggregator.errors with the server's own sentence.
Invariant: a token is only asked for when the server wants one, and only sent over TLS or to this machine.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from rich.console import Console
from rich.progress import Progress

from aggregator.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    ServerError,
    UnauthenticatedError,
    WattleError,
)

PREFIX = "/api/v1"
PAGE = 1000
SECONDS = 120.0
PATIENCE = 5  # times that a server may say "later"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_KINDS: Mapping[int, type[WattleError]] = {
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InputError,
}

Token = Callable[[], str]
Query = Mapping[str, object]


class Rest:
    """One server. Blocking."""

    def __init__(self, address: str, token: Token, *, ca_file: Path | None = None, cluster: str = "") -> None:
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InputError(f"--server {address!r} is no address: write http://HOST:PORT or https://HOST")
        self.address = address.rstrip("/")
        self._token = token
        self._cluster = cluster
        self._safe = parts.scheme == "https" or parts.hostname in _LOOPBACK
        self._bearer = ""
        self._pool = urllib3.PoolManager(
            retries=urllib3.Retry(0), ca_certs=str(ca_file) if ca_file else None, timeout=urllib3.Timeout(SECONDS)
        )

    def get(self, path: str, query: Query | None = None) -> Any:
        return self._decoded("GET", path, query)

    def text(self, path: str, query: Query | None = None) -> str:
        return self._ask("GET", path, query).data.decode()

    def send(
        self, method: str, path: str, body: Mapping[str, Any], *, query: Query | None = None, if_match: str = ""
    ) -> Any:
        return self._decoded(method, path, query, body=body, if_match=if_match)

    def items(self, path: str, query: Query, *, doing: str) -> list[Any]:
        """Every page of a list, with a bar on a terminal."""
        with progress() as bar:
            task = bar.add_task(doing, total=None)
            found: list[Any] = []
            cursor = ""
            while True:
                page = self.get(path, {**query, "limit": PAGE, "cursor": cursor})
                found += page["items"]
                bar.update(task, total=page["total"], completed=len(found))
                cursor = page.get("next_cursor") or ""
                if not cursor:
                    return found

    def _decoded(
        self,
        method: str,
        path: str,
        query: Query | None,
        *,
        body: Mapping[str, Any] | None = None,
        if_match: str = "",
    ) -> Any:
        answer = self._ask(method, path, query, body=body, if_match=if_match)
        try:
            return json.loads(answer.data)
        except ValueError as exc:
            raise ServerError(f"{self.address} answers, but not as Wattle does: is it the right address?") from exc

    def _ask(
        self,
        method: str,
        path: str,
        query: Query | None,
        *,
        body: Mapping[str, Any] | None = None,
        if_match: str = "",
    ) -> urllib3.BaseHTTPResponse:
        everything = {**(query or {}), "cluster": self._cluster}
        asked = urlencode({key: value for key, value in everything.items() if value not in {None, ""}})
        url = f"{self.address}{PREFIX}{path}{'?' + asked if asked else ''}"
        answer = self._once(method, url, body, if_match)
        if answer.status == 401 and not self._bearer:
            self._bearer = self._sendable_token()
            answer = self._once(method, url, body, if_match)
        for _ in range(PATIENCE):
            if answer.status != 429:
                break
            time.sleep(_later(answer))
            answer = self._once(method, url, body, if_match)
        if answer.status >= 400:
            raise self._refusal(answer)
        return answer

    def _once(self, method: str, url: str, body: Mapping[str, Any] | None, if_match: str) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "wattle-cli"}
        if self._bearer:
            headers["Authorization"] = f"Bearer {self._bearer}"
        if if_match:
            headers["If-Match"] = if_match
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return self._pool.request(
                method, url, headers=headers, body=None if body is None else json.dumps(body), redirect=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise ServerError(f"{self.address} does not answer: {_cause(exc)}") from exc

    def _sendable_token(self) -> str:
        if not self._safe:
            raise InputError(f"{self.address} asks for a token, which is not sent without TLS: write https://")
        return self._token()

    def _refusal(self, answer: urllib3.BaseHTTPResponse) -> WattleError:
        try:
            problem = json.loads(answer.data)
            detail = str(problem["detail"])
            fields = "; ".join(f"{e['field']}: {e['message']}" for e in problem.get("errors") or ())
        except (ValueError, KeyError, TypeError):
            return ServerError(f"{self.address} answers HTTP {answer.status}, but not as Wattle does")
        kind = _KINDS.get(answer.status, ServerError)
        return kind(f"{detail} ({fields})" if fields and detail not in fields else detail)


def place(*parts: str) -> str:
    """A path of parts that may hold anything."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def progress() -> Progress:
    """Bars on standard error, only where a person looks."""
    return Progress(console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty())


def _later(answer: urllib3.BaseHTTPResponse) -> float:
    try:
        return min(float(answer.headers.get("Retry-After", 1)), 10.0)
    except ValueError:
        return 1.0


def _cause(exc: BaseException) -> str:
    """What the innermost error says, without the library's own story."""
    for inner in (getattr(exc, "reason", None), *reversed(exc.args)):
        if isinstance(inner, BaseException):
            return _cause(inner)
    return str(exc).rpartition(": ")[2] or type(exc).__name__
