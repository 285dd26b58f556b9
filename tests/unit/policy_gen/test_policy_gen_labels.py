"""Labels that a selector may use, and selectors that are exact (NP-46 to NP-50, C03, C04, C06, C07)."""

import pytest

from aggregator.model.cluster import ClusterSnapshot, Pod, WorkloadRecord
from aggregator.model.decision import LabelLists
from aggregator.model.networkpolicy import LabelSelector, Operator, Requirement
from aggregator.model.workload import Workload
from aggregator.policy.generation.labels import LabelClass, classify, stable
from aggregator.policy.generation.selectors import NotSeparable, Selected, Selection, Selectors


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("pod-template-hash", "abc", LabelClass.GENERATED),
        ("pod-template-whatever", "abc", LabelClass.GENERATED),
        ("statefulset.kubernetes.io/pod-name", "web-0", LabelClass.GENERATED),
        ("topology.kubernetes.io/zone", "a", LabelClass.GENERATED),
        ("jobset.sigs.k8s.io/job-index", "0", LabelClass.GENERATED),
        ("leaderworkerset.sigs.k8s.io/group-hash", "x", LabelClass.GENERATED),
        ("helm.sh/chart", "redis-19.1.0", LabelClass.VOLATILE),
        ("argocd.argoproj.io/instance", "x", LabelClass.VOLATILE),
        ("release", "redis-19.1.0", LabelClass.VOLATILE),
        ("commit", "3f2a91c", LabelClass.VOLATILE),
        ("image", "v1.2.3", LabelClass.VOLATILE),
        ("built", "2026-01-02", LabelClass.VOLATILE),
        ("built", "20260102T030405Z", LabelClass.VOLATILE),
        ("id", "123e4567-e89b-12d3-a456-426614174000", LabelClass.VOLATILE),
        ("app", "defaced", LabelClass.STABLE),  # letters of a digest, but a word
        ("app", "redis", LabelClass.STABLE),
        ("ver", "1", LabelClass.STABLE),
    ],
)
def test_class_by_key_and_by_the_shape_of_the_value(key: str, value: str, expected: LabelClass) -> None:
    assert classify(key, value) is expected


def test_lists_of_a_person() -> None:
    labels = {"app": "web", "team": "a", "team.example.org/x": "y", "version": "1"}
    assert stable(labels, LabelLists(include=("app", "team*"), exclude=("team",))) == {
        "app": "web",
        "team.example.org/x": "y",
    }


def workload(name: str, kind: str = "Deployment") -> Workload:
    return Workload(cluster="c", namespace="app", kind=kind, name=name)


def pod(owner: Workload, labels: dict[str, str], number: int = 0) -> Pod:
    return Pod(namespace="app", name=f"{owner.name}-{number}", workload=owner, labels=tuple(sorted(labels.items())))


def selection_of(
    owner: Workload, *pods: Pod, records: tuple[WorkloadRecord, ...] = (), lists: LabelLists | None = None
) -> Selection:
    cluster = ClusterSnapshot(name="c", pods=pods, workloads=records)
    return Selectors(cluster, lists or LabelLists()).select(owner)


WEB, API = workload("web"), workload("api")


def test_the_smallest_set_with_the_best_known_key() -> None:
    found = selection_of(WEB, pod(WEB, {"app": "web", "zeta": "z", "aa": "b"}), pod(API, {"app": "api"}))
    assert found == Selected(selector=LabelSelector(match_labels=(("app", "web"),)))


def test_the_owners_selector_comes_first_and_whole() -> None:
    record = WorkloadRecord(
        workload=WEB,
        selector=(("a", "1"), ("b", "2")),
        template_labels=(("a", "1"), ("app", "web"), ("b", "2")),
    )
    found = selection_of(WEB, pod(API, {"app": "api"}), records=(record,))
    assert found == Selected(selector=LabelSelector(match_labels=(("a", "1"), ("b", "2"))))


def test_labels_that_are_not_on_every_pod_are_not_used() -> None:
    found = selection_of(WEB, pod(WEB, {"app": "web", "x": "1"}), pod(WEB, {"app": "web", "x": "2"}, 1))
    assert found == Selected(selector=LabelSelector(match_labels=(("app", "web"),)))


