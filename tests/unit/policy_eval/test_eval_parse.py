"""Reading objects as the API does: tolerant where it is, and every refusal names the field."""

from ipaddress import ip_network

import pytest

from aggregator.errors import InputError
from aggregator.model.finding import Severity
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, PolicyPort, Rule, SelectorPeer
from aggregator.model.protocol import Direction, Protocol
from aggregator.policy.manifest.field import Field
from aggregator.policy.manifest.parse import parse_cidr, parse_policy
from aggregator.policy.manifest.validate import is_accepted, validate
from aggregator.policy.profiles.known import GENERIC, PROFILES, profile_named
from aggregator.policy.profiles.profile import Standing


def policy(spec=None, **metadata):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "ns", **metadata},
        "spec": {"podSelector": {}} if spec is None else spec,
    }


def with_rule(rule):
    return policy({"podSelector": {}, "ingress": [rule]})


def test_what_is_absent_is_defaulted_by_meaning_not_by_value():
    parsed = parse_policy({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}})
    assert parsed == NetworkPolicy(namespace="default", name="p")
    assert parsed.policy_types is None
    assert parsed.directions == {Direction.INGRESS}
    assert parse_policy(policy(namespace=None), default_namespace="mine").namespace == "mine"
    assert parse_policy(policy(namespace="")).namespace == "default"


def test_null_lists_and_null_items_are_what_they_are_to_the_api():
    spec = {"podSelector": None, "policyTypes": None, "ingress": [None], "egress": None}
    parsed = parse_policy(policy(spec))
    assert parsed.ingress == (Rule(),)
    assert parsed.pod_selector == LabelSelector()
    assert parse_policy(with_rule({"from": [None], "ports": [None]})).ingress == (
        Rule(peers=(SelectorPeer(),), ports=(PolicyPort(),)),
    )
    assert parse_policy(policy({"podSelector": {"matchLabels": {"a": None}}})).pod_selector.match_labels == (("a", ""),)


def test_a_rule_with_everything():
    rule = {
        "from": [
            {"podSelector": {"matchLabels": {"b": "2", "a": "1"}}},
            {"namespaceSelector": {}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ],
        "ports": [{"port": 80, "endPort": 90, "protocol": "UDP"}, {"port": "http"}],
    }
    parsed = parse_policy(with_rule(rule)).ingress[0]
    assert parsed.peers == (
        SelectorPeer(pod_selector=LabelSelector(match_labels=(("a", "1"), ("b", "2")))),
        SelectorPeer(namespace_selector=LabelSelector()),
        IPBlock(cidr=ip_network("10.0.0.0/8"), excepts=(ip_network("10.1.0.0/16"),)),
    )
    assert parsed.ports == (PolicyPort(protocol=Protocol.UDP, port=80, end_port=90), PolicyPort(port="http"))


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("010.001.0.0/16", "10.1.0.0/16"),
        ("0.0.0.0/00", "0.0.0.0/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.0/90", "::ffc0:0:0/90"),
        ("fd00::1/64", "fd00::/64"),
        ("2001:db8::/100", "2001:db8::/100"),
    ],
)
def test_cidrs_are_read_as_the_api_reads_them(text, network):
    assert parse_cidr(Field(text)) == ip_network(network, strict=False)


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        ({}, "kind"),
        (policy() | {"apiVersion": "v1"}, "apiVersion"),
        (policy(name=""), "metadata.name"),
        (policy(name=None), "metadata.name"),
        (policy(name=3), "metadata.name"),
        (policy([]), "spec"),
        (policy({"podSelector": {"matchLabels": {"a": 1}}}), "spec.podSelector.matchLabels.a"),
        (policy({"podSelector": {"matchLabels": {1: "a"}}}), "spec.podSelector.matchLabels"),
        (policy({"podSelector": {"matchExpressions": [{}]}}), "spec.podSelector.matchExpressions[0].operator"),
        (
            policy({"podSelector": {"matchExpressions": [{"operator": "Has"}]}}),
            "spec.podSelector.matchExpressions[0].operator",
        ),
        (
            policy({"podSelector": {"matchExpressions": [{"operator": "Exists"}]}}),
            "spec.podSelector.matchExpressions[0].key",
        ),
        (policy({"policyTypes": ["egress"]}), "spec.policyTypes[0]"),
        (policy({"ingress": {}}), "spec.ingress"),
        (with_rule({"from": [{"podSelector": [], "ipBlock": None}]}), "spec.ingress[0].from[0].podSelector"),
        (with_rule({"from": [{"podSelector": {}, "ipBlock": {}}]}), "spec.ingress[0].from[0]"),
        (with_rule({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}), "spec.ingress[0].from[0].ipBlock.cidr"),
        (with_rule({"from": [{"ipBlock": {"cidr": "10.0.0.300/8"}}]}), "spec.ingress[0].from[0].ipBlock.cidr"),
        (with_rule({"ports": [{"port": True}]}), "spec.ingress[0].ports[0].port"),
        (with_rule({"ports": [{"port": 8.5}]}), "spec.ingress[0].ports[0].port"),
        (with_rule({"ports": [{"protocol": "tcp"}]}), "spec.ingress[0].ports[0].protocol"),
    ],
)
def test_a_refusal_names_the_field(obj, field):
    with pytest.raises(InputError) as refused:
        parse_policy(obj)
    assert refused.value.field == field


