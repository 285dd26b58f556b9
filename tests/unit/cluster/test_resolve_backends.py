"""Who is behind a Service: those that are sent connections, and who stood there shortly before and after."""

from datetime import timedelta
from typing import Any

import pytest

from aggregator.cluster.reduce import FOREVER
from aggregator.cluster.view import ClusterView
from aggregator.cluster.watch import SETTLE_SECONDS
from aggregator.model.resolution import NotYet, Resolved
from tests.unit.cluster import objects
from tests.unit.cluster.test_resolve import HTTP_BEHIND, NOON, flow, link, resolve, shop, workload


def with_conditions(slice_: dict[str, Any], **conditions: dict[str, bool]) -> dict[str, Any]:
    """`conditions` by the last number of the address."""
    for endpoint in slice_["endpoints"]:
        endpoint["conditions"] = conditions[f"at_{endpoint['addresses'][0].rpartition('.')[2]}"]
    return slice_


def test_a_pod_that_is_not_ready_is_nobody_behind_a_service() -> None:
    """Nobody is sent to it: not one of a trial with the workload's labels, nor one that never became ready."""
    where = shop(objects.pod("canary", ip="10.244.2.9", node="node-2"))
    behind = objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.2.6", "10.244.2.9"])
    behind = with_conditions(behind, at_6={"ready": True}, at_9={"ready": False, "serving": False})
    where.apply("EndpointSlice", behind, at=(NOON - timedelta(minutes=1)).timestamp())
    assert link(resolve(where, flow("10.96.0.10", 80)))[1] == workload("api")
    (service,) = (s for s in where.snapshot().services if s.name == "api")
    assert {str(backend.ip) for backend in service.backends} == {"10.244.2.6", "10.244.2.9"}, "policies are for both"


def test_where_nobody_is_ready_those_that_are_leaving_and_still_serve_are_behind_the_service() -> None:
    where = shop(objects.pod("canary", ip="10.244.2.9", node="node-2"))
    behind = objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.2.6", "10.244.2.9"])
    leaving = {"ready": False, "serving": True, "terminating": True}
    behind = with_conditions(behind, at_6=leaving, at_9={"ready": False, "serving": False})
    where.apply("EndpointSlice", behind, at=(NOON - timedelta(minutes=1)).timestamp())
    assert link(resolve(where, flow("10.96.0.10", 80)))[1] == workload("api")


def restarted(*ready: str, after_seconds: int = 10) -> ClusterView:
    """Every pod behind the Service is replaced at once: from noon on, nobody is ready for a while."""
    where = shop(objects.pod("canary", ip="10.244.2.9", node="node-2"))
    for seconds, ips in ((0, ()), (after_seconds, ready)):
        at = (NOON + timedelta(seconds=seconds)).timestamp()
        where.confirmed = at
        where.apply("EndpointSlice", objects.endpoint_slice("api", HTTP_BEHIND, list(ips)), at=at)
    where.confirmed = FOREVER
    return where


def test_a_service_that_nobody_is_behind_for_a_moment_is_what_stood_there_before_and_after() -> None:
    where, five = restarted("10.244.2.6"), timedelta(seconds=5)
    assert link(resolve(where, flow("10.96.0.10", 80), NOON + five)) == (workload("web"), workload("api"), 8080)


def test_a_service_that_somebody_else_is_behind_afterwards_is_not_guessed() -> None:
    answer = resolve(restarted("10.244.2.9"), flow("10.96.0.10", 80), NOON + timedelta(seconds=5))
    assert isinstance(answer, NotYet)
    assert answer.reason == "service-backends-differ"


def test_a_service_that_nobody_is_behind_for_long_is_nobody() -> None:
    where = restarted()
    for seconds, reason in ((29, ""), (32, "service-without-backends")):
        answer = resolve(where, flow("10.96.0.10", 80), NOON + timedelta(seconds=seconds))
        assert (answer.reason if isinstance(answer, NotYet) else "") == reason


def test_what_is_said_of_a_service_that_nobody_is_behind_holds_as_long_as_the_history_says() -> None:
    """Any moment within the bounds that an answer gives has the same answer."""
    where = restarted("10.244.2.9", after_seconds=100)
    moments = [NOON + timedelta(seconds=seconds + 0.5) for seconds in range(-40, 160)]
    answers = [resolve(where, flow("10.96.0.10", 80), moment) for moment in moments]
    assert {type(answer) for answer in answers} == {Resolved, NotYet}
    for answer in answers:
        if isinstance(answer, Resolved):
            since, until = answer.holds_since or moments[0], answer.holds_until or moments[-1]
            within = [other for other, moment in zip(answers, moments, strict=True) if since <= moment < until]
            assert {link(other)[1] for other in within} == {link(answer)[1]}


