"""Policies that are no NetworkPolicies: listed with what a verdict counts of them, and to whom."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.services.authority.caller import Caller, Resource, Verb, developer
from aggregator.services.policies.policy_views import OtherPolicyView
from aggregator.services.question import WorkloadRef
from tests.integration.services.world import (
    OTHER,
    SHOP,
    SHOP_LINKS,
    World,
    build,
    dns_objects,
    other_objects,
    shop_objects,
)

VAULT = WorkloadRef(namespace=OTHER, kind="StatefulSet", name="vault")
BOOKS = WorkloadRef(namespace=OTHER, kind="Deployment", name="books")


def admin(name: str, namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    pods = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": labels},
    }
    rule = {"action": "Deny", "from": [{"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": OTHER}}}]}
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"priority": 10, "subject": {"pods": pods}, "ingress": [rule]},
    }


CILIUM = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "l7", "namespace": OTHER},
    "spec": {"endpointSelector": {"matchLabels": {"app": "books"}}, "egress": [{}]},
}
CALICO = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "GlobalNetworkPolicy",
    "metadata": {"name": "everywhere"},
    "spec": {"types": ["Ingress"], "ingress": [{"action": "Allow"}]},
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    beside = [admin("shop-guard", SHOP, {"app": "web"}), admin("vault-guard", OTHER, {"app": "vault"}), CILIUM, CALICO]
    made = build(tmp_path, [*dns_objects(), *shop_objects(), *other_objects(), *beside], SHOP_LINKS)
    yield made
    made.close()


def by_name(found: list[OtherPolicyView]) -> dict[str, OtherPolicyView]:
    return {one.name: one for one in found}


def test_each_is_listed_with_what_is_counted_of_it(world: World) -> None:
    found = by_name(world.review().applied(developer(), "").others)
    assert set(found) == {"shop-guard", "vault-guard", "l7", "everywhere"}
    guard = found["vault-guard"]
    assert (guard.kind, guard.evaluated, guard.directions) == ("AdminNetworkPolicy", True, ["Ingress"])
    assert "StatefulSet vault" in guard.words
    assert (found["l7"].namespace, found["l7"].evaluated) == (OTHER, False)
    assert "unknown" in found["everywhere"].standing


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (OTHER, {"vault-guard", "l7", "everywhere"}),
        (SHOP, {"shop-guard", "everywhere"}),
        (VAULT, {"vault-guard", "everywhere"}),
        (BOOKS, {"l7", "everywhere"}),
    ],
    ids=str,
)
def test_a_scope_has_those_that_may_act_on_it(world: World, scope: WorkloadRef | str, names: set[str]) -> None:
    assert set(by_name(world.review().applied(developer(), scope).others)) == names


@pytest.mark.parametrize(
    ("profile", "evaluated", "word"),
    [("generic", True, "before"), ("aws-vpc-cni", False, "does not enforce"), ("cilium", False, "may or may not")],
)
def test_what_is_counted_depends_on_the_network_plug_in(world: World, profile: str, evaluated: bool, word: str) -> None:
    guard = by_name(world.review(profile=profile).applied(developer(), "").others)["shop-guard"]
    assert guard.evaluated is evaluated
    assert word in guard.standing


class OnlyTheShop:
    def may(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:
        return namespace == SHOP


def test_who_sees_one_namespace_learns_of_no_other(world: World) -> None:
    guest = Caller(name="guest", authority=OnlyTheShop())
    for scope in ("", SHOP):
        found = by_name(world.review().applied(guest, scope).others)
        assert set(found) == {"shop-guard", "everywhere"}
        assert OTHER not in str(found)
