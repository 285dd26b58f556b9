"""Transport: raw JSON to and from one API server, over the `kubernetes` client's connections and credentials.

Enters: a client Configuration (in-cluster, or a kubeconfig). Leaves: decoded JSON, or the lines of a watch. Invariant:
every failure is an ApiError with a status (0 = no answer came), so that whoever asks can tell gone, forbidden and
unreachable apart. The client's models are not used: they cost 900 us and 94 kB a pod.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import load_incluster_config
from kubernetes.config.kube_config import load_kube_config, load_kube_config_from_dict

from aggregator.errors import ClusterError

GONE = 410
NO_ANSWER = 0
CONNECT_SECONDS = 10.0
APPLY = "application/apply-patch+yaml"  # JSON is YAML
_WARNING = re.compile(r'(\d{3}) \S+ "((?:[^"\\]|\\.)*)"')  # RFC 7234


class ApiError(ClusterError):
    """The API server said no, or said nothing (status 0)."""

    def __init__(self, doing: str, status: int, message: str, *, retry_after_seconds: float = 0.0) -> None:
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{doing}: {f'HTTP {status}: ' if status else ''}{message}")


class KubernetesApi:
    """One API server. Safe to use from several threads."""

    def __init__(self, configuration: Configuration) -> None:
        configuration.retries = urllib3.Retry(0, redirect=3)  # who asks knows when to ask again
        configuration.connection_pool_maxsize = max(64, configuration.connection_pool_maxsize or 0)
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._closed = False

    @classmethod
    def in_cluster(cls) -> "KubernetesApi":
        """As the ServiceAccount of this pod. Its token is read again when it changes."""
        configuration = Configuration()
        try:  # the client's loaders carry no types
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException as exc:
            raise ClusterError(f"no in-cluster credentials: {exc}") from exc
        return cls(configuration)

    @classmethod
    def from_kubeconfig(cls, kubeconfig: Path | str | Mapping[str, Any], context: str | None = None) -> "KubernetesApi":
        """From a file, or from the content of a Secret (text, or what the text says); None = its current context."""
        configuration = Configuration()
        more: dict[str, Any] = {"client_configuration": configuration, "context": context}
        try:
            match kubeconfig:
                case Path():
                    load_kube_config(str(kubeconfig), **more)  # type: ignore[no-untyped-call]
                case str():
                    load_kube_config_from_dict(yaml.safe_load(kubeconfig), **more)  # type: ignore[no-untyped-call]
                case _:
                    load_kube_config_from_dict(dict(kubeconfig), **more)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError, yaml.YAMLError, TypeError, KeyError) as exc:
            raise ClusterError(f"the kubeconfig cannot be used: {exc}") from exc
        return cls(configuration)

    def get(
        self, path: str, query: Mapping[str, object] | None = None, *, read_seconds: float = 60.0
    ) -> dict[str, Any]:
        return self._decoded("GET", path, query or {}, None, read_seconds)

    def each(
        self, path: str, query: Mapping[str, object], take: Callable[[dict[str, Any]], None], *, read_seconds: float
    ) -> dict[str, Any]:
        """Hand every item of a list to `take`, one at a time; the list's metadata. A page is never a tree in memory."""
        doing = f"GET {path}"
        response = self._request("GET", path, query, None, read_seconds)
        try:
            text = response.read().decode()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
            raise ApiError(doing, NO_ANSWER, f"the answer broke off: {exc}") from exc
        finally:
            response.release_conn()
        try:
            return items_of(text, take)
        except (ValueError, IndexError) as exc:
            raise ApiError(doing, NO_ANSWER, f"the answer makes no sense: {exc}") from exc

    def post(self, path: str, body: Mapping[str, Any], *, read_seconds: float = 10.0) -> dict[str, Any]:
        return self._decoded("POST", path, {}, body, read_seconds)

    def delete(self, path: str, *, read_seconds: float = 10.0) -> dict[str, Any]:
        """In the background: what it owns goes with it."""
        return self._decoded("DELETE", path, {"propagationPolicy": "Background"}, None, read_seconds)

    def apply(
        self, path: str, body: Mapping[str, Any], query: Mapping[str, object], *, read_seconds: float = 10.0
    ) -> tuple[int, dict[str, Any], tuple[str, ...]]:
        """Server-side apply: status, the object as it is then, and the server's warnings."""
        doing = f"PATCH {path}"
        response = self._request("PATCH", path, query, body, read_seconds, content_type=APPLY)
        warnings = tuple(found[2] for text in response.headers.getlist("Warning") if (found := _WARNING.match(text)))
        return response.status, _object(response, doing), warnings

    @contextmanager
    def lines(self, path: str, query: Mapping[str, object], *, read_seconds: float) -> Iterator["Lines"]:
        """A streaming answer. Nothing for `read_seconds` is an ApiError without an answer."""
        response = self._request("GET", path, query, None, read_seconds)
        try:
            yield Lines(response, f"watch {path}")
        finally:
            response.close()
            response.release_conn()

    @property
    def configuration(self) -> Configuration:
        return self._configuration

    def close(self) -> None:
        """For good: a thread that asks once more would open a connection that nobody closes."""
        self._closed = True
        self._rest.pool_manager.clear()

    def _decoded(
        self, method: str, path: str, query: Mapping[str, object], body: Mapping[str, Any] | None, read_seconds: float
    ) -> dict[str, Any]:
        return _object(self._request(method, path, query, body, read_seconds), f"{method} {path}")

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: Mapping[str, Any] | None,
        read_seconds: float,
        *,
        content_type: str = "application/json",
    ) -> urllib3.BaseHTTPResponse:
        doing = f"{method} {path}"
        if self._closed:
            raise ApiError(doing, NO_ANSWER, "this connection was closed")
        asked = urlencode({key: value for key, value in query.items() if value not in {None, ""}})
        headers = {"Accept": "application/json", "User-Agent": "wattle-aggregator"}
        settings: Mapping[str, Any] = self._configuration.auth_settings()  # also reads a rotated token again
        for setting in settings.values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            response = self._rest.pool_manager.request(
                method,
                f"{self._configuration.host}{path}{'?' + asked if asked else ''}",
                headers=headers,
                body=None if body is None else json.dumps(body),
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise ApiError(doing, NO_ANSWER, f"no answer: {exc}") from exc
        if response.status >= 400:
            raise _failure(doing, response)
        return response


class Lines:
    """The lines of a streaming answer, each one JSON object."""

    def __init__(self, response: urllib3.BaseHTTPResponse, doing: str) -> None:
        self._response = response
        self._doing = doing

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        try:
            for chunk in self._chunks():
                rest += chunk
                if b"\n" in chunk:
                    *whole, rest = rest.split(b"\n")
                    yield from whole
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as exc:
            # AttributeError: urllib3 drops its own file while another thread shuts it down.
            raise ApiError(self._doing, NO_ANSWER, f"the stream broke off: {exc}") from exc

    def _chunks(self) -> Iterator[bytes]:
        """What has come, as it comes: a proxy may have taken the chunked encoding away."""
        if self._response.chunked:
            yield from self._response.stream(65536, decode_content=True)
            return
        while chunk := self._response.read1(65536):
            yield chunk

    def shut(self) -> None:
        """Wake the thread that reads; from another thread."""
        try:
            self._response.shutdown()
        except (OSError, RuntimeError, ValueError, AttributeError):
            self._response.close()


def items_of(text: str, take: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Walk a list's JSON: items go to `take` one by one, the metadata is what leaves. Raises ValueError, IndexError.

    A page as one tree keeps some hundred thousand containers alive, and the collector walks them again and again: that
    made a pod three times as dear.
    """
    metadata: dict[str, Any] = {}
    at = _past(text, 0, "{")
    while text[at] != "}":
        key, at = _VALUE.raw_decode(text, at)
        at = _past(text, at, ":")
        if key == "items" and text[at] == "[":
            at = _past(text, at, "[")
            while text[at] != "]":
                item, at = _VALUE.raw_decode(text, at)
                take(item)
                at = _past(text, at, ",", optional=True)
            at = _past(text, at, "]")
        else:
            value, at = _VALUE.raw_decode(text, at)
            if key == "metadata":
                metadata = value
        at = _past(text, _blank(text, at), ",", optional=True)
    return metadata


_VALUE = json.JSONDecoder()


def _past(text: str, at: int, sign: str, *, optional: bool = False) -> int:
    """The first place after `sign` and blanks."""
    at = _blank(text, at)
    if text[at] == sign:
        return _blank(text, at + 1)
    if optional:
        return at
    raise ValueError(f"expected {sign!r} at {at}")


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _object(response: urllib3.BaseHTTPResponse, doing: str) -> dict[str, Any]:
    try:
        answer = json.loads(response.read())
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
        raise ApiError(doing, NO_ANSWER, f"the answer broke off: {exc}") from exc
    finally:
        response.release_conn()
    if not isinstance(answer, dict):
        raise ApiError(doing, NO_ANSWER, "the answer is no object")
    return answer


def _failure(doing: str, response: urllib3.BaseHTTPResponse) -> ApiError:
    try:
        text = response.read().decode(errors="replace")
    except (urllib3.exceptions.HTTPError, OSError):
        text = ""
    finally:
        response.release_conn()
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text[:200] or str(response.reason)
    try:
        retry_after = float(response.headers.get("Retry-After", 0))
    except ValueError:
        retry_after = 0.0
    return ApiError(doing, response.status, message, retry_after_seconds=retry_after)
