"""Kinds that plug-ins, operators and gateways define: followed from when their definition comes until it goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from aggregator.cluster.kinds import DEFINITIONS
from aggregator.cluster.reflector import State
from aggregator.cluster.watch import KubernetesSource
from tests.cluster.conftest import QUICK, Follow
from tests.cluster.controlplane import Admin, ApiRefusal, wait_until

# One that is not served is looked for again after an hour: what is seen sooner is seen because its definition came.
PATIENT = replace(QUICK, absent_wait_seconds=3600.0)


@dataclass(frozen=True)
class Custom:
    """A kind as its project defines it. `known_as` is the view's name for it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    spec: dict[str, Any]
    known_as: str = ""

    @property
    def name(self) -> str:
        return self.known_as or self.kind

    def path(self, namespace: str) -> str:
        within = f"namespaces/{namespace}/" if self.namespaced else ""
        return f"/apis/{self.group}/{self.version}/{within}{self.plural}"

    def definition(self) -> dict[str, Any]:
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return {
            "metadata": {
                "name": f"{self.plural}.{self.group}",
                "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
            },
            "spec": {
                "group": self.group,
                "scope": "Namespaced" if self.namespaced else "Cluster",
                "names": {"plural": self.plural, "kind": self.kind, "listKind": f"{self.kind}List"},
                "versions": [
                    {"name": self.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
                ],
            },
        }

    def object(self) -> dict[str, Any]:
        return {
            "apiVersion": f"{self.group}/{self.version}",
            "kind": self.kind,
            "metadata": {"name": "one"},
            "spec": self.spec,
        }


SUBJECT = {"priority": 5, "subject": {"namespaces": {}}}
POLICIES = (
    Custom("cilium.io", "v2", "ciliumnetworkpolicies", "CiliumNetworkPolicy", True, {"endpointSelector": {}}),
    Custom(
        "cilium.io", "v2", "ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", False, {"ingress": []}
    ),
    Custom(
        "crd.projectcalico.org", "v1", "networkpolicies", "NetworkPolicy", True, {"types": []}, "CalicoNetworkPolicy"
    ),
    Custom("crd.projectcalico.org", "v1", "globalnetworkpolicies", "GlobalNetworkPolicy", False, {"egress": []}),
    Custom("projectcalico.org", "v3", "networkpolicies", "NetworkPolicy", True, {"types": []}, "CalicoNetworkPolicy"),
    Custom("projectcalico.org", "v3", "globalnetworkpolicies", "GlobalNetworkPolicy", False, {"egress": []}),
    Custom("crd.antrea.io", "v1beta1", "networkpolicies", "NetworkPolicy", True, {}, "AntreaNetworkPolicy"),
    Custom(
        "crd.antrea.io",
        "v1beta1",
        "clusternetworkpolicies",
        "ClusterNetworkPolicy",
        False,
        {},
        "AntreaClusterNetworkPolicy",
    ),
    Custom("policy.networking.k8s.io", "v1alpha1", "adminnetworkpolicies", "AdminNetworkPolicy", False, SUBJECT),
    Custom(
        "policy.networking.k8s.io",
        "v1alpha1",
        "baselineadminnetworkpolicies",
        "BaselineAdminNetworkPolicy",
        False,
        {"subject": {"namespaces": {}}},
    ),
    Custom(
        "policy.networking.k8s.io",
        "v1alpha2",
        "clusternetworkpolicies",
        "ClusterNetworkPolicy",
        False,
        {"tier": "Admin", **SUBJECT},
    ),
)
OTHERS = (
    Custom("monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor", True, {"selector": {}}),
    Custom("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor", True, {"selector": {}}),
    Custom("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", True, {"rules": []}),
    Custom("gateway.networking.k8s.io", "v1beta1", "httproutes", "HTTPRoute", True, {"rules": []}),
)
EVERY = pytest.mark.parametrize("custom", [*POLICIES, *OTHERS], ids=lambda c: f"{c.plural}.{c.version}.{c.group}")


@contextmanager
def defined(admin: Admin, custom: Custom, namespace: str) -> Iterator[None]:
    """The definition and one object, gone at the end."""
    definition = f"{DEFINITIONS}/{custom.plural}.{custom.group}"
    admin.create(DEFINITIONS, custom.definition())
    try:
        wait_until(lambda: _created(admin, custom, namespace), "an object of the new kind to be taken")
        yield
    finally:
        admin.delete(definition)
        wait_until(lambda: _is_gone(admin, definition), "the definition's end", 60)


def _created(admin: Admin, custom: Custom, namespace: str) -> bool:
    admin.create(custom.path(namespace), custom.object())  # refused until the API server serves the kind
    return True


def _is_gone(admin: Admin, path: str) -> bool:
    try:
        admin.get(path)
    except ApiRefusal as refusal:
        return refusal.status == 404
    return False


def held(view: KubernetesSource, custom: Custom) -> list[str]:
    with view.view.lock:
        return sorted(name for _, name, _ in view.view.known(custom.name))


@EVERY
def test_a_kind_is_followed_from_when_it_is_defined_until_it_is_not(
    admin: Admin, namespace: str, follow: Follow, custom: Custom
) -> None:
    with follow(timing=PATIENT) as view:
        wait_until(lambda: view.reflectors[custom.name].state is State.NOT_SERVED, "it not to be served")
        with defined(admin, custom, namespace):
            wait_until(lambda: held(view, custom) == ["one"], "the object in the view")
            extra = [str(policy) for policy in view.snapshot.extra_policies]
            where = f"{namespace}/one" if custom.namespaced else "one"
            assert extra == ([f"{custom.name}/{where}"] if custom in POLICIES else [])
            admin.patch(f"{custom.path(namespace)}/one", {"metadata": {"labels": {"a": "b"}}})
            admin.delete(f"{custom.path(namespace)}/one")
            wait_until(lambda: held(view, custom) == [], "the object to be gone")
            admin.create(custom.path(namespace), custom.object())
            wait_until(lambda: held(view, custom) == ["one"], "the object in the view again")
        wait_until(lambda: held(view, custom) == [], "the object to go with its definition")
        wait_until(lambda: view.reflectors[custom.name].state is State.NOT_SERVED, "it to be served no longer")
        assert not [f for f in view.findings if f.code in {"kind-forbidden", "object-unreadable"}]
        assert not view.stale


@EVERY
def test_a_kind_that_is_there_before_is_read_at_the_start(
    admin: Admin, namespace: str, follow: Follow, custom: Custom
) -> None:
    with defined(admin, custom, namespace), follow(timing=PATIENT) as view:
        wait_until(lambda: held(view, custom) == ["one"], "the object in the view")
        wait_until(lambda: not view._unread(), "every policy to be read")
