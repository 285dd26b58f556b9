"""The installed `wattle` as a process: streams, exit codes, a closed pipe, a directory of manifests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

WATTLE = Path(sys.executable).with_name("wattle")

MANIFESTS = {
    "namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: web}}\n",
    "web.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: web}]}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-1
  namespace: shop
  uid: r
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: d, controller: true}]
spec: {selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1-a
  namespace: shop
  labels: {app: web}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: r, controller: true}]
spec: {nodeName: n1, containers: [{name: web, image: web, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.244.0.5, podIPs: [{ip: 10.244.0.5}]}
""",
    "policies.json": json.dumps(
        {
            "apiVersion": "v1",
            "kind": "List",
            "items": [
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "NetworkPolicy",
                    "metadata": {"name": "web", "namespace": "shop"},
                    "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]},
                },
                {
                    "apiVersion": "cilium.io/v2",
                    "kind": "CiliumNetworkPolicy",
                    "metadata": {"name": "extra", "namespace": "shop"},
                    "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]},
                },
            ],
        }
    ),
}


def wattle(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([WATTLE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    for name, text in MANIFESTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_directory_of_manifests_is_a_scenario(manifests: Path) -> None:
    said = wattle("describe", manifests, "-o", "json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)[0]["workloads"] == ["Deployment web (1 pod)"]
    lint = wattle("lint", manifests, "-o", "json")
    assert lint.returncode == 1
    (report,) = json.loads(lint.stdout)
    assert report["summary"]["mixed_kinds"] == ["shop/Deployment/web"]
    asked = wattle("explain", manifests, "--from", "203.0.113.1", "--to", "shop/web-1-a", "--port", 80)
    assert asked.returncode == 1
    assert "CiliumNetworkPolicy/shop/extra" in asked.stdout


def test_a_bad_manifest_is_named_with_document_and_field(manifests: Path) -> None:
    policies = json.loads(MANIFESTS["policies.json"])
    policies["items"][0]["spec"]["ingress"] = [{"ports": [{"protocol": "ICMP"}]}]
    (manifests / "policies.json").write_text(json.dumps(policies))
    said = wattle("lint", manifests)
    assert said.returncode == 2
    assert said.stderr == (
        f"wattle: {manifests}/policies.json, document 1, field items[0].spec.ingress[0].ports[0].protocol: "
        "'ICMP' is not TCP, UDP or SCTP\n"
    )
    (manifests / "policies.json").write_text("{broken")
    said = wattle("lint", manifests)
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    assert f"{manifests}/policies.json, document 1" in said.stderr


def test_output_is_for_programs_findings_are_aside(tmp_path: Path) -> None:
    page = tmp_path / "page.json"
    pods = [
        {"namespace": "a", "name": n, "labels": {"app": n}, "ip": f"10.0.0.{i}"} for i, n in enumerate(("x", "y"), 1)
    ]
    flows = [{"from": "a/x", "to": "a/y", "port": 80, "protocol": "TCP"}]
    page.write_text(json.dumps({"name": "p", "pods": pods, "flows": flows}))
    said = wattle("generate", page)
    assert said.returncode == 0
    assert [p["kind"] for p in yaml.safe_load_all(said.stdout)] == ["NetworkPolicy", "NetworkPolicy"]
    assert "dns-not-found" in said.stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    page = tmp_path / "page.json"
    pods = [
        {"namespace": "a", "name": f"p{i}", "labels": {"app": f"p{i}"}, "ip": f"10.0.{i // 250}.{i % 250 + 1}"}
        for i in range(2000)
    ]
    page.write_text(json.dumps({"name": "p", "pods": pods}))
    with subprocess.Popen(
        [WATTLE, "lint", page, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        process.wait(timeout=60)
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


def test_version() -> None:
    said = wattle("--version")
    assert said.returncode == 0
    assert said.stdout.startswith("wattle ")
