"""Sending JSON to an operator's own URL, with the proof of who sent it.

Enters: a JSON value. Leaves: nothing, or NotTakenError with the reason for a counter. Invariant: a redirect is not
followed, so what was signed for one address never reaches another; secrets are read from their files for every request
and are in no message.
"""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import urllib3

from aggregator.errors import WattleError

TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
SIGNATURE = "X-Wattle-Signature"


class NotTakenError(WattleError):
    """The other side did not take it; `reason` is a short stable word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Outlet:
    """One URL. `secret_file` signs the body (HMAC-SHA256), `token_file` is a bearer token; both may be absent."""

    def __init__(self, url: str, *, secret_file: Path | None = None, token_file: Path | None = None) -> None:
        self._url = url
        self._secret_file = secret_file
        self._token_file = token_file
        self._pool = urllib3.PoolManager(retries=urllib3.Retry(0, redirect=False, raise_on_redirect=False))

    def send(self, value: Any) -> None:
        """Raises NotTakenError."""
        body = json.dumps(value, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "wattle-aggregator"}
        if self._secret_file is not None:
            digest = hmac.new(_read(self._secret_file), body, hashlib.sha256).hexdigest()
            headers[SIGNATURE] = f"sha256={digest}"
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {_read(self._token_file).decode()}"
        try:
            answer = self._pool.request("POST", self._url, body=body, headers=headers, timeout=TIMEOUT, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise NotTakenError("no-answer", f"no answer from the webhook: {type(exc).__name__}") from exc
        if not 200 <= answer.status < 300:
            raise NotTakenError(f"http-{answer.status}", f"the webhook answered {answer.status}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as exc:
        raise NotTakenError("secret-unreadable", f"{path} cannot be read: {exc.strerror}") from exc
