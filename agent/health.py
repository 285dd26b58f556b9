"""Liveness, readiness and metrics over HTTP, for the kubelet, Prometheus and `--health`.

Enters: a `Condition` that says what is wrong, if anything. Leaves: /livez, /readyz, /metrics.
Invariant: alive = the drain loop turns; ready = attached, self-test passed, first batch committed. Neither is a timer.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agent.errors import ConfigError

Condition = Callable[[], str]  # "" when all is well, else a sentence

_REQUEST_SECONDS: Final = 5.0
_REQUEST_BYTES: Final = 8192
_PROBE_SECONDS: Final = 3.0


class HealthServer:
    """Three pages and nothing else."""

    def __init__(self, *, alive: Condition, ready: Condition, refresh: Callable[[], None]) -> None:
        self._alive = alive
        self._ready = ready
        self._refresh = refresh
        self._server: asyncio.Server | None = None

    async def start(self, listen: str) -> int:
        """Listen on "host:port"; returns the port. Raises ConfigError."""
        host, _, port = listen.rpartition(":")
        try:
            self._server = await asyncio.start_server(self._serve, host.strip("[]"), int(port), limit=_REQUEST_BYTES)
        except OSError as exc:
            reason = "another program has it" if exc.errno == errno.EADDRINUSE else exc.strerror
            raise ConfigError(f"listening on {listen}: {reason}; set http_listen to another address") from exc
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                method, path, _version = request.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ", 2)
                status, content_type, body = self._page(method, path)
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode("ascii") + body)
                await writer.drain()
        writer.close()

    def _page(self, method: str, path: str) -> tuple[str, str, bytes]:
        if method != "GET":
            return "405 Method Not Allowed", "text/plain", b"GET only\n"
        match path.split("?", 1)[0]:
            case "/metrics":
                self._refresh()
                return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
            case "/livez":
                return _answer(self._alive())
            case "/readyz":
                return _answer(self._alive() or self._ready())
            case _:
                return "404 Not Found", "text/plain", b"/livez, /readyz, /metrics\n"


def _answer(complaint: str) -> tuple[str, str, bytes]:
    status = "503 Service Unavailable" if complaint else "200 OK"
    return status, "text/plain; charset=utf-8", f"{complaint or 'ok'}\n".encode()


def ask(listen: str) -> str:
    """What a running agent's /readyz says; "" when it is ready."""
    host, _, port = listen.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as exc:
        return f"no agent answers on {listen}: {exc}"
    finally:
        connection.close()
    return "" if response.status == http.client.OK else text
