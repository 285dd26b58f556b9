"""A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager; and an administrator's hands.

Everything lives in one temporary folder, listens on free ports of 127.0.0.1 and is stopped by the pid it was started
with. Nodes do not exist: tests play the kubelet by patching status.
"""

import base64
import json
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3
import yaml

from tests.cluster.kubebinaries import binaries

Raw = dict[str, Any]
SERVICE_CIDR = "10.96.0.0/16"
POD_CIDR = "10.244.0.0/16"
READY_SECONDS = 90.0
# Controllers that would evict pods from nodes that nobody runs.
WITHOUT = ("node-lifecycle-controller", "pod-garbage-collector-controller", "taint-eviction-controller")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> Any:
    """What `condition` says once it is true. The last error is told when it never is."""
    deadline, error = time.monotonic() + seconds, ""
    while True:
        try:
            if found := condition():
                return found
            error = ""
        except (OSError, urllib3.exceptions.HTTPError, ApiRefusal) as exc:
            error = f": {exc}"
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s{error}"
        time.sleep(0.02)


class ApiRefusal(Exception):  # noqa: N818 - reads as what it is
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"HTTP {status}: {message}")


class Admin:
    """Raw requests as system:masters."""

    def __init__(self, url: str, pki: Path) -> None:
        self.url = url
        self._pool = urllib3.PoolManager(
            ca_certs=str(pki / "ca.crt"),
            cert_file=str(pki / "admin.crt"),
            key_file=str(pki / "admin.key"),
            maxsize=16,
            retries=False,
        )

    def call(self, method: str, path: str, body: Raw | None = None, *, patch: str = "merge") -> Raw:
        kind = f"application/{'strategic-' if patch == 'strategic' else ''}merge-patch+json"
        answer = self._pool.request(
            method,
            self.url + path,
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": kind if method == "PATCH" else "application/json"},
            timeout=urllib3.Timeout(total=30),
        )
        if answer.status >= 400:
            raise ApiRefusal(answer.status, answer.data.decode()[:300])
        try:
            found: Raw = json.loads(answer.data)
        except ValueError:
            return {"text": answer.data.decode()}
        return found

    def get(self, path: str) -> Raw:
        return self.call("GET", path)

    def create(self, path: str, body: Raw) -> Raw:
        return self.call("POST", path, body)

    def patch(self, path: str, body: Raw) -> Raw:
        return self.call("PATCH", path, body)

    def delete(self, path: str, *, now: bool = False) -> None:
        self.call("DELETE", path, {"gracePeriodSeconds": 0} if now else None)

    def apply_file(self, path: Path) -> None:
        """Create what a manifest of RBAC objects says."""
        for document in yaml.safe_load_all(path.read_text()):
            plural = document["kind"].lower() + "s"
            namespace = document["metadata"].get("namespace")
            where = f"namespaces/{namespace}/" if namespace else ""
            self.create(f"/apis/{document['apiVersion']}/{where}{plural}", document)

    def close(self) -> None:
        self._pool.clear()


class ControlPlane:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = binaries()
        self._pki = folder / "pki"
        self._port, self._etcd_port, self._peer_port, self._kcm_port = (free_port() for _ in range(4))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"https://127.0.0.1:{self._port}"
        self.etcd_url = f"http://127.0.0.1:{self._etcd_port}"

    # ---- life -------------------------------------------------------------------------------------------------------

    def start(self) -> "ControlPlane":
        _make_pki(self._pki)
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._run(
            "etcd",
            "etcd",
            "--name=test",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--unsafe-no-fsync",
        )
        self.start_apiserver()
        self.admin = Admin(self.url, self._pki)
        self._wait_ready()
        self._run(
            "kube-controller-manager",
            str(self._bin / "kube-controller-manager"),
            f"--kubeconfig={self._admin_kubeconfig()}",
            f"--controllers=*,{','.join(f'-{name}' for name in WITHOUT)}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._kcm_port}",
            f"--root-ca-file={self._pki / 'ca.crt'}",
            f"--service-account-private-key-file={self._pki / 'sa.key'}",
            "--use-service-account-credentials=false",
            f"--cert-dir={self._folder / 'kcm'}",
            "--concurrent-deployment-syncs=5",
        )
        wait_until(
            lambda: self.admin.get("/api/v1/namespaces/default/serviceaccounts/default"),
            "the controller manager's first ServiceAccount",
            READY_SECONDS,
        )
        return self

    def start_apiserver(self) -> None:
        pki = self._pki
        self._run(
            "kube-apiserver",
            str(self._bin / "kube-apiserver"),
            f"--etcd-servers={self.etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            "--authorization-mode=Node,RBAC",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--cert-dir={self._folder / 'apiserver'}",
            "--max-mutating-requests-inflight=400",
        )

    def stop_apiserver(self) -> None:
        self._stop("kube-apiserver", signal.SIGKILL)

    def restart_apiserver(self) -> None:
        self.stop_apiserver()
        self.start_apiserver()
        self._wait_ready()

    def stop(self) -> None:
        for name in reversed(list(self._processes)):
            self._stop(name, signal.SIGTERM)
        if hasattr(self, "admin"):
            self.admin.close()

    def _wait_ready(self) -> None:
        wait_until(lambda: self.admin.get("/readyz"), "the API server's readiness", READY_SECONDS)

    def _run(self, name: str, *command: str) -> None:
        log = (self._folder / f"{name}.log").open("ab")
        with log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _stop(self, name: str, how: signal.Signals) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    # ---- who may ask ------------------------------------------------------------------------------------------------

    def _admin_kubeconfig(self) -> Path:
        path = self._folder / "admin.kubeconfig"
        user = {
            "client-certificate": str(self._pki / "admin.crt"),
            "client-key": str(self._pki / "admin.key"),
        }
        path.write_text(yaml.safe_dump(self.kubeconfig(user)))
        return path

    def kubeconfig(self, user: Raw, *, url: str = "") -> Raw:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": url or self.url,
                        "certificate-authority": str(self._pki / "ca.crt"),
                    },
                }
            ],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
            "current-context": "test",
        }

    def token(self, namespace: str, account: str, **spec: Any) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        token: str = self.admin.create(path, body)["status"]["token"]
        return token

    def compact(self) -> None:
        """Forget every version of every object but the newest: watches from before get 410."""
        revision = self._etcd("range", {"key": base64.b64encode(b"x").decode()})["header"]["revision"]
        self._etcd("compaction", {"revision": revision, "physical": True})

    def _etcd(self, verb: str, body: Raw) -> Raw:
        answer = urllib3.request("POST", f"{self.etcd_url}/v3/kv/{verb}", json=body, timeout=10, retries=False)
        assert answer.status == 200, answer.data
        found: Raw = answer.json()
        return found


def end(process: subprocess.Popen[bytes]) -> None:
    """By asking; by force when it has not gone after half a minute."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _make_pki(folder: Path) -> None:
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-days", "7", "-subj", "/CN=wattle-test", "-keyout", "ca.key", "-out", "ca.crt")
    names = "DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1"
    for name, subject, extension in (
        ("apiserver", "/CN=kube-apiserver", f"subjectAltName={names}\nextendedKeyUsage=serverAuth"),
        ("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth"),
    ):
        (folder / f"{name}.ext").write_text(extension)
        openssl("req", *curve, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "7", "-out", f"{name}.crt", "-extfile", f"{name}.ext"),
        )
    openssl("genrsa", "-out", "sa.key", "2048")
    openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def random_name(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(3)}"
