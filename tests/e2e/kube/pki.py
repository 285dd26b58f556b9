"""The cluster's certificates, by openssl: one authority, one certificate for each who speaks."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.kube.layout import API_ADDRESS, API_URL, GATEWAY, NODES

NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
}


class Pki:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._openssl(
            "req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=wattle-e2e"
        )
        names = ",".join([*(f"DNS:{name}" for name in NAMES), f"IP:{API_ADDRESS}", f"IP:{GATEWAY}", "IP:127.0.0.1"])
        self._issue("apiserver", "/CN=kube-apiserver", names)
        for name, subject in CLIENTS.items():
            self._issue(name, subject)
        for node in NODES:
            names = ",".join([f"DNS:{node.name}", *(f"IP:{address}" for address in node.addresses)])
            self._issue(node.name, f"/O=system:nodes/CN=system:node:{node.name}", names)
        self._openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "sa.key")
        self._openssl("pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub")

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def kubeconfig(self, name: str) -> str:
        """The path of a kubeconfig for one of the certificates."""
        path = self.folder / f"{name}.kubeconfig"
        user = {"client-certificate": self.path(f"{name}.crt"), "client-key": self.path(f"{name}.key")}
        path.write_text(yaml.safe_dump(self.config(user)))
        return str(path)

    def config(self, user: dict[str, str]) -> dict[str, Any]:
        cluster = {"server": API_URL, "certificate-authority": self.path("ca.crt")}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": cluster}],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "me"}}],
            "current-context": "e2e",
        }

    def _issue(self, name: str, subject: str, alternative: str = "") -> None:
        extensions = self.folder / f"{name}.ext"
        lines = ["extendedKeyUsage=clientAuth,serverAuth", *([f"subjectAltName={alternative}"] if alternative else [])]
        extensions.write_text("\n".join(lines) + "\n")
        self._openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", extensions.name, "-out", f"{name}.crt",
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
