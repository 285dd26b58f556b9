"""The NetworkPolicies for Wattle's own pods, judged by Wattle: what Wattle needs is open, what nobody needs is shut.

Enters: the rendered chart, its pods given addresses, a stranger in another namespace. Leaves: `wattle evaluate`'s exit
code for each connection: 0 allowed, 1 denied.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.cli.main import run
from tests.chart.rendering import pod_of, render

NEEDED = [
    ("wattle/agent", "wattle/aggregator", 8471, "TCP"),
    ("wattle/aggregator", "wattle/postgres", 5432, "TCP"),
    ("wattle/agent", "kube-system/dns", 53, "UDP"),
    ("wattle/aggregator", "kube-system/dns", 53, "UDP"),
    ("wattle/aggregator", "203.0.113.9", 6443, "TCP"),  # the API server
    ("monitoring/prometheus", "wattle/agent", 9464, "TCP"),
    ("monitoring/prometheus", "wattle/aggregator", 8470, "TCP"),
    ("ingress/proxy", "wattle/aggregator", 8470, "TCP"),
]
FORBIDDEN = [
    ("wattle/agent", "wattle/postgres", 5432, "TCP"),
    ("ingress/proxy", "wattle/postgres", 5432, "TCP"),
    ("ingress/proxy", "wattle/aggregator", 8471, "TCP"),
    ("ingress/proxy", "wattle/agent", 9464, "TCP"),
    ("elsewhere/stranger", "wattle/aggregator", 8470, "TCP"),
    ("wattle/agent", "203.0.113.9", 6443, "TCP"),  # it has no business with the API server
    ("wattle/postgres", "203.0.113.9", 443, "TCP"),
    ("wattle/postgres", "kube-system/dns", 53, "UDP"),
    ("wattle/aggregator", "elsewhere/stranger", 80, "TCP"),
]


def named_namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policies = {
        "enabled": True,
        "httpFrom": [named_namespace("ingress"), named_namespace("monitoring")],
        "metricsFrom": [named_namespace("monitoring")],
    }
    objects = render({"networkPolicy": policies})
    labels = {
        f"wattle/{program}": pod_of(objects, program)["metadata"]["labels"]
        for program in ("agent", "aggregator", "postgres")
    }
    labels |= {name: {"app": name.replace("/", "-")} for name in ("kube-system/dns", "ingress/proxy")}
    labels |= {name: {"app": name.replace("/", "-")} for name in ("monitoring/prometheus", "elsewhere/stranger")}
    made: list[dict[str, Any]] = [each for each in objects if each["kind"] == "NetworkPolicy"]
    for number, (name, own) in enumerate(labels.items(), start=1):
        namespace, pod = name.split("/")
        made.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod, "namespace": namespace, "labels": own, "uid": name},
                "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": "Running", "podIP": f"10.244.0.{number}", "podIPs": [{"ip": f"10.244.0.{number}"}]},
            }
        )
    for namespace in sorted({name.split("/")[0] for name in labels}):
        own = {"kubernetes.io/metadata.name": namespace}
        made.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": own}})
    folder = tmp_path_factory.mktemp("own")
    (folder / "all.yaml").write_text(yaml.safe_dump_all(made))
    return folder


@pytest.mark.parametrize(
    ("connection", "expected"),
    [*((each, 0) for each in NEEDED), *((each, 1) for each in FORBIDDEN)],
    ids=lambda value: f"{value[0]}-{value[1]}-{value[2]}" if isinstance(value, tuple) else "",
)
def test_what_is_needed_is_open_and_nothing_else(
    manifests: Path, connection: tuple[str, str, int, str], expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    src, dst, port, protocol = connection
    arguments = ["evaluate", str(manifests), "--from", src, "--to", dst, "--port", str(port), "--protocol", protocol]
    assert run(arguments) == expected, capsys.readouterr().out
