"""Who is announced as a caller by the cluster's own objects, and of whom."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from aggregator.cluster.declared import DECLARING_KINDS
from aggregator.cluster.scenario import parse_scenarios
from aggregator.cluster.view import NONSENSE, ClusterView
from aggregator.errors import InputError
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.declared import CallerKind, DeclaredCaller
from aggregator.policy.generation.declared import declared_links
from aggregator.services.offline.load import load
from tests.unit.cluster import objects

HOOK = {"service": {"namespace": "guard", "name": "hook", "path": "/validate"}}


def thing(kind: str, name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"kind": kind, "metadata": metadata, **more}


def labelled(raw: dict[str, Any], **labels: str) -> dict[str, Any]:
    raw["metadata"]["labels"] = labels
    return raw


def announced(*raws: dict[str, Any]) -> set[DeclaredCaller]:
    view = ClusterView("c")
    for raw in raws:
        view.apply(raw["kind"], raw, at=0)
    found = view.snapshot().declared_callers
    assert list(found) == sorted(found, key=lambda c: (c.source, c.namespace)), "in order"  # type: ignore[attr-defined]
    return {caller for caller in found if isinstance(caller, DeclaredCaller)}


def called(caller: DeclaredCaller) -> tuple[str, str, Any, Any]:
    return (caller.source, caller.namespace, caller.service or caller.selector, caller.port)


@pytest.mark.parametrize("kind", ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"])
def test_the_api_server_calls_webhooks(kind: str) -> None:
    other = {"service": {"namespace": "guard", "name": "other", "port": 8443}}
    url = {"url": "https://hooks.example.org/"}
    hooks = [{"clientConfig": HOOK}, {"clientConfig": HOOK}, {"clientConfig": other}, {"clientConfig": url}]
    found = announced(thing(kind, "policy.example.org", webhooks=hooks))
    source = f"{kind}/policy.example.org"
    assert {called(c) for c in found} == {(source, "guard", "hook", 443), (source, "guard", "other", 8443)}
    assert {c.kind for c in found} == {CallerKind.API_SERVER}


def test_the_api_server_calls_aggregated_apis_and_converters() -> None:
    found = announced(
        thing(
            "APIService", "v1beta1.metrics.k8s.io", spec={"service": {"namespace": "kube-system", "name": "metrics"}}
        ),
        thing("APIService", "v1.apps", spec={"groupPriorityMinimum": 1}),
        thing(
            "CustomResourceDefinition",
            "things.example.org",
            spec={"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": HOOK}}, "versions": [{"a": "b"}]},
        ),
    )
    assert {called(c) for c in found} == {
        ("APIService/v1beta1.metrics.k8s.io", "kube-system", "metrics", 443),
        ("CustomResourceDefinition/things.example.org", "guard", "hook", 443),
    }


def monitor(**spec: Any) -> dict[str, Any]:
    return thing("ServiceMonitor", "m", "mon", spec=spec)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"selector": {"matchLabels": {"app": "api"}}, "endpoints": [{"port": "http"}]}, set()),
        (
            {
                "selector": {"matchLabels": {"app": "api"}},
                "namespaceSelector": {"matchNames": ["shop", "empty"]},
                "endpoints": [{"port": "http"}, {"targetPort": "metrics"}, {"targetPort": 9100}, {}],
            },
            {
                ("shop", "api", "http"),
                ("shop", (("run", "api"),), "metrics"),
                ("shop", (("run", "api"),), 9100),
                ("shop", "api", None),
            },
        ),
        (
            {
                "selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["api", "x"]}]},
                "namespaceSelector": {"any": True},
                "endpoints": [{"port": "http"}],
            },
            {("shop", "api", "http"), ("mon", "other", "http")},
        ),
        ({"selector": {"matchLabels": {"app": 1}}, "namespaceSelector": {"any": True}, "endpoints": [{}]}, set()),
    ],
)
def test_monitors_scrape_the_services_that_they_select(spec: dict[str, Any], expected: set[Any]) -> None:
    services = (
        labelled(objects.service("api", selector={"run": "api"}, ports=[{"name": "http", "port": 80}]), app="api"),
        labelled(objects.service("db", selector={"run": "db"}), app="db"),
        labelled(objects.service("other", namespace="mon", selector={"run": "x"}), app="x"),
    )
    assert {called(c)[1:] for c in announced(monitor(**spec), *services)} == expected


def deployment(name: str, annotations: dict[str, str] | None = None, **labels: str) -> dict[str, Any]:
    template = {"metadata": {"labels": labels, "annotations": annotations or {}}, "spec": {}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return thing("Deployment", name, "shop", spec=spec)


def test_pod_monitors_scrape_the_pods_that_they_select() -> None:
    spec = {
        "selector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        "namespaceSelector": {"matchNames": ["shop"]},
        "podMetricsEndpoints": [{"port": "metrics"}, {"portNumber": 9100}],
    }
    both = (deployment("a", app="a", tier="x"), deployment("b", app="b"))
    found = announced(thing("PodMonitor", "p", "mon", spec=spec), *both)
    assert {called(c)[1:] for c in found} == {
        ("shop", (("app", "a"), ("tier", "x")), "metrics"),
        ("shop", (("app", "a"), ("tier", "x")), 9100),
    }


def test_the_usual_scrape_annotations_are_read() -> None:
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": "9102"}
    service = objects.service("api", selector={"run": "api"})
    service["metadata"]["annotations"] = scraped
    off = {**scraped, "prometheus.io/scrape": "false"}
    found = announced(service, deployment("a", scraped, app="a"), deployment("b", off, app="b"))
    assert {called(c)[1:] for c in found} == {("shop", (("run", "api"),), 9102), ("shop", (("app", "a"),), 9102)}


def test_gateways_call_what_is_routed_to() -> None:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    named = {"service": {"name": "api", "port": {"name": "http"}}}
    ingress = {
        "defaultBackend": backend,
        "rules": [{"http": {"paths": [{"backend": named}, {"backend": {"resource": {"kind": "Bucket"}}}]}}, {}],
    }
    route = {
        "parentRefs": [{"name": "public", "namespace": "infra"}, {"kind": "Service", "name": "mesh"}],
        "rules": [
            {
                "backendRefs": [{"name": "web", "port": 80}, {"kind": "Bucket", "name": "b"}],
                "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 81}}}],
            }
        ],
    }
    found = announced(thing("Ingress", "i", "shop", spec=ingress), thing("HTTPRoute", "r", "shop", spec=route))
    assert {c.kind for c in found} == {CallerKind.GATEWAY}
    assert {called(c) for c in found} == {
        ("Ingress/i", "shop", "web", 80),
        ("Ingress/i", "shop", "api", "http"),
        ("HTTPRoute/r", "shop", "web", 80),
        ("HTTPRoute/r", "shop", "copy", 81),
    }
    gateway = (("gateway.networking.k8s.io/gateway-name", "public"),)
    assert {(c.caller_namespace, c.caller_labels) for c in found if c.source == "HTTPRoute/r"} == {
        ("", ()),
        ("infra", gateway),
    }


@pytest.mark.parametrize("kind", sorted(DECLARING_KINDS))
def test_nonsense_announces_nobody(kind: str) -> None:
    wrong = ({"spec": "text"}, {"spec": {"service": 3}, "webhooks": [{"clientConfig": {"service": {"port": "x"}}}]})
    for more in wrong:
        found: set[DeclaredCaller] = set()
        with contextlib.suppress(*NONSENSE):  # what makes no sense to the view itself is noted there
            found = announced(thing(kind, "x", "shop", **more))
        assert found == set()


def test_a_change_is_announced_and_a_removal_takes_it_back() -> None:
    view = ClusterView("c")
    hook = thing("ValidatingWebhookConfiguration", "v", webhooks=[{"clientConfig": HOOK}])
    view.apply("ValidatingWebhookConfiguration", hook, at=0)
    before = view.snapshot()
    assert len(before.declared_callers) == 1
    view.apply("Pod", objects.pod("p", ip="10.0.0.1"), at=1)
    assert view.snapshot().declared_callers is before.declared_callers, "a pod announces nothing"
    view.remove("ValidatingWebhookConfiguration", "", "v", at=2)
    assert view.snapshot().declared_callers == ()


MANIFESTS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: hook, namespace: guard}
spec:
  selector: {matchLabels: {app: hook}}
  template:
    metadata: {labels: {app: hook}}
    spec:
      containers: [{name: c, ports: [{name: https, containerPort: 9443}]}]
---
apiVersion: v1
kind: Service
metadata: {name: hook, namespace: guard}
spec: {selector: {app: hook}, ports: [{port: 443, targetPort: https}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: guard.example.org}
webhooks: [{name: a, clientConfig: {service: {namespace: guard, name: hook}}}]
"""
PAGE = """\
name: hook
pods:
  - {namespace: guard, name: hook-1, ip: 10.244.1.5, labels: {app: hook}, ports: [{name: https, port: 9443}]}
services:
  - {namespace: guard, name: hook, selector: {app: hook}, ports: [{port: 443, targetPort: https}]}
objects:
  - kind: ValidatingWebhookConfiguration
    metadata: {name: guard.example.org}
    webhooks: [{name: a, clientConfig: {service: {namespace: guard, name: hook}}}]
"""


def rows(cluster: ClusterSnapshot) -> list[tuple[str, str]]:
    return [(str(row.link), row.source) for row in declared_links(cluster, frozenset())]


def test_manifests_that_run_nowhere_yet_announce_callers_too(tmp_path: Path) -> None:
    (tmp_path / "chart.yaml").write_text(MANIFESTS)
    (offline,) = load(tmp_path)
    assert rows(offline.cluster) == [
        (
            "kubernetes API server -> guard/Deployment/hook TCP/9443",
            "ValidatingWebhookConfiguration/guard.example.org",
        )
    ]


def test_a_page_may_hold_objects_that_announce_callers() -> None:
    (scenario,) = parse_scenarios(PAGE)
    assert rows(scenario.cluster) == [
        ("kubernetes API server -> guard/Pod/hook-1 TCP/9443", "ValidatingWebhookConfiguration/guard.example.org")
    ]


def test_an_object_of_a_page_that_announces_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"objects\[0\]"):
        parse_scenarios(PAGE.replace("kind: Validating", "kind: Frobnicating"))
