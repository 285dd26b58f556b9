"""Policies that are there and cannot be read: a verdict that they could change is UNKNOWN."""

from typing import Any

import pytest

from aggregator.cluster.view import ClusterView
from aggregator.cluster.watch import ViewSink
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.endpoint import Connection, PodEndpoint
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.evaluation.evaluate import evaluate
from tests.unit.cluster import objects

GROUP = "policy.networking.k8s.io/v1alpha1"


def admin_policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": GROUP,
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": "fence"},
        "spec": {"priority": 5, "subject": {"namespaces": {}}, **spec},
    }


def native_policy(spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "fence", "namespace": "shop"},
        "spec": spec,
    }


@pytest.fixture
def view() -> ClusterView:
    found = ClusterView("c")
    for name, ip in (("web", "10.244.1.5"), ("api", "10.244.1.6")):
        found.apply("Pod", objects.pod(name, ip=ip), at=1)
    return found


def verdict(snapshot: ClusterSnapshot) -> Verdict:
    pods = {pod.name: PodEndpoint(pod=pod, ip=pod.ips[0]) for pod in snapshot.pods}
    connection = Connection(src=pods["web"], dst=pods["api"], protocol=Protocol.TCP, port=80)
    extra = [p for p in snapshot.extra_policies if isinstance(p, AdminPolicy | ForeignPolicy)]
    return evaluate([*snapshot.policies, *extra], snapshot, connection).verdict


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("AdminNetworkPolicy", admin_policy(), admin_policy(priority="high")),
        ("NetworkPolicy", native_policy({"podSelector": {"matchLabels": {"app": "x"}}}), native_policy("text")),
    ],
)
def test_a_policy_that_makes_no_sense_may_say_anything(
    view: ClusterView, kind: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    sink = ViewSink(view, clock=lambda: 7.0)
    sink.apply(kind, good)
    assert verdict(view.snapshot()) is Verdict.ALLOWED
    sink.apply(kind, bad)
    assert verdict(view.snapshot()) is Verdict.UNKNOWN
    assert view.standing.since([("shop", "web")]) == 7.0, "what was open before is judged by what holds from now on"
    sink.apply(kind, good)
    assert verdict(view.snapshot()) is Verdict.ALLOWED
    sink.apply(kind, bad)
    sink.vanish(kind, sink.known(kind))
    assert verdict(view.snapshot()) is Verdict.ALLOWED, "it is gone"


def test_policies_that_are_not_followed_may_say_anything(view: ClusterView) -> None:
    view.set_unread(frozenset({"CiliumNetworkPolicy"}))
    assert verdict(view.snapshot()) is Verdict.UNKNOWN
    assert [str(policy) for policy in view.snapshot().extra_policies] == ["CiliumNetworkPolicy/which could not be read"]
    view.set_unread(frozenset())
    assert verdict(view.snapshot()) is Verdict.ALLOWED


def test_of_a_definition_only_who_converts_it_is_kept(view: ClusterView) -> None:
    """Also of one in a list, whose items do not say of what kind they are."""
    conversion = {"strategy": "None"}
    raw = {"metadata": {"name": "things.example.org"}, "spec": {"conversion": conversion, "versions": [{"schema": {}}]}}
    view.apply("CustomResourceDefinition", raw, at=1)
    assert [each["spec"] for each in view.objects("CustomResourceDefinition")] == [{"conversion": conversion}]
