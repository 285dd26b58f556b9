"""`wattle test` as values: what is counted, what is reported, and when an explanation holds."""

import pytest

from aggregator.cluster.scenario import scenario_of
from aggregator.errors import InputError
from aggregator.policy.profiles.known import CILIUM, GENERIC
from aggregator.services.offline.checking import check_scenarios


def np(name, **spec):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"podSelector": {"matchLabels": {"app": "b"}}, **spec},
    }


WORLD = {
    "name": "check",
    "pods": [
        {
            "namespace": "x",
            "name": "a",
            "ip": "10.0.0.1",
            "labels": {"app": "a"},
            "owner": {"kind": "Deployment", "name": "front"},
        },
        {"namespace": "x", "name": "b", "ip": "10.0.0.2", "labels": {"app": "b"}},
        {"namespace": "x", "name": "h", "hostNetwork": True, "nodeIP": "192.0.2.1"},
    ],
    "policies": [
        np("deny"),
        np("allow", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": 80}]}]),
    ],
}
A_TO_B = {"from": "x/a", "to": "x/b", "port": 80}


def report(profile=GENERIC, **page):
    return check_scenarios([scenario_of(WORLD | page, file="f.yaml")], profile)


def test_what_holds_is_counted_and_what_does_not_is_reported():
    found = report(
        expectations=[{**A_TO_B, "allowed": True}, {**A_TO_B, "port": 81, "allowed": True}],
        order=["x/a", "x/b"],
        matrix={"80/TCP": ["-1", "1-"], "81/TCP": ["-0", "0-"]},
    )
    assert found.checked == 6
    assert not found.holds
    assert found.as_dict() == {
        "checked": 6,
        "failed": [
            {
                "file": "f.yaml",
                "scenario": "check",
                "check": "expectation",
                "from": "x/a",
                "to": "x/b",
                "port": 81,
                "protocol": "TCP",
                "expected": "allowed",
                "actual": "denied",
                "reason": "egress default-allow; ingress denied (x/allow: port-not-matched rule 1, x/deny: no-rules)",
            },
            {
                "file": "f.yaml",
                "scenario": "check",
                "check": "matrix",
                "from": "x/b",
                "to": "x/a",
                "port": 81,
                "protocol": "TCP",
                "expected": "denied",
                "actual": "allowed",
                "reason": "egress default-allow; ingress default-allow",
            },
        ],
    }


def test_unknown_holds_for_nobody():
    page = {"pod_cidrs": ["10.0.0.0/8"]}
    for allowed in (True, False):
        found = report(expectations=[{"from": "x/a", "to": "ip:10.9.9.9", "port": 80, "allowed": allowed}], **page)
        assert [failure.actual for failure in found.failed] == ["unknown"]
        assert "[no known pod has 10.9.9.9" in found.failed[0].reason


def test_ipblock_pod_follows_the_profile():
    policies = [np("p", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])]
    flagged = [{**A_TO_B, "allowed": True, "ipblock_pod": True}]
    assert report(policies=policies, expectations=flagged).holds
    assert report(CILIUM, policies=policies, expectations=flagged).holds
    plain = [{**A_TO_B, "allowed": True}]
    assert not report(CILIUM, policies=policies, expectations=plain).holds


@pytest.mark.parametrize(
    ("ingress", "holds"),
    [
        ({"outcome": "allowed"}, True),
        ({"outcome": "denied"}, False),
        ({"outcome": "allowed", "policies": [{"policy": "x/allow", "reason": "allowed", "rules": [1]}]}, True),
        ({"outcome": "allowed", "policies": [{"policy": "allow", "reason": "allowed"}]}, True),
        (
            {
                "outcome": "allowed",
                "policies": [
                    {"policy": "x/allow", "reason": "allowed", "rules": [1]},
                    {"policy": "x/deny", "reason": "no-rules", "rules": []},
                ],
            },
            True,
        ),
        ({"outcome": "allowed", "policies": [{"policy": "x/allow", "reason": "allowed", "rules": [2]}]}, False),
        ({"outcome": "allowed", "policies": [{"policy": "x/deny", "reason": "no-rules"}]}, False),
        ({"outcome": "allowed", "policies": [{"policy": "x/allow", "reason": "no-rules"}]}, False),
        ({"outcome": "allowed", "policies": [{"policy": "x/none", "reason": "allowed"}]}, False),
    ],
)
def test_an_explanation_of_an_allow(ingress, holds):
    found = report(
        explanations=[{**A_TO_B, "allowed": True, "egress": {"outcome": "default-allow"}, "ingress": ingress}]
    )
    assert found.checked == 3
    assert found.holds is holds
    if not holds:
        assert found.failed[0].check == "explanation"
        assert found.failed[0].expected.startswith("ingress ")
        assert found.failed[0].actual == "ingress allowed (x/allow: allowed rule 1, x/deny: no-rules)"


def test_an_explanation_of_a_denial_states_every_selecting_policy():
    deny = {"policy": "x/deny", "reason": "no-rules"}
    port = {"policy": "x/allow", "reason": "port-not-matched", "rules": [1]}
    for policies, holds in (([deny, port], True), ([deny], False), ([], False)):
        side = {"outcome": "denied", "policies": policies}
        assert report(explanations=[{**A_TO_B, "port": 81, "ingress": side}]).holds is holds
    wrong = report(explanations=[{**A_TO_B, "port": 81, "allowed": True}])
    assert [(failure.check, failure.actual) for failure in wrong.failed] == [("explanation", "denied")]


@pytest.mark.parametrize(
    ("unprotected", "holds"),
    [
        ({"ingress": ["x/front"], "egress": ["x/front", "x/b"]}, True),
        ({"ingress": ["x/a"]}, True),
        ({"ingress": ["x/Deployment/front"]}, True),
        ({"ingress": ["x/front[Deployment]"]}, True),
        ({"ingress": []}, False),
        ({"ingress": ["x/front", "x/b"]}, False),
    ],
)
def test_unprotected_workloads(unprotected, holds):
    found = report(expected={"unprotected": unprotected})
    assert found.checked == len(unprotected)
    assert found.holds is holds
    if not holds:
        assert found.failed[0].check == "unprotected"
        assert found.failed[0].expected.startswith("ingress: ")


def test_nobody_is_unprotected():
    found = report(
        policies=[np("all", podSelector={}, policyTypes=["Ingress", "Egress"])],
        expected={"unprotected": {"egress": ["x/b"]}},
    )
    assert found.failed[0].reason == "missing: x/b; unexpected: nobody"
    assert found.failed[0].actual == "egress: nobody"


@pytest.mark.parametrize(
    ("unprotected", "field"),
    [
        ([], "expected.unprotected"),
        ({"both": []}, "expected.unprotected"),
        ({"ingress": "x/a"}, "expected.unprotected.ingress"),
    ],
)
def test_a_malformed_expectation_names_its_field(unprotected, field):
    with pytest.raises(InputError) as refused:
        report(expected={"unprotected": unprotected})
    assert (refused.value.file, refused.value.document, refused.value.field) == ("f.yaml", 1, field)


def test_nothing_stated_is_nothing_checked():
    assert report().as_dict() == {"checked": 0, "failed": []}
