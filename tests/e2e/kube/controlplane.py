"""etcd, the API server, the controller manager and the scheduler, as a cluster's administrator would start them."""

import subprocess  # noqa: TC003 - Popen is what a daemon is held by
from pathlib import Path

from tests.cluster.controlplane import Admin, wait_until
from tests.e2e.kube.layout import API_URL, GATEWAY, POD_CIDRS, SERVICE_CIDRS
from tests.e2e.kube.machine import STATE, start
from tests.e2e.kube.pki import Pki

ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"
READY_SECONDS = 180.0


class ControlPlane:
    def __init__(self, pki: Pki, programs: Path) -> None:
        self._pki = pki
        self._programs = programs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.admin = Admin(API_URL, pki.folder)

    def start(self) -> None:
        self._start(
            "etcd",
            "etcd",
            "--name=e2e",
            f"--data-dir={STATE / 'etcd'}",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            f"--listen-peer-urls={ETCD_PEER}",
            f"--initial-advertise-peer-urls={ETCD_PEER}",
            f"--initial-cluster=e2e={ETCD_PEER}",
            "--unsafe-no-fsync",
        )
        self.start_apiserver()
        self.wait_ready()
        self._kubernetes("kube-controller-manager", "controller-manager", *self._controller_settings())
        self._kubernetes("kube-scheduler", "scheduler")
        wait_until(
            lambda: self.admin.get("/api/v1/namespaces/default/serviceaccounts/default"),
            "the controller manager's first ServiceAccount",
            READY_SECONDS,
        )
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}
        self.admin.create(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            {"metadata": {"name": "node-proxier"}, "roleRef": role, "subjects": [subject]},
        )

    def start_apiserver(self) -> None:
        path = self._pki.path
        self._start(
            "kube-apiserver",
            str(self._programs / "kube-apiserver"),
            f"--etcd-servers={ETCD}",
            f"--advertise-address={GATEWAY}",
            "--secure-port=6443",
            f"--client-ca-file={path('ca.crt')}",
            f"--tls-cert-file={path('apiserver.crt')}",
            f"--tls-private-key-file={path('apiserver.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={path('sa.pub')}",
            f"--service-account-signing-key-file={path('sa.key')}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICE_CIDRS}",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={path('kubelet-client.crt')}",
            f"--kubelet-client-key={path('kubelet-client.key')}",
            f"--kubelet-certificate-authority={path('ca.crt')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--cert-dir={STATE / 'apiserver'}",
        )

    def kill_apiserver(self) -> None:
        process = self._processes["kube-apiserver"]
        process.kill()
        process.wait()

    def wait_ready(self) -> None:
        wait_until(lambda: self.admin.get("/readyz"), "the API server's readiness", READY_SECONDS)

    def _controller_settings(self) -> list[str]:
        return [
            f"--root-ca-file={self._pki.path('ca.crt')}",
            f"--service-account-private-key-file={self._pki.path('sa.key')}",
            "--use-service-account-credentials=true",
            f"--cluster-cidr={POD_CIDRS}",
            f"--service-cluster-ip-range={SERVICE_CIDRS}",
            "--allocate-node-cidrs=true",
            # A node here is a few processes: when one is killed, its pods go on, as do those of a real node whose
            # kubelet restarts.
            "--node-monitor-grace-period=120s",
        ]

    def _kubernetes(self, program: str, user: str, *settings: str) -> None:
        kubeconfig = self._pki.kubeconfig(user)
        self._start(
            program,
            str(self._programs / program),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            f"--cert-dir={STATE / program}",
            *settings,
        )

    def _start(self, name: str, *command: str) -> None:
        self._processes[name] = start(name, command)
