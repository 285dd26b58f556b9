"""The chart as a release in the tests' own cluster, and what it releases run on this machine."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.cluster.controlplane import Admin, ControlPlane, end, free_port, random_name, wait_until

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "deploy" / "helm" / "wattle"
SQLITE = {"kind": "sqlite"}
RELEASE = "fence"
NAME = "fence-wattle"  # the tier's own wattle-aggregator roles are not the release's


@pytest.fixture
def chart(tmp_path: Path) -> str:
    """Without its word on versions: these programs, built from their module, say they are v0.0.0."""
    copy = tmp_path / "wattle"
    shutil.copytree(SOURCE, copy)
    about = copy / "Chart.yaml"
    kept = [line for line in about.read_text().splitlines() if not line.startswith("kubeVersion:")]
    about.write_text("\n".join(kept))
    values = copy / "values.yaml"
    values.write_text(values.read_text().replace('kubeVersion: ""', 'kubeVersion: "1.36.2"'))
    return str(copy)


@pytest.fixture
def place(admin: Admin) -> Iterator[str]:
    name = random_name("fence")
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    admin.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def helm(plane: ControlPlane, admin: Admin, place: str) -> Iterator[Any]:
    """As a cluster administrator, who alone may hand out rights."""
    helm_python = pytest.importorskip("helm_python", reason="Helm's SDK has no wheel for this machine")
    account = random_name("installer")
    admin.create("/api/v1/namespaces/kube-system/serviceaccounts", {"metadata": {"name": account}})
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    admin.create(bindings, {"metadata": {"name": account}, "roleRef": role, "subjects": [subject]})
    kubeconfig = json.dumps(plane.kubeconfig({"token": plane.token("kube-system", account)}))
    with helm_python.Config(kubeconfig_content=kubeconfig, namespace=place) as config:
        yield config
        config.uninstall(RELEASE, ignore_not_found=True)
    admin.delete(f"{bindings}/{account}")
    admin.delete(f"/api/v1/namespaces/kube-system/serviceaccounts/{account}")


def certificate(admin: Admin, place: str) -> dict[str, str]:
    data: dict[str, str] = admin.get(f"/api/v1/namespaces/{place}/secrets/{NAME}-ingest-tls")["data"]
    return data


def command_of(container: dict[str, Any], program: str) -> list[str]:
    """What the container runs: its own words, else the image's, with this checkout's interpreter."""
    dockerfile = (ROOT / f"Dockerfile.{program}").read_text().splitlines()
    [entry] = [line.removeprefix("ENTRYPOINT ") for line in dockerfile if line.startswith("ENTRYPOINT ")]
    interpreter, *words = [*(container.get("command") or json.loads(entry)), *container.get("args", ())]
    assert interpreter == "/opt/venv/bin/python"
    return [sys.executable, *words]


@contextmanager
def released_aggregator(
    plane: ControlPlane, admin: Admin, place: str, folder: Path
) -> Iterator[tuple[dict[str, str], Path]]:
    """As the Deployment says: its variables, ServiceAccount and certificate. Only paths and ports are this test's."""
    deployment = admin.get(f"/apis/apps/v1/namespaces/{place}/deployments/{NAME}-aggregator")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    for name, text in certificate(admin, place).items():
        (folder / name).write_bytes(base64.b64decode(text))
    credential = folder / "kubeconfig"
    credential.write_text(json.dumps(plane.kubeconfig({"token": plane.token(place, f"{NAME}-aggregator")})))
    told = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    for name, value in told.items():
        moved = value.replace("/run/wattle/tls", str(folder)).replace("/var/lib/wattle", str(folder))
        told[name] = f"127.0.0.1:{free_port()}" if name.endswith("_LISTEN") else moved
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WATTLE_")}
    environment |= told | {"WATTLE_KUBECONFIG": str(credential)}
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command_of(container, "aggregator"), cwd=ROOT, env=environment, stderr=sink)
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            with urlopen(f"http://{told['WATTLE_HTTP_LISTEN']}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)

        wait_until(ready, "the aggregator's readiness", seconds=60)
        yield told, log
    finally:
        end(process)