def test_a_set_of_several_labels_where_no_single_one_separates() -> None:
    found = selection_of(
        WEB,
        pod(WEB, {"a": "1", "b": "1", "c": "1", "d": "1"}),
        pod(API, {"a": "1", "b": "1", "c": "1"}),
        pod(workload("x"), {"a": "1", "b": "1", "d": "1"}),
        pod(workload("y"), {"a": "1", "c": "1", "d": "1"}),
        pod(workload("z"), {"b": "1", "c": "1", "d": "1"}),
    )
    assert found == Selected(selector=LabelSelector(match_labels=(("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"))))


def test_the_absence_of_a_key_separates_where_no_value_does() -> None:
    found = selection_of(WEB, pod(WEB, {"app": "svc"}), pod(API, {"app": "svc", "component": "worker"}))
    absent = Requirement(key="component", operator=Operator.DOES_NOT_EXIST)
    assert found == Selected(selector=LabelSelector(match_labels=(("app", "svc"),), match_expressions=(absent,)))


def test_a_version_where_only_a_canary_split_tells_two_apart() -> None:
    found = selection_of(
        WEB, pod(WEB, {"app": "svc", "version": "2.0.0"}), pod(API, {"app": "svc", "version": "1.0.0"})
    )
    assert isinstance(found, Selected)
    assert found.selector.match_labels == (("version", "2.0.0"),)
    assert found.volatile_keys == ("version",)


def test_an_immutable_owner_selector_may_hold_a_volatile_value() -> None:
    labels = {"app": "svc", "rel": "redis-19.1.0"}
    record = WorkloadRecord(workload=WEB, selector=tuple(labels.items()), template_labels=tuple(labels.items()))
    found = selection_of(WEB, pod(API, {"app": "svc"}), records=(record,))
    assert isinstance(found, Selected)
    assert found.volatile_keys == ("rel",)


def test_no_label_that_lasts_is_no_empty_selector() -> None:
    found = selection_of(WEB, pod(WEB, {"pod-template-hash": "x"}), pod(API, {"app": "api"}))
    assert isinstance(found, NotSeparable)
    assert found.no_labels


def test_equal_labels_cannot_be_separated_and_the_others_are_named() -> None:
    found = selection_of(WEB, pod(WEB, {"app": "svc"}), pod(API, {"app": "svc"}))
    assert found == NotSeparable(
        reason="every label of app/Deployment/web that lasts is worn by app/Deployment/api, too", others=(API,)
    )


def test_a_scaled_to_zero_workload_counts() -> None:
    record = WorkloadRecord(workload=API, template_labels=(("app", "svc"),), replicas=0)
    assert isinstance(selection_of(WEB, pod(WEB, {"app": "svc"}), records=(record,)), NotSeparable)


def test_a_workload_that_the_cluster_does_not_show() -> None:
    found = selection_of(WEB, pod(API, {"app": "api"}))
    assert isinstance(found, NotSeparable)
    assert not found.no_labels


def test_a_person_can_forbid_the_only_key() -> None:
    lists = LabelLists(exclude=("app",))
    assert isinstance(selection_of(WEB, pod(WEB, {"app": "web"}), lists=lists), NotSeparable)


def test_a_label_that_changed_before_is_used_only_where_nothing_else_separates() -> None:
    """What the history of a workload's pods says is not seen in those that run now."""
    web, other = workload("web", "Rollout"), workload("other", "Rollout")
    record = WorkloadRecord(workload=web, changing_labels=("app",))
    pods = (pod(web, {"app": "web", "team": "a"}), pod(other, {"app": "other", "team": "b"}))
    found = selection_of(web, *pods, records=(record,))
    assert isinstance(found, Selected)
    assert found.selector.match_labels == (("team", "a"),)
    without = selection_of(web, *pods)
    assert isinstance(without, Selected)
    assert without.selector.match_labels == (("app", "web"),)
    alone = (pod(web, {"app": "web", "team": "a"}), pod(other, {"app": "other", "team": "a"}))
    forced = selection_of(web, *alone, records=(record,))
    assert isinstance(forced, Selected)
    assert forced.selector.match_labels == (("app", "web"),)
