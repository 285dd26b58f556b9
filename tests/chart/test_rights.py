"""Rights: the aggregator's are those that the tests against a real API server run under; the agent has none."""

import re
from typing import Any

import yaml

from aggregator.services.authority.caller import Resource, Verb
from aggregator.services.authority.kubernetes import GROUP
from tests.chart.rendering import ROOT, container_of, named, pod_of, render

ROLES = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
PEOPLE = {"wattle-viewer", "wattle-editor", "wattle-approver", "wattle-admin"}


def granted(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without labels, in one order."""
    plain = []
    for each in objects:
        metadata = {key: value for key, value in each["metadata"].items() if key != "labels"}
        plain.append(each | {"metadata": metadata})
    return sorted(plain, key=lambda each: each["kind"])


def test_the_aggregators_rights_are_those_the_tests_run_under() -> None:
    rendered = [e for e in render() if e["kind"] in ROLES and e["metadata"]["name"] not in PEOPLE]
    file = ROOT / "deploy" / "rbac" / "aggregator.yaml"
    assert granted(rendered) == granted(list(yaml.safe_load_all(file.read_text())))


def test_nothing_in_a_cluster_is_written() -> None:
    role = named(render(), "ClusterRole", "wattle-aggregator")
    verbs = {(verb, resource) for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]}
    writing = {(verb, resource) for verb, resource in verbs if verb not in {"get", "list", "watch"}}
    assert writing == {("create", "tokenreviews"), ("create", "subjectaccessreviews")}
    assert not any(resource in {"secrets", "*"} for _, resource in verbs)


def test_trying_policies_is_granted_only_when_it_is_asked_for() -> None:
    objects = render({"rbac": {"dryRun": True}})
    role = named(objects, "ClusterRole", "wattle-aggregator-dry-run")
    assert role["rules"] == [
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create", "patch"]}
    ]
    assert {"name": "WATTLE_DRY_RUN", "value": "true"} in pod_of(objects, "aggregator")["spec"]["containers"][0]["env"]
    assert "dry-run" not in str(render())


def test_verifying_is_granted_only_when_it_is_asked_for_and_as_the_tests_run_it() -> None:
    role = named(render({"rbac": {"verifyRole": True}}), "ClusterRole", "wattle-verify")
    file = ROOT / "deploy" / "rbac" / "verify.yaml"
    assert role["rules"] == yaml.safe_load(file.read_text())["rules"]
    assert "wattle-verify" not in str(render())


def test_the_agent_has_no_right_and_no_token_for_the_api_server() -> None:
    objects = render()
    subjects = [s["name"] for e in objects if e["kind"].endswith("Binding") for s in e["subjects"]]
    assert set(subjects) == {"wattle-aggregator"}
    pod = pod_of(objects, "agent")["spec"]
    assert pod["serviceAccountName"] == "wattle-agent"
    assert pod["automountServiceAccountToken"] is False
    assert named(objects, "ServiceAccount", "wattle-agent")["automountServiceAccountToken"] is False
    tokens = [s for v in pod["volumes"] if "projected" in v for s in v["projected"]["sources"]]
    assert [token["serviceAccountToken"]["audience"] for token in tokens] == ["wattle"]


def test_the_audience_is_the_one_the_aggregator_asks_for() -> None:
    from aggregator.cluster.identify import AUDIENCE

    assert AUDIENCE == "wattle"


def test_peoples_roles_name_what_the_program_asks_about() -> None:
    objects = render()
    rules = {name: named(objects, "ClusterRole", name)["rules"] for name in PEOPLE}
    for role in rules.values():
        assert {group for rule in role for group in rule["apiGroups"]} == {GROUP}
        assert {name for rule in role for name in rule["resources"]} <= {resource.value for resource in Resource}
    verbs = {name: {verb for rule in role for verb in rule["verbs"]} for name, role in rules.items()}
    assert verbs == {
        "wattle-viewer": {"get", "list"},
        "wattle-editor": {"get", "list", "update"},
        "wattle-approver": {"get", "list", "approve"},
        "wattle-admin": {"get", "list", "update", "approve"},
    }
    assert set.union(*verbs.values()) == {verb.value for verb in Verb}
    # Whoever proposes does not approve, unless somebody binds both.
    assert all("approve" not in rule["verbs"] for rule in rules["wattle-editor"])
    # What holds for every workload is not an editor's.
    changed = {
        name: {r for rule in role if "update" in rule["verbs"] for r in rule["resources"]}
        for name, role in rules.items()
    }
    assert changed["wattle-editor"] == {"baselines", "policies", "decisions"}
    assert changed["wattle-admin"] - changed["wattle-editor"] == {"addresses", "settings"}


def test_every_right_that_is_asked_for_can_be_granted() -> None:
    """The services' own calls: caller.must(Verb.X, Resource.Y)."""
    asked = {
        (Verb[verb].value, Resource[resource].value)
        for path in (ROOT / "aggregator").rglob("*.py")
        for verb, resource in re.findall(r"\.(?:must|may)\(\s*Verb\.([A-Z]+), Resource\.([A-Z]+)", path.read_text())
    }
    assert asked
    objects = render()
    grantable = {
        (verb, resource)
        for name in PEOPLE
        for rule in named(objects, "ClusterRole", name)["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }
    assert asked - grantable == set()


def test_roles_can_be_left_to_somebody_else() -> None:
    kinds = {each["kind"] for each in render({"rbac": {"create": False, "peopleRoles": False}})}
    assert kinds & ROLES == set()
    kept = {e["metadata"]["name"] for e in render({"rbac": {"create": False}}) if e["kind"] in ROLES}
    assert kept == PEOPLE


def test_another_release_in_another_namespace_keeps_its_rights_together() -> None:
    objects = render(name="second", namespace="elsewhere")
    binding = named(objects, "ClusterRoleBinding", "second-wattle-aggregator")
    assert binding["roleRef"]["name"] == "second-wattle-aggregator"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "second-wattle-aggregator", "namespace": "elsewhere"}
    ]


def test_the_agent_gets_the_capabilities_that_it_says_it_needs() -> None:
    from agent.capabilities import NEEDED

    added = container_of(render(), "agent")["securityContext"]["capabilities"]["add"]
    assert sorted(f"CAP_{name}" for name in added) == sorted(each.name for each in NEEDED)
