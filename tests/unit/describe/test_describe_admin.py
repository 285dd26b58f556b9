"""Cluster-wide policies in plain words, whole texts."""

from typing import Any

import yaml

from aggregator.cluster.scenario import scenario_of
from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.policy.describing.admin import describe_admin, describe_foreign
from aggregator.policy.describing.words import text
from aggregator.policy.manifest.adminparse import parse_admin_policy

CLUSTER = scenario_of(
    {
        "name": "t",
        "pods": [
            {"namespace": n, "name": "web", "labels": {"app": "web"}, "owner": {"kind": "Deployment", "name": "web"}}
            for n in ("shop", "clinic")
        ],
    }
).cluster


def described(manifest: str) -> str:
    raw: dict[str, Any] = yaml.safe_load(manifest)
    return text(describe_admin(parse_admin_policy(raw), CLUSTER))


def test_an_admin_policy() -> None:
    assert (
        described("""
        apiVersion: policy.networking.k8s.io/v1alpha1
        kind: AdminNetworkPolicy
        metadata: {name: guard}
        spec:
          priority: 10
          subject: {namespaces: {}}
          ingress:
          - action: Allow
            from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
            ports: [{portNumber: {protocol: TCP, port: 9090}}, {portRange: {protocol: UDP, start: 1, end: 9}}]
          - action: Pass
            from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]
            ports: [{namedPort: http}]
          egress:
          - action: Deny
            to: [{networks: [169.254.169.254/32]}, {nodes: {}}, {domainNames: ["*.example.com"]}]
        """)
        == """\
Name:       guard
Kind:       AdminNetworkPolicy, for the whole cluster
Selects:    every pod of every namespace
  now:      Deployment clinic/web (1 pod)
            Deployment shop/web (1 pod)
Ingress:    asked before the NetworkPolicies (priority 10, the lowest number first); the first rule that matches \
decides; what no rule matches goes on to the next policy of the tier, then to the NetworkPolicies
  1. allow from every pod of the namespace monitoring
     on TCP 9090 or UDP 1 to 9
  2. pass on from pods with app=web of every namespace
     on the container port named http
Egress:     asked before the NetworkPolicies (priority 10, the lowest number first); the first rule that matches \
decides; what no rule matches goes on to the next policy of the tier, then to the NetworkPolicies
  1. deny to addresses in 169.254.169.254/32, every node or whatever addresses *.example.com resolve to
     on every port and protocol
It does not:
  - isolate by being there: where no rule matches, it changes nothing
  - leave a last word to NetworkPolicies on what it allows: they cannot deny it
  - leave a last word to NetworkPolicies on what it denies: they cannot allow it
  - decide what it passes on: that is up to the NetworkPolicies, then the Baseline tier
  - stop replies: an allowed connection works both ways, but only the client may open it
  - act on pods on the host's network, or match them as pods
  - say which addresses a domain name has: a verdict about an outside address may be unknown
  - hold everywhere: many network plug-ins do not implement this kind
"""
    )


def test_a_baseline_policy() -> None:
    said = described("""
        apiVersion: policy.networking.k8s.io/v1alpha2
        kind: ClusterNetworkPolicy
        metadata: {name: base}
        spec:
          tier: Baseline
          priority: 0
          subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: gone}}}}
          ingress: [{action: Deny, from: [{namespaces: {}}]}]
        """)
    assert "  now:      no pod: it has no effect now" in said
    assert "asked only about pods that no NetworkPolicy isolates; the first rule that matches decides" in said
    assert "Egress:     no rule: it has no say" in said
    assert "act on a pod in a direction in which any NetworkPolicy isolates it" in said


def test_a_protocol_without_a_port_and_an_action_that_is_not_there() -> None:
    said = described("""
        apiVersion: policy.networking.k8s.io/v1alpha2
        kind: ClusterNetworkPolicy
        metadata: {name: udp}
        spec:
          tier: Admin
          priority: 0
          subject: {namespaces: {}}
          ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{udp: {}}]}]
        """)
    assert "on every UDP port" in said
    assert "it cannot" not in said
    assert "what it allows" in said
    assert "what it denies" not in said
    assert "what it passes on" not in said


def test_a_policy_that_only_passes_on_claims_no_last_word() -> None:
    said = described("""
        apiVersion: policy.networking.k8s.io/v1alpha1
        kind: AdminNetworkPolicy
        metadata: {name: pass}
        spec: {priority: 1, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}
        """)
    assert "a last word" not in said
    assert "decide what it passes on" in said


def test_a_plug_ins_own_policy_is_named_and_not_guessed_at() -> None:
    said = text(describe_foreign(ForeignPolicy(kind="CiliumNetworkPolicy", name="p", namespace="shop")))
    assert "Selects:    some pods of the namespace shop" in said
    assert said.count("not computed here: a verdict that it could change is called unknown") == 2
