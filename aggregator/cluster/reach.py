"""Reach: a cluster as a person's kubeconfig opens it, for the command line.

Enters: a kubeconfig and one of its contexts. Leaves: a short-lived token made for Wattle alone, and a local port that
leads to a Service. Invariant: what the kubeconfig holds is only ever shown to its API server; a forwarded port is
bound to loopback, and gone with the block that asked for it.
"""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, list_kube_config_contexts
from kubernetes.stream.ws_client import PortForward, create_websocket

from aggregator.cluster.transport import ApiError, KubernetesApi
from aggregator.errors import ClusterError

AUDIENCE = "wattle"
TOKEN_SECONDS = 600  # the shortest that Kubernetes gives
_CHUNK_BYTES = 65_536


class Reach:
    """One context. Blocking."""

    def __init__(self, api: KubernetesApi, *, context: str, namespace: str) -> None:
        self._api = api
        self.context = context
        self.namespace = namespace

    @classmethod
    def of(cls, kubeconfig: Path | None = None, context: str | None = None) -> "Reach":
        """None: the usual file ($KUBECONFIG, ~/.kube/config), its current context. Raises ClusterError."""
        path = kubeconfig or Path(os.path.expanduser(KUBE_CONFIG_DEFAULT_LOCATION))  # noqa: PTH111  # may be a list of files
        try:
            contexts, active = list_kube_config_contexts(str(path))  # type: ignore[no-untyped-call]  # the client has no types
        except (ConfigException, OSError, TypeError, KeyError) as exc:
            raise ClusterError(f"the kubeconfig {path} cannot be used: {exc}") from exc
        chosen = next((c for c in contexts if c["name"] == context), None) if context else active
        if chosen is None:
            names = ", ".join(c["name"] for c in contexts) or "none"
            raise ClusterError(f"the kubeconfig {path} has no context {context}; it has {names}")
        return cls(
            KubernetesApi.from_kubeconfig(path, chosen["name"]),
            context=chosen["name"],
            namespace=chosen["context"].get("namespace") or "default",
        )

    @property
    def api(self) -> KubernetesApi:
        """The connection itself, under the rights of the kubeconfig."""
        return self._api

    def token(self, namespace: str, account: str) -> str:
        """Of a ServiceAccount, for the audience `wattle` alone: no API server takes it. Raises ClusterError."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [AUDIENCE], "expirationSeconds": TOKEN_SECONDS},
        }
        try:
            answer = self._api.post(path, body)
        except ApiError as error:
            raise ClusterError(_token_refused(error, namespace, account)) from error
        token = (answer.get("status") or {}).get("token")
        if not isinstance(token, str) or not token:
            raise ClusterError(f"POST {path}: the answer has no token")
        return token

    @contextlib.contextmanager
    def forwarded(self, namespace: str, service: str) -> Iterator[int]:
        """A port of this machine that leads to the first port of a Service, while the block runs."""
        pod, port = self._behind(namespace, service)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            forward = _Forward(self._api, f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward", port)
            threading.Thread(target=forward.accept, args=(listener,), name="port-forward", daemon=True).start()
            yield listener.getsockname()[1]

    def close(self) -> None:
        self._api.close()

    def _behind(self, namespace: str, service: str) -> tuple[str, int]:
        """A ready pod of the Service, and the number of the port on it."""
        base = f"/api/v1/namespaces/{namespace}"
        try:
            spec = self._api.get(f"{base}/services/{service}")["spec"]
            selector = ",".join(f"{key}={value}" for key, value in (spec.get("selector") or {}).items())
            pods = self._api.get(f"{base}/pods", {"labelSelector": selector})["items"] if selector else []
        except ApiError as error:
            raise ClusterError(
                f"no way to Wattle: {error}; name its Service by --service NAMESPACE/NAME, or its address by --server"
            ) from error
        ready = sorted((pod for pod in pods if _ready(pod)), key=lambda pod: str(pod["metadata"]["name"]))
        if not ready:
            raise ClusterError(f"no pod behind the Service {namespace}/{service} is ready")
        return ready[0]["metadata"]["name"], _port_on(ready[0], spec["ports"][0])


class _Forward:
    """Connections to a local port, each by a websocket of its own, as kubectl does it."""

    def __init__(self, api: KubernetesApi, path: str, port: int) -> None:
        self._api = api
        self._path = path
        self._port = port

    def accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed: nobody asks any more
                return
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        """A connection that cannot be forwarded is closed: its client says that nothing answered."""
        with near:
            configuration = self._api.configuration
            settings: Mapping[str, Any] = configuration.auth_settings()
            headers = {s["key"]: s["value"] for s in settings.values() if s["in"] == "header" and s["value"]}
            headers["sec-websocket-protocol"] = "v4.channel.k8s.io"
            url = f"{configuration.host}{self._path}?{urlencode({'ports': self._port})}".replace("http", "ws", 1)
            try:
                far = PortForward(create_websocket(configuration, url, headers), [self._port])  # type: ignore[no-untyped-call]
            except Exception:  # noqa: BLE001  # whatever the websocket client raises, of many kinds
                return
            with contextlib.closing(far), contextlib.suppress(OSError):
                _pump(near, far.socket(self._port))  # type: ignore[no-untyped-call]


def _pump(near: socket.socket, far: socket.socket) -> None:
    """Until one side has nothing more to say."""
    while True:
        for side in select.select([near, far], [], [])[0]:
            data = side.recv(_CHUNK_BYTES)
            if not data:
                return
            (far if side is near else near).sendall(data)


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    gone = pod["metadata"].get("deletionTimestamp")
    return not gone and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _port_on(pod: Mapping[str, Any], port: Mapping[str, Any]) -> int:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for named in container.get("ports") or ():
            if named.get("name") == target:
                return int(named["containerPort"])
    raise ClusterError(f"the pod {pod['metadata']['name']} has no port named {target}")


def _token_refused(error: ApiError, namespace: str, account: str) -> str:
    match error.status:
        case 404:
            return (
                f"there is no ServiceAccount {account} in the namespace {namespace}: name one with --service-account "
                "NAMESPACE/NAME that is bound to one of Wattle's roles"
            )
        case 403:
            return (
                f"you may not ask for a token of the ServiceAccount {namespace}/{account}: that is the right `create` "
                "on `serviceaccounts/token`"
            )
        case _:
            return f"no token for Wattle: {error}"