def replaced(*slices: tuple[float, list[str]], name: str = "api-1-b") -> ClusterView:
    """The pod behind the Service is deleted at noon, and its address goes to another workload's at once; another of
    its own comes. `slices`: seconds after noon, and the addresses that stand behind the Service from then on.
    """
    where = shop()
    pods = {"10.244.2.6": "api-1-a", "10.244.2.7": name}
    named = objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.2.6"], pods=["api-1-a"])
    where.apply("EndpointSlice", named, at=(NOON - timedelta(minutes=1)).timestamp())

    def then(seconds: float) -> float:
        moment = (NOON + timedelta(seconds=seconds)).timestamp()
        where.confirmed = moment - SETTLE_SECONDS
        return moment

    where.remove("Pod", "shop", "api-1-a", uid="uid-api-1-a", at=then(0))
    started = "2026-01-01T12:00:00Z"
    owner = objects.owned_by("ReplicaSet", "api-1")
    for pod in (
        objects.pod("rates", ip="10.244.2.6", node="node-2", started=started),
        objects.pod("api-1-b", ip="10.244.2.7", node="node-2", started=started, owner=owner),
    ):
        where.apply("Pod", pod, at=then(1.5))
    for seconds, ips in slices:
        behind = objects.endpoint_slice("api", HTTP_BEHIND, ips, pods=[pods[ip] for ip in ips])
        where.apply("EndpointSlice", behind, at=then(seconds))
    where.confirmed = FOREVER
    return where


@pytest.mark.parametrize(
    ("slices", "seconds"),
    [
        ([(3.0, ["10.244.2.7"])], 2.8),
        ([(3.0, ["10.244.2.7"])], 3.5),
        ([(2.0, []), (3.0, ["10.244.2.7"])], 2.8),
        ([(0.5, []), (20.0, ["10.244.2.7"])], 10.0),
        ([(90.0, ["10.244.2.7"])], 80.0),
    ],
    ids=["just-before", "just-after", "with-a-gap", "in-a-long-gap", "a-controller-that-sleeps"],
)
def test_a_backend_whose_address_is_another_pods_by_now_is_still_the_pod_that_the_slice_names(
    slices: list[tuple[float, list[str]]], seconds: float
) -> None:
    """The controller of EndpointSlices goes after the pods in its own time: its word is about the pod that it names,
    never about who took over that pod's address.
    """
    answer = resolve(replaced(*slices), flow("10.96.0.10", 80), NOON + timedelta(seconds=seconds))
    assert link(answer) == (workload("web"), workload("api"), 8080)


def test_a_backend_that_names_a_pod_unknown_at_its_address_is_not_who_had_it_before() -> None:
    where = replaced((3.0, ["10.244.2.7"]), name="api-1-c")
    answer = resolve(where, flow("10.96.0.10", 80), NOON + timedelta(minutes=1))
    assert isinstance(answer, NotYet)
    assert answer.reason == "address-changed-hands"


def test_a_backend_is_the_pod_of_that_name_at_that_time() -> None:
    """Names are used again, in a StatefulSet by the next pod of the same ordinal."""
    where = shop()
    named = objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.2.9"], pods=["db-0"])
    for minutes, kind, name in ((-9, "Job", "restore"), (5, "StatefulSet", "db")):
        moment = NOON + timedelta(minutes=minutes)
        at, owner = moment.timestamp(), objects.owned_by(kind, name)
        pod = objects.pod("db-0", ip="10.244.2.9", uid=f"uid-{name}", owner=owner, started=moment.isoformat())
        where.confirmed = at
        where.apply(kind, {"metadata": objects.metadata(name, "shop", uid=f"uid-of-{name}"), "spec": {}}, at=at)
        where.apply("Pod", pod, at=at)
        where.apply("EndpointSlice", named, at=at)
        if kind == "Job":
            where.remove("Pod", "shop", "db-0", uid="uid-restore", at=at + 60)
    where.confirmed = FOREVER
    then, now = (resolve(where, flow("10.96.0.10", 80), NOON + timedelta(minutes=m)) for m in (-8.5, 8))
    assert link(then)[1] == workload("restore", "Job")
    assert link(now)[1] == workload("db", "StatefulSet")
