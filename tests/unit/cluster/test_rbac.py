"""The rights that are granted are the rights that are used: no more, no fewer."""

from pathlib import Path

import yaml

from aggregator.cluster.kinds import CONFIG_MAPS, WATCHED

RBAC = Path(__file__).parents[3] / "deploy" / "rbac" / "aggregator.yaml"
ASKED = {("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")}


def granted(kind: str) -> set[tuple[str, str, tuple[str, ...]]]:
    return {
        (group, resource, tuple(sorted(rule["verbs"])))
        for document in yaml.safe_load_all(RBAC.read_text())
        if document["kind"] == kind
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_the_cluster_role_is_what_the_watches_and_the_authenticator_use() -> None:
    verbs = ("get", "list", "watch")
    read = {(group, w.resource, verbs) for w in WATCHED if w.resource != "configmaps" for group in w.groups}
    asked = {(group, resource, ("create",)) for group, resource in ASKED}
    assert granted("ClusterRole") == read | asked


def test_config_maps_are_read_by_name_alone() -> None:
    rules = [
        rule
        for document in yaml.safe_load_all(RBAC.read_text())
        if document["kind"] == "Role"
        for rule in document["rules"]
    ]
    assert [(r["resources"], set(r["resourceNames"])) for r in rules] == [(["configmaps"], set(CONFIG_MAPS))]