def test_a_refusal_says_what_stands_there():
    said = []
    for value in (None, True, "x", 3, 2.5, [], {}):
        with pytest.raises(InputError) as refused:
            Field({"a": value})["a"].number() if value != 3 else Field({"a": 3})["a"].text()
        said.append(refused.value.reason.rpartition("is ")[2])
    assert said == ["missing", "a boolean", "a string", "a number", "a number", "a list", "an object"]


# ---- validate, beyond the cases ----


def fields(obj, **settings):
    return [(violation.field, violation.severity) for violation in validate(obj, **settings)]


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        (policy() | {"kind": "Policy"}, "kind"),
        (policy() | {"apiVersion": "extensions/v1beta1"}, "apiVersion"),
        (policy(name=None), "metadata.name"),
        (policy(namespace="A"), "metadata.namespace"),
        (policy(labels={"a b": "c"}), "metadata.labels"),
        (policy(annotations={"a": "x" * 300_000}), "metadata.annotations"),
        (policy({"podSelector": 3}), "spec.podSelector"),
        (with_rule({"ports": [{"port": 80, "endPort": "90"}]}), "spec.ingress[0].ports[0].endPort"),
        (
            with_rule({"from": [{"podSelector": {"matchLabels": {"a/b/c": "d"}}}]}),
            "spec.ingress[0].from[0].podSelector.matchLabels",
        ),
        (
            with_rule({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}]}),
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        (
            with_rule({"from": [{"ipBlock": {"cidr": "x", "except": ["10.0.0.0/8"]}}]}),
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            policy({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]}}),
            "spec.podSelector.matchExpressions[0].values[0]",
        ),
    ],
)
def test_violations(obj, field):
    assert fields(obj) == [(field, Severity.ERROR)]
    assert not is_accepted(validate(obj))


def test_a_namespace_may_be_left_to_whoever_applies_it():
    assert validate(policy(namespace=None)) == ()


def test_an_object_larger_than_the_store_takes():
    rule = {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}] * 60_000}
    assert fields(with_rule(rule)) == [("", Severity.ERROR)]


def test_unknown_fields_are_warned_of_with_the_nearest_one():
    spec = {"podselector": {}, "ingress": [{"form": [], "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "zzz": 1}}]}]}
    found = validate(policy(spec))
    assert [violation.field for violation in found] == [
        "spec.ingress[0].form",
        "spec.ingress[0].from[0].ipBlock.zzz",
        "spec.podselector",
    ]
    assert [("is from meant" in v.message, "is podSelector meant" in v.message) for v in found] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    assert is_accepted(found)


@pytest.mark.parametrize(
    ("cidr", "sloppy"),
    [("fd00::/8", False), ("FD00::/8", False), ("fd00::1/8", True), ("fd00::/008", True), ("10.0.0.0/08", True)],
)
def test_sloppy_cidrs(cidr, sloppy):
    obj = with_rule({"from": [{"ipBlock": {"cidr": cidr}}]})
    assert [severity for _, severity in fields(obj)] == ([Severity.WARNING] if sloppy else [])
    assert is_accepted(validate(obj, strict_cidrs=True)) is not sloppy


# ---- profiles ----


def test_profiles_are_found_by_name_and_say_how_they_are_known():
    assert profile_named("generic") is GENERIC
    assert list(PROFILES) == [
        "generic", "calico", "cilium", "aws-vpc-cni", "kube-router", "ovn-kubernetes", "weave", "antrea",
    ]  # fmt: skip
    assert {profile.standing for profile in PROFILES.values()} <= set(Standing)
    with pytest.raises(InputError, match="there is no profile 'flannel'"):
        profile_named("flannel")
