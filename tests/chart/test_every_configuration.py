"""Each supported configuration renders, and Kubernetes' own schema takes every object of it, strictly."""

import os
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.chart.rendering import CHART, CI, helm_python, kinds, render, values_of

FOREIGN = {
    "cert-manager.io/v1",
    "gateway.networking.k8s.io/v1",
    "monitoring.coreos.com/v1",
    "security.openshift.io/v1",
}
WITHOUT_NAMESPACE = {"ClusterRole", "ClusterRoleBinding", "PriorityClass", "SecurityContextConstraints"}
PODS = {"DaemonSet", "Deployment", "StatefulSet", "Job"}
OLDEST_SCHEMA = "1.25.0"  # of those that kubernetes-validate brings
FIELD_FOR_APPARMOR = "1.30.0"


@pytest.mark.parametrize("path", CI, ids=lambda path: path.stem)
def test_kubernetes_takes_every_object(path: Path) -> None:
    values = values_of(path)
    versions = (
        [OLDEST_SCHEMA] if "kubeVersion" in values else [FIELD_FOR_APPARMOR, kubernetes_validate.latest_version()]
    )
    objects = render(values)
    own = [each for each in objects if each["apiVersion"] not in FOREIGN]
    assert len(own) >= 9
    for each in own:
        for version in versions:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("path", CI, ids=lambda path: path.stem)
def test_nothing_is_made_twice_and_all_of_it_is_ours(path: Path) -> None:
    objects = render(values_of(path))
    # The kube-system Role and RoleBinding share their names with no other of their kind.
    assert len(kinds(objects)) == len(set(kinds(objects)))
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "wattle"
        expected = {None} if each["kind"] in WITHOUT_NAMESPACE else {"wattle"}
        if each["kind"] in {"Role", "RoleBinding"}:
            expected = {"kube-system"}
        assert {each["metadata"].get("namespace")} == expected, kinds([each])


@pytest.mark.parametrize("path", CI, ids=lambda path: path.stem)
def test_pods_are_selected_by_what_they_carry(path: Path) -> None:
    objects = render(values_of(path))
    pods = {
        program: each["spec"]["template"]["metadata"]["labels"]
        for each in objects
        for program in [each["kind"]]
        if program in PODS
    }
    assert len({str(labels) for labels in pods.values()}) == len(pods)
    selectors = [
        each["spec"]["selector"].get("matchLabels", each["spec"]["selector"])
        for each in objects
        if each["kind"] in {"DaemonSet", "Deployment", "StatefulSet", "Service", "PodDisruptionBudget", "PodMonitor"}
    ] + [each["spec"]["podSelector"]["matchLabels"] for each in objects if each["kind"] == "NetworkPolicy"]
    for selector in selectors:
        assert [selector.items() <= labels.items() for labels in pods.values()].count(True) == 1, selector


def test_helm_finds_nothing_to_say() -> None:
    findings = helm_python.lint(CHART, namespace="wattle", strict=True)
    assert "[ERROR]" not in str(findings), findings
    assert "[WARNING]" not in str(findings), findings


def test_a_plain_install_makes_exactly_this() -> None:
    assert kinds(render()) == [
        "ClusterRole/wattle-admin",
        "ClusterRole/wattle-aggregator",
        "ClusterRole/wattle-approver",
        "ClusterRole/wattle-editor",
        "ClusterRole/wattle-viewer",
        "ClusterRoleBinding/wattle-aggregator",
        "DaemonSet/wattle-agent",
        "Deployment/wattle-aggregator",
        "PersistentVolumeClaim/wattle-database",
        "PriorityClass/wattle",
        "Role/wattle-aggregator",
        "RoleBinding/wattle-aggregator",
        "Secret/wattle-authority",
        "Secret/wattle-ingest-tls",
        "Secret/wattle-postgres",
        "Service/wattle-http",
        "Service/wattle-ingest",
        "Service/wattle-postgres",
        "Service/wattle-query",
        "ServiceAccount/wattle-agent",
        "ServiceAccount/wattle-aggregator",
        "ServiceAccount/wattle-postgres",
        "StatefulSet/wattle-postgres",
    ]


def test_a_member_makes_exactly_this() -> None:
    assert kinds(render(values_of(CHART / "ci" / "member-values.yaml"))) == [
        "ClusterRole/wattle-aggregator",
        "ClusterRoleBinding/wattle-aggregator",
        "DaemonSet/wattle-agent",
        "NetworkPolicy/wattle-agent",
        "PodMonitor/wattle-agent",
        "PriorityClass/wattle",
        "PrometheusRule/wattle",
        "Role/wattle-aggregator",
        "RoleBinding/wattle-aggregator",
        "ServiceAccount/wattle-agent",
        "ServiceAccount/wattle-aggregator",
    ]


def test_a_plain_install_is_this_word_for_word() -> None:
    """What a change of a template does to users is seen here. `UPDATE=1` writes it anew."""
    objects = render()
    for each in objects:
        if each["kind"] == "Secret":
            each["data"] = dict.fromkeys(each["data"], "made at random")
            each["metadata"].pop("annotations", None)
    text = yaml.safe_dump_all(objects, sort_keys=True)
    golden = Path(__file__).parent / "golden" / "default.yaml"
    if os.environ.get("UPDATE"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
