"""A policy in plain words, whole texts: what a person reads is what is tested."""

from typing import Any

import yaml

from aggregator.cluster.scenario import scenario_of
from aggregator.model.networkpolicy import NetworkPolicy, Rule, SelectorPeer
from aggregator.policy.describing.native import describe
from aggregator.policy.describing.words import text
from aggregator.policy.manifest.parse import parse_policy

PODS = [
    {"namespace": "shop", "name": "web-1", "labels": {"app": "web"}, "owner": {"kind": "Deployment", "name": "web"}},
    {"namespace": "shop", "name": "web-2", "labels": {"app": "web"}, "owner": {"kind": "Deployment", "name": "web"}},
    {"namespace": "shop", "name": "db-0", "labels": {"app": "db"}, "owner": {"kind": "StatefulSet", "name": "db"}},
]


def policy(spec: str, name: str = "p") -> NetworkPolicy:
    raw: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": yaml.safe_load(spec),
    }
    return parse_policy(raw)


CLUSTER = scenario_of({"name": "t", "pods": PODS}).cluster


def test_everything_that_a_policy_can_say_has_words() -> None:
    told = policy(
        """
        podSelector: {matchLabels: {app: web}, matchExpressions: [{key: canary, operator: DoesNotExist}]}
        policyTypes: [Ingress, Egress]
        ingress:
        - from:
          - podSelector: {matchExpressions: [{key: app, operator: In, values: [db, cache]}]}
          - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: mon}}
          - namespaceSelector: {}
            podSelector: {matchLabels: {role: ''}}
          - namespaceSelector: {matchLabels: {team: a, env: b}}
          - namespaceSelector: {matchExpressions: [{key: env, operator: NotIn, values: [dev]}]}
          - namespaceSelector: {matchLabels: {team: a}}
          ports: [{port: 80}, {port: http, protocol: UDP}, {protocol: SCTP}]
        egress:
        - to: [{ipBlock: {cidr: 203.0.113.7/32}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]
          ports: [{port: 1000, endPort: 2000}]
        - to: [{podSelector: {matchExpressions: [{key: x, operator: Exists}]}}]
        """
    )
    assert (
        text(describe(told))
        == """\
Name:       p
Namespace:  shop
Selects:    pods with app=web and no canary of the namespace shop
Ingress:    isolated: only this may come in
  1. from pods with app=db or cache of the namespace shop, every pod of the namespace mon, pods with role empty of \
every namespace, every pod of namespaces with env=b and team=a, every pod of namespaces with env absent or not dev or \
every pod of namespaces with team=a
     on TCP 80, UDP port named http or every SCTP port
Egress:     isolated: only this may go out
  1. to the address 203.0.113.7 or addresses in 10.0.0.0/8 except 10.1.0.0/16 and 10.2.0.0/16
     on TCP 1000 to 2000
  2. to pods with any x of the namespace shop
     on every port and protocol
It does not:
  - deny what another policy allows: policies only add up
  - stop replies: an allowed connection works both ways, but only the client may open it
  - stop traffic between a pod and its own node (kubelet probes), or of a pod with itself
  - act on pods on the host's network, or match them as pods
  - promise to cut connections that are open already: that is up to the network plug-in
  - promise that an ipBlock matches pods or nodes: that differs between network plug-ins
  - speak of ICMP where ports are listed: that differs between network plug-ins
"""
    )


def test_isolation_is_told_for_each_direction() -> None:
    says = {
        "podSelector: {}": ("isolated: nothing may come in", "not isolated by this policy: everything is allowed"),
        "{podSelector: {}, ingress: [{}]}": (
            "isolated in name only: everything may come in",
            "not isolated by this policy: everything is allowed",
        ),
        "{podSelector: {}, policyTypes: [Ingress], egress: [{}, {}]}": (
            "isolated: nothing may come in",
            "not isolated by this policy: everything is allowed; its 2 egress rules are ignored",
        ),
        "{podSelector: {}, policyTypes: [Egress]}": (
            "not isolated by this policy: everything is allowed",
            "isolated: nothing may go out",
        ),
    }
    for spec, expected in says.items():
        assert tuple(part.says for part in describe(policy(spec)).directions) == expected


def test_a_cluster_adds_whom_it_selects_and_what_adds_to_it() -> None:
    web = policy("podSelector: {matchLabels: {app: web}}", "web")
    everyone, db = policy("podSelector: {}", "all"), policy("podSelector: {matchLabels: {app: db}}", "db")
    told = describe(web, CLUSTER, (web, everyone, db))
    assert told.workloads == ("Deployment web (2 pods)",)
    assert "deny what another policy allows: policies only add up (here: all)" in told.does_not
    assert describe(everyone, CLUSTER).workloads == ("Deployment web (2 pods)", "StatefulSet db (1 pod)")
    assert "  now:      Deployment web (2 pods)\n            StatefulSet db (1 pod)\n" in text(
        describe(everyone, CLUSTER)
    )
    nobody = policy("podSelector: {matchLabels: {app: nobody}}")
    assert describe(nobody, CLUSTER).workloads == ("no pod: it has no effect now",)


def test_missing_dns_is_told_unless_some_egress_rule_may_be_it() -> None:
    egress = "{podSelector: {}, policyTypes: [Egress], egress: [%s]}"
    told = {
        "{ports: [{port: 443}]}": True,
        "{ports: [{port: 53}]}": True,
        "{ports: [{port: 54, endPort: 5352, protocol: UDP}]}": True,
        "{ports: [{port: 53, protocol: UDP}]}": False,
        "{ports: [{port: 5000, endPort: 6000, protocol: UDP}]}": False,
        "{ports: [{port: dns, protocol: UDP}]}": False,
        "{ports: [{protocol: UDP}]}": False,
        "{to: [{podSelector: {}}]}": False,
    }
    for rule, missing in told.items():
        assert any("DNS" in line for line in describe(policy(egress % rule)).does_not) == missing, rule


def test_a_peer_without_fields_is_nobody() -> None:
    empty = NetworkPolicy(namespace="shop", name="p", ingress=(Rule(peers=(SelectorPeer(),)),))
    assert describe(empty).directions[0].rules[0].peers == ("nobody (a peer without any field)",)
