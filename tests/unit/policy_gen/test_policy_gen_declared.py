"""What a declaration comes to when its Service is not there, runs nowhere yet, or names a port of its own."""

from dataclasses import replace
from typing import Any

import pytest

from aggregator.model.cluster import ContainerPort, Service, ServicePort
from aggregator.model.declared import CallerKind, DeclaredCaller
from aggregator.policy.generation.declared import declared_links
from tests.unit.policy_gen.town import TOWN, WEB, pod

HOOK = pod(WEB, "10.244.9.1", ports=(ContainerPort(name="https", port=9443),))
WANTED = (("app", "web"),)


def service(**more: Any) -> Service:
    return Service(namespace="app", name="hook", selector=WANTED, **more)


def rows(*services: Service, **declared: Any) -> list[str]:
    caller = DeclaredCaller(kind=CallerKind.API_SERVER, source="the webhook", namespace="app", **declared)
    cluster = replace(TOWN, pods=(HOOK,), services=services, declared_callers=(caller,))
    return [f"{row.link.protocol} {row.link.port}" for row in declared_links(cluster, frozenset())]


@pytest.mark.parametrize(
    ("target", "found"), [(None, ["TCP 443"]), (8443, ["TCP 8443"]), ("https", ["TCP 9443"]), ("nowhere", [])]
)
def test_a_service_that_runs_nowhere_yet_by_its_target_port(target: int | str | None, found: list[str]) -> None:
    ports = (ServicePort(name="https", port=443, target_port=target), ServicePort(name="metrics", port=9090))
    assert rows(service(ports=ports), service="hook", port=443) == found


def test_a_service_that_is_not_there_offers_nothing() -> None:
    assert rows(service="hook", port=443) == []


def test_no_service_and_no_labels_mean_nobody_rather_than_everybody() -> None:
    assert rows() == []
    assert rows(selector=WANTED, port="https") == ["TCP 9443"]
