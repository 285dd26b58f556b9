"""Limits: how large a request may be, and how many a client may send.

Enters: every request, before anything reads it. Leaves: the request, or 413 and 429 as problems. Invariant: a body is
counted as it arrives, whatever its Content-Length says; a client is told apart by its token, else by its address, and
only a bounded number of clients is remembered.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator.api.problems import problem_response
from aggregator.metrics import REST_REFUSED

MAX_BODY_BYTES = 256 * 1024
MAX_CLIENTS = 10_000
_NOT_COUNTED = frozenset({"/healthz", "/readyz", "/metrics"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A token bucket: `burst` at once, then `per_second`."""

    burst: int = 200
    per_second: float = 50.0


class Buckets:
    """One bucket a client; the one not seen for longest is forgotten first."""

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0 when the request may go on, else the seconds until it may."""
        now = self._clock()
        with self._lock:
            left, at = self._left.get(client, (float(self._rate.burst), now))
            left = min(left + (now - at) * self._rate.per_second, float(self._rate.burst))
            wait = 0.0 if left >= 1.0 else (1.0 - left) / self._rate.per_second
            self._left[client] = (left - 1.0 if not wait else left, now)
            self._left.move_to_end(client)
            while len(self._left) > MAX_CLIENTS:
                self._left.popitem(last=False)
        return wait


class Limits:
    """ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp, *, buckets: Buckets, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._buckets = buckets
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _NOT_COUNTED:
            await self._app(scope, receive, send)
            return
        wait = self._buckets.take(_client(scope))
        if wait:
            REST_REFUSED.labels(reason="rate").inc()
            answer = problem_response(429, "too many requests: slow down", headers={"Retry-After": str(ceil(wait))})
            await answer(scope, receive, send)
            return
        await self._limited(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body_bytes:
            await self._too_large(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                await self._app(scope, _replay(message, receive), send)
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body_bytes:
                await self._too_large(scope, receive, send)
                return
        await self._app(
            scope, _replay({"type": "http.request", "body": bytes(body), "more_body": False}, receive), send
        )

    async def _too_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        REST_REFUSED.labels(reason="body-too-large").inc()
        answer = problem_response(413, f"a request body has at most {self._max_body_bytes} bytes")
        await answer(scope, receive, send)


def _replay(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


def _client(scope: Mapping[str, object]) -> str:
    token = Headers(scope=scope).get("authorization", "")  # type: ignore[arg-type]  # a Scope is this mapping
    if token:
        return hashlib.sha256(token.encode()).hexdigest()
    client = scope.get("client")
    return str(client[0]) if isinstance(client, tuple | list) and client else ""
