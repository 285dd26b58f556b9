"""Manifests as people have them: Helm output before anything runs, Lists, documents with nothing in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from aggregator.cli.main import run

CHART = """
---
# Source: shop/templates/empty.yaml
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: x, ports: [{name: pg, containerPort: 5432}]}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: web, namespace: shop}
spec:
  schedule: "0 0 * * *"
  jobTemplate: {spec: {template: {metadata: {labels: {job: nightly}}, spec: {containers: [{name: c, image: x}]}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: asleep, namespace: shop}
spec:
  replicas: 0
  selector: {matchLabels: {app: asleep}}
  template: {metadata: {labels: {app: asleep}}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: v1
kind: List
items:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata:
    name: db
    namespace: shop
    managedFields: [{manager: kubectl, operation: Apply}]
    annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  spec:
    podSelector: {matchLabels: {app: db}}
    policyTypes: [Ingress]
    ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: pg}]}]
  status: {}
- null
---
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str


Wattle = Callable[..., Said]


@pytest.fixture
def wattle(capsys: pytest.CaptureFixture[str]) -> Wattle:
    def call(*arguments: object) -> Said:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    path = tmp_path / "chart.yaml"
    path.write_text(CHART)
    return path


@pytest.mark.parametrize(
    ("src", "dst", "port", "code"),
    [
        ("shop/web", "shop/db", 5432, 0),
        ("shop/web", "shop/db", 5433, 1),
        ("shop/web-cronjob", "shop/db", 5432, 1),
        ("shop/db", "shop/web", 80, 0),
        ("shop/asleep", "shop/db", 5432, 2),
    ],
)
def test_a_pod_of_each_template_stands_in_where_nothing_runs(
    wattle: Wattle, chart: Path, src: str, dst: str, port: int, code: int
) -> None:
    assert wattle("evaluate", chart, "--from", src, "--to", dst, "--port", port).code == code


def test_nobody_stands_in_beside_pods_that_run(wattle: Wattle, chart: Path) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "namespace": "shop"}}
    chart.write_text(CHART + yaml.safe_dump(pod))
    said = wattle("evaluate", chart, "--from", "shop/web", "--to", "shop/db", "--port", 5432)
    assert (said.code, said.out) == (2, "")
    assert said.err == f"wattle: {chart}: there is no pod 'shop/web'; there is other\n".replace("other", "shop/other")


def test_an_export_of_a_chart_is_judged(wattle: Wattle, chart: Path) -> None:
    said = wattle("export", chart, "--to", "calico")
    assert said.code == 0, said.err
    assert "# calico-network-policies.yaml: certified" in said.out


def test_what_kubectl_writes_for_itself_is_not_written_again(wattle: Wattle, chart: Path) -> None:
    assert "last-applied" not in wattle("export", chart, "--to", "kustomize").out


def test_the_label_that_the_api_server_writes_is_not_missed(wattle: Wattle, chart: Path) -> None:
    assert "namespace-without-labels" not in wattle("generate", chart).err


def test_policies_alone_are_not_called_vacuous(wattle: Wattle, tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    deny: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": "shop"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    path.write_text(yaml.safe_dump(deny))
    said = wattle("lint", path)
    assert "vacuous" not in said.out
    assert "unused" in said.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("---\n---\n", "is empty"),
        ("[]", "is empty"),
        ("shop", "document 1: must be a scenario (a mapping with a name), is a string"),
        ("- 3", "document 1: must be a scenario (a mapping with a name), is a number"),
        (CHART, "document 1, field kind: Namespace is a Kubernetes object; a page with expectations is needed"),
    ],
)
def test_a_file_without_a_scenario_is_no_test_that_holds(wattle: Wattle, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "page.yaml"
    path.write_text(text)
    said = wattle("test", path)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"wattle: {path}")
    assert says in said.err


def test_a_path_that_cannot_be_read_is_said_without_the_systems_number(wattle: Wattle, tmp_path: Path) -> None:
    assert wattle("test", tmp_path / "none.yaml").err == (
        f"wattle: {tmp_path / 'none.yaml'}: cannot be read: No such file or directory\n"
    )
    assert "Is a directory" in wattle("test", tmp_path).err
