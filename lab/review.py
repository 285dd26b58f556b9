"""What the demo asks the aggregator's REST API, as any client would.

Enters: the API's address. Leaves: decoded JSON, as docs/rest.md describes it.
"""

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lab.errors import LabError

TIMEOUT_SECONDS = 10.0


class ReviewError(LabError):
    """The REST API did not answer as documented."""


class Review:
    """A small client of /api/v1 on loopback."""

    def __init__(self, address: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds

    def agent_reports(self) -> bool:
        """Whether an agent's batch has been committed; False while the aggregator is still starting."""
        try:
            return bool(self._get("/status")["last_batch"])
        except ReviewError:
            return False

    def namespace_links(self, namespace: str) -> list[dict[str, Any]]:
        return self._items(f"/namespaces/{namespace}/links")

    def workload_links(self, namespace: str, kind: str, name: str) -> list[dict[str, Any]]:
        return self._items(f"/workloads/{namespace}/{kind}/{name}/links")

    def workload_policy(self, namespace: str, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(f"/workloads/{namespace}/{kind}/{name}/policy")
        return found

    def namespace_policy(self, namespace: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(f"/namespaces/{namespace}/policy")
        return found

    def _items(self, path: str) -> list[dict[str, Any]]:
        """Every page of a listing."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self._get(f"{path}?cursor={cursor}" if cursor else path)
            items += page["items"]
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return items

    def _get(self, path: str) -> Any:
        request = Request(self.address + path, headers={"Accept": "application/json"})
        try:
            with urlopen(request, timeout=self._timeout_seconds) as response:
                return json.load(response)
        except HTTPError as exc:
            raise ReviewError(f"asking {path}: {exc.code} {exc.read(500).decode(errors='replace')}") from exc
        except (URLError, OSError) as exc:
            raise ReviewError(f"asking {path}: {exc}") from exc
