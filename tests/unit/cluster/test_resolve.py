"""From an address at a time to a workload, never a guess."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest

from aggregator.cluster.discover import discovered_cidrs
from aggregator.cluster.reduce import FOREVER
from aggregator.cluster.resolve import LETTING_GO_SECONDS, ViewResolver
from aggregator.cluster.view import ClusterView
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Refused, Resolved
from aggregator.model.workload import Address, ApiServer, Nodes, Workload
from tests.unit.cluster import objects

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HTTP = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
HTTP_BEHIND = {"name": "http", "port": 8080, "protocol": "TCP"}


def workload(name: str, kind: str = "Deployment", namespace: str = "shop") -> Workload:
    return Workload(cluster="c", namespace=namespace, kind=kind, name=name)


def view(*raws: dict[str, Any], at: datetime = NOON - timedelta(minutes=1)) -> ClusterView:
    """A cluster that stands still, with two nodes and complete CIDRs."""
    found = ClusterView("c")
    for raw in (
        objects.node("node-1", "192.168.0.1", "10.244.1.0/24"),
        objects.node("node-2", "192.168.0.2", "10.244.2.0/24"),
        objects.service_cidr(),
        *raws,
    ):
        found.apply(raw["kind"], raw, at=at.timestamp())
    found.set_cidrs(discovered_cidrs(found))
    found.confirmed = FOREVER
    return found


def shop(*more: dict[str, Any]) -> ClusterView:
    return view(
        objects.replica_set("web-1", "web"),
        objects.replica_set("api-1", "api"),
        objects.pod("web-1-a", ip="10.244.1.5", owner=objects.owned_by("ReplicaSet", "web-1", "uid-web-1")),
        objects.pod("api-1-a", ip="10.244.2.6", node="node-2", owner=objects.owned_by("ReplicaSet", "api-1")),
        objects.service("api", ip="10.96.0.10", ports=[HTTP]),
        objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.2.6"]),
        *more,
    )


def flow(remote: str, port: int = 8080, **changes: Any) -> FlowIdentity:
    values: dict[str, Any] = {
        "cluster": "c",
        "node": "node-1",
        "pod_uid": "uid-web-1-a",
        "local_ip": ip_address("10.244.1.5"),
        "remote_ip": ip_address(remote),
        "port": port,
        "protocol": Protocol.TCP,
        "direction": Direction.EGRESS,
    }
    return FlowIdentity(**(values | changes))


def resolve(where: ClusterView, what: FlowIdentity, at: datetime = NOON) -> Any:
    return ViewResolver(where).resolve(what, at)


def link(answer: object) -> tuple[Any, Any, int]:
    assert isinstance(answer, Resolved), answer
    return answer.link.src, answer.link.dst, answer.link.port


def test_a_pod_address_is_its_top_owner() -> None:
    assert link(resolve(shop(), flow("10.244.2.6"))) == (workload("web"), workload("api"), 8080)


def test_a_service_address_is_the_workload_behind_it_on_the_pods_port() -> None:  # pitfalls row 6
    answer = resolve(shop(), flow("10.96.0.10", 80))
    assert link(answer) == (workload("web"), workload("api"), 8080)
    assert (answer.service, answer.src_pod, answer.dst_pod) == ("shop/api:80", "shop/web-1-a", "shop/api-1-a")


def test_pods_of_a_trial_among_themselves_are_no_link_and_what_they_do_to_others_is() -> None:
    owner = objects.owned_by("ConfigMap", "wattle-verify-1a2b3c")
    where = shop(
        objects.pod("wattle-verify-1a2b3c-c0", ip="10.244.1.30", owner=owner),
        objects.pod("wattle-verify-1a2b3c-s0", ip="10.244.2.31", node="node-2", owner=owner),
    )
    client = {"pod_uid": "uid-wattle-verify-1a2b3c-c0", "local_ip": ip_address("10.244.1.30")}
    assert resolve(where, flow("10.244.2.31", **client)) == Refused(reason="trial")
    other = resolve(where, flow("10.244.2.6", **client))
    assert link(other) == (workload("wattle-verify-1a2b3c", "ConfigMap"), workload("api"), 8080)
    assert link(resolve(where, flow("10.244.2.31")))[0] == workload("web")


def test_a_service_before_workloads_differ_is_not_guessed() -> None:
    where = shop(
        objects.pod("old", ip="10.244.2.7", node="node-2"),
        objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.2.6", "10.244.2.7"]),
    )
    answer = resolve(where, flow("10.96.0.10", 80))
    assert isinstance(answer, NotYet)
    assert answer.reason == "service-backends-differ"
    assert answer.fallback is not None
    assert answer.fallback.dst == Address(cluster="c", ip=ip_address("10.96.0.10"))


def test_a_service_whose_pods_name_different_ports_is_not_guessed() -> None:
    where = shop(objects.pod("api-1-b", ip="10.244.2.8", owner=objects.owned_by("ReplicaSet", "api-1")))
    where.apply("EndpointSlice", objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.2.6"]), at=NOON.timestamp())
    other = objects.endpoint_slice("api", {"name": "http", "port": 9090}, ["10.244.2.8"])
    other["metadata"]["name"] = "api-xyz"
    where.apply("EndpointSlice", other, at=NOON.timestamp())
    assert isinstance(resolve(where, flow("10.96.0.10", 80)), NotYet)


def test_a_service_is_resolved_by_what_stood_behind_it_then() -> None:
    where = shop()
    later = NOON + timedelta(minutes=10)
    where.apply("Pod", objects.pod("canary", ip="10.244.2.9", node="node-2"), at=later.timestamp())
    where.confirmed = later.timestamp()
    where.apply("EndpointSlice", objects.endpoint_slice("api", HTTP_BEHIND, ["10.244.2.9"]), at=later.timestamp())
    where.confirmed = FOREVER
    then = resolve(where, flow("10.96.0.10", 80), NOON + timedelta(minutes=5))
    now = resolve(where, flow("10.96.0.10", 80), later + timedelta(minutes=5))
    assert link(then)[1] == workload("api")
    assert link(now)[1] == workload("canary", "Pod")
    assert isinstance(resolve(where, flow("10.96.0.10", 80), later), NotYet), "between the two either may be true"


def test_a_manual_endpoint_is_the_address_that_is_listed() -> None:
    where = shop(
        objects.service("db", ip="10.96.0.11", ports=[{"port": 5432}]),
        objects.endpoint_slice("db", {"name": "", "port": 5432}, ["203.0.113.9"]),
    )
    assert link(resolve(where, flow("10.96.0.11", 5432)))[1] == Address(cluster="c", ip=ip_address("203.0.113.9"))


def test_an_external_name_is_a_name_and_owns_no_address() -> None:
    """Its clients speak to the address that the name has: an outside one, whatever the Service is called."""
    where = shop(objects.service("pay", type="ExternalName", externalName="pay.example.org", ports=[{"port": 443}]))
    (found,) = (service for service in where.snapshot().services if service.name == "pay")
    assert (found.external_name, found.cluster_ips, found.backends) == ("pay.example.org", (), ())
    answer = resolve(where, flow("203.0.113.20", 443))
    assert (link(answer)[1], answer.service) == (Address(cluster="c", ip=ip_address("203.0.113.20")), "")


def test_a_service_without_selector_and_without_slices_has_nobody_behind_it() -> None:
    where = shop(objects.service("db", ip="10.96.0.11", ports=[{"port": 5432}]))
    answer = resolve(where, flow("10.96.0.11", 5432))
    assert isinstance(answer, NotYet)
    assert answer.reason == "service-without-backends"


def test_the_api_server_is_itself_by_its_service_and_by_its_endpoint() -> None:
    where = shop(
        objects.service("kubernetes", namespace="default", ip="10.96.0.1", ports=[{"name": "https", "port": 443}]),
        objects.endpoint_slice("kubernetes", {"name": "https", "port": 6443}, ["192.168.0.1"], namespace="default"),
    )
    by_service = resolve(where, flow("10.96.0.1", 443))
    assert link(by_service)[1:] == (ApiServer(cluster="c"), 6443)
    assert by_service.service == "default/kubernetes:443"
    assert link(resolve(where, flow("192.168.0.1", 6443)))[1:] == (ApiServer(cluster="c"), 6443)
    assert link(resolve(where, flow("192.168.0.1", 10250)))[1:] == (Nodes(cluster="c"), 10250)


def test_host_network_is_the_nodes() -> None:  # pitfalls row 14
    where = shop(objects.pod("exporter", ip="192.168.0.2", node="node-2", host_network=True))
    assert link(resolve(where, flow("192.168.0.2", 9100)))[1:] == (Nodes(cluster="c"), 9100)
    own = flow("10.244.2.6", node="node-2", pod_uid="uid-exporter", host_network=True, local_ip=None)
    assert link(resolve(where, own))[:2] == (Nodes(cluster="c"), workload("api"))
    unknown = flow("10.244.2.6", pod_uid="", host_network=True, local_ip=None)
    assert link(resolve(where, unknown))[:2] == (Nodes(cluster="c"), workload("api"))


def test_ingress_is_the_local_pods_workload_and_port() -> None:
    where = shop()
    answer = resolve(
        where,
        flow("10.244.1.5", pod_uid="uid-api-1-a", node="node-2", local_ip=None, direction=Direction.INGRESS),
    )
    assert link(answer) == (workload("web"), workload("api"), 8080)


@pytest.mark.parametrize("source", ["192.168.0.1", "10.244.1.1"])
def test_the_pods_own_node_is_a_probe(source: str) -> None:  # pitfalls row 15
    answer = resolve(shop(), flow(source, direction=Direction.INGRESS))
    assert link(answer)[0] == Nodes(cluster="c")
    assert answer.same_node_probe


def test_another_node_is_no_probe() -> None:
    answer = resolve(shop(), flow("192.168.0.2", direction=Direction.INGRESS))
    assert link(answer)[0] == Nodes(cluster="c")
    assert not answer.same_node_probe


def test_a_node_port_is_the_pod_on_the_own_node_and_the_node_elsewhere() -> None:
    where = shop(
        objects.service("shop", ip="10.96.0.12", type="NodePort", ports=[HTTP | {"nodePort": 30080}]),
        objects.endpoint_slice("shop", HTTP_BEHIND, ["10.244.2.6"]),
    )
    own = resolve(where, flow("192.168.0.1", 30080))
    other = resolve(where, flow("192.168.0.2", 30080))
    assert link(own)[1:] == (workload("api"), 8080)
    assert link(other)[1:] == (Nodes(cluster="c"), 30080)
    assert own.service == other.service == "shop/shop:80"


def test_a_load_balancers_address_that_is_a_nodes_is_both() -> None:
    balanced = objects.service("edge", ip="10.96.0.13", type="LoadBalancer", ports=[HTTP])
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "192.168.0.2"}]}}
    where = shop(balanced, objects.endpoint_slice("edge", HTTP_BEHIND, ["10.244.2.6"]))
    assert link(resolve(where, flow("192.168.0.2", 80)))[1:] == (workload("api"), 8080)
    assert link(resolve(where, flow("192.168.0.2", 10250)))[1:] == (Nodes(cluster="c"), 10250)


def test_an_address_that_services_share_is_told_apart_by_its_ports() -> None:
    other = HTTP | {"port": 81}
    where = shop(
        objects.service("one", ip="10.96.0.14", ports=[HTTP], externalIPs=["203.0.113.50"]),
        objects.endpoint_slice("one", HTTP_BEHIND, ["10.244.2.6"]),
        objects.service("two", ip="10.96.0.15", ports=[other], externalIPs=["203.0.113.50"]),
        objects.endpoint_slice("two", HTTP_BEHIND, ["10.244.1.5"]),
    )
    assert resolve(where, flow("203.0.113.50", 80)).service == "shop/one:80"
    assert resolve(where, flow("203.0.113.50", 81)).service == "shop/two:81"
    assert resolve(where, flow("203.0.113.50", 82)).reason == "service-has-no-such-port"


def test_a_headless_service_is_its_pods_addresses() -> None:
    where = shop(objects.service("headless", ports=[HTTP]))
    assert link(resolve(where, flow("10.244.2.6", 8080)))[1:] == (workload("api"), 8080)


def test_a_backend_seen_after_translation_is_the_pod() -> None:
    answer = resolve(shop(), flow("10.244.2.6", 8080))
    assert answer.service == "", "Cilium's socket load balancing and IPVS show no Service: none is made up"


def test_an_outside_address_stays_an_address() -> None:
    assert link(resolve(shop(), flow("203.0.113.5", 443)))[1] == Address(cluster="c", ip=ip_address("203.0.113.5"))


def test_an_unknown_address_inside_the_pod_range_waits() -> None:
    answer = resolve(shop(), flow("10.244.1.77"))
    assert isinstance(answer, NotYet)
    assert answer.reason == "nobody-known-in-pod-range"


def test_an_address_that_a_pod_has_let_go_is_told_from_one_that_nobody_had() -> None:
    where = shop()
    where.remove("Pod", "shop", "api-1-a", uid="uid-api-1-a", at=NOON.timestamp())
    answer = resolve(where, flow("10.244.2.6"), NOON + timedelta(minutes=5))
    assert isinstance(answer, NotYet)
    assert answer.reason == "address-let-go"


def test_a_private_address_waits_while_the_subnets_are_incomplete() -> None:
    where = shop()
    where.remove("ServiceCIDR", "", "kubernetes", at=NOON.timestamp())
    where.set_cidrs(discovered_cidrs(where))
    assert isinstance(resolve(where, flow("172.16.9.9")), NotYet)
    assert isinstance(resolve(where, flow("8.8.8.8")), Resolved)


def test_an_unknown_local_pod_waits_and_becomes_no_link() -> None:
    assert resolve(shop(), flow("10.244.2.6", pod_uid="uid-new")) == NotYet(reason="pod-not-known", fallback=None)


def test_a_row_is_refused_only_when_its_pod_lives_elsewhere() -> None:  # pitfalls row 31
    where = shop()
    assert resolve(where, flow("10.244.2.6", node="node-2")) == Refused(reason="pod-on-other-node")
    assert isinstance(resolve(where, flow("10.244.2.6", node="node-2", pod_uid="uid-new")), NotYet)


def test_a_static_pod_is_found_by_its_hash() -> None:
    where = shop(
        objects.pod(
            "etcd-node-1",
            namespace="kube-system",
            ip="10.244.1.9",
            owner=objects.owned_by("Node", "node-1"),
            annotations={"kubernetes.io/config.hash": "cafe", "kubernetes.io/config.mirror": "cafe"},
        )
    )
    answer = resolve(where, flow("10.244.2.6", pod_uid="cafe", local_ip=None))
    assert link(answer)[0] == workload("etcd-node-1", "Pod", "kube-system")


def test_an_owner_that_was_not_seen_is_waited_for() -> None:
    where = shop(objects.pod("job-x", ip="10.244.1.20", owner=objects.owned_by("Job", "nightly-1", "uid-job")))
    asked = flow("10.244.2.6", pod_uid="uid-job-x", local_ip=None)
    assert resolve(where, asked) == NotYet(reason="owner-not-known", fallback=None)
    job = objects.replica_set("nightly-1", uid="uid-job") | {"kind": "Job"}
    job["metadata"]["ownerReferences"] = objects.owned_by("CronJob", "nightly")
    where.apply("Job", job, at=NOON.timestamp())
    assert link(resolve(where, asked))[0] == workload("nightly", "CronJob")


def test_a_custom_owner_goes_by_its_own_kind() -> None:
    rs = objects.replica_set("roll-1")
    rs["metadata"]["ownerReferences"] = objects.owned_by("Rollout", "roll")
    where = shop(rs, objects.pod("roll-1-a", ip="10.244.1.30", owner=objects.owned_by("ReplicaSet", "roll-1")))
    assert link(resolve(where, flow("10.244.1.30")))[1] == workload("roll", "Rollout")


def test_an_address_that_changed_hands_is_never_given_to_the_wrong_pod() -> None:  # pitfalls row 16
    where = shop()
    gone = NOON + timedelta(seconds=10)
    where.remove("Pod", "shop", "api-1-a", uid="uid-api-1-a", at=gone.timestamp())
    new = objects.pod("batch", ip="10.244.2.6", node="node-2", started="2026-01-01T12:00:10Z")
    where.apply("Pod", new, at=gone.timestamp() + 1)
    assert link(resolve(where, flow("10.244.2.6"), NOON + timedelta(seconds=5)))[1] == workload("api")
    assert link(resolve(where, flow("10.244.2.6"), NOON + timedelta(seconds=15)))[1] == workload("batch", "Pod")
    assert resolve(where, flow("10.244.2.6"), gone).reason == "address-changed-hands"


def test_an_address_that_goes_from_one_pod_to_another_of_one_workload_is_that_workloads() -> None:
    where = shop()
    gone = NOON + timedelta(seconds=10)
    where.remove("Pod", "shop", "api-1-a", uid="uid-api-1-a", at=gone.timestamp())
    owner = objects.owned_by("ReplicaSet", "api-1")
    new = objects.pod("api-1-b", ip="10.244.2.6", node="node-2", owner=owner, started="2026-01-01T12:00:10Z")
    where.apply("Pod", new, at=gone.timestamp() + 1)
    answer = resolve(where, flow("10.244.2.6"), gone)
    assert link(answer) == (workload("web"), workload("api"), 8080)
    assert answer.dst_pod == "", "which of the two nobody can say"


def test_a_late_flow_is_given_to_who_left_last_and_only_within_the_grace_period() -> None:
    where = shop()
    where.remove("Pod", "shop", "api-1-a", uid="uid-api-1-a", at=NOON.timestamp())
    assert link(resolve(where, flow("10.244.2.6"), NOON + timedelta(seconds=20)))[1] == workload("api")
    assert isinstance(resolve(where, flow("10.244.2.6"), NOON + timedelta(seconds=40)), NotYet)


def test_a_view_that_lags_behind_the_flow_waits_and_then_says_so() -> None:
    where = shop()
    where.confirmed = NOON.timestamp() - 10
    resolver = ViewResolver(where)
    before = resolver.generation
    answer = resolver.resolve(flow("10.244.2.6"), NOON)
    assert isinstance(answer, NotYet)
    assert answer.reason == "view-behind"
    assert answer.fallback is not None
    assert isinstance(answer.fallback.dst, Address)
    assert answer.behind
    assert resolve(where, flow("10.244.2.99")).behind, "nobody that is known yet"
    assert resolver.generation == before
    where.confirmed = NOON.timestamp()
    assert resolve(where, flow("10.244.2.99")).behind, "a pod's status may come a little later than its flow"
    where.confirmed = NOON.timestamp() + LETTING_GO_SECONDS
    assert not resolve(where, flow("10.244.2.99")).behind
    assert resolver.generation > before, "who asked too early is told to ask again"
    assert link(resolver.resolve(flow("10.244.2.6"), NOON))[1] == workload("api")


def test_a_flow_a_little_younger_than_the_view_is_answered_unless_its_peer_is_about_to_go() -> None:
    where = shop()
    where.confirmed = NOON.timestamp() - 1
    assert link(resolve(where, flow("10.244.2.6")))[1] == workload("api")
    going = objects.pod("api-1-a", ip="10.244.2.6", node="node-2", owner=objects.owned_by("ReplicaSet", "api-1"))
    going["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:30Z"
    where.apply("Pod", going, at=NOON.timestamp())
    assert resolve(where, flow("10.244.2.6")).reason == "view-behind"
    for seconds in (-1, 0, LETTING_GO_SECONDS - 0.1):
        where.confirmed = NOON.timestamp() + seconds
        assert resolve(where, flow("10.244.2.6")).reason == "view-behind"
        assert resolve(where, flow("10.244.2.6")).behind, "it waits for the view, however long that takes"
    where.confirmed = NOON.timestamp() + LETTING_GO_SECONDS
    assert link(resolve(where, flow("10.244.2.6")))[1] == workload("api")


def test_an_agent_that_sees_another_pod_use_an_address_makes_it_doubtful() -> None:
    where = shop()
    resolver = ViewResolver(where)
    before = resolver.generation
    unknown = flow("8.8.8.8", pod_uid="uid-new", node="node-2", local_ip=ip_address("10.244.2.6"))
    for _ in range(2):
        assert resolver.resolve(unknown, NOON) == NotYet(reason="pod-not-known", fallback=None)
    assert resolver.generation == before + 1, "answers that were kept are doubtful, too; once"
    assert resolve(where, flow("10.244.2.6")).reason == "address-changed-hands"
    assert link(resolve(where, flow("10.244.2.6"), NOON + timedelta(minutes=5)))[1] == workload("api")
    new = objects.pod("new", ip="10.244.2.6", uid="uid-new", node="node-2", started="2026-01-01T11:59:50Z")
    where.remove("Pod", "shop", "api-1-a", uid="uid-api-1-a", at=NOON.timestamp() - 30)
    where.apply("Pod", new, at=NOON.timestamp())
    assert link(resolve(where, flow("10.244.2.6")))[1] == workload("new", "Pod")


def test_an_answer_says_how_long_it_holds() -> None:
    where = shop()
    answer = resolve(where, flow("10.244.2.6"))
    assert answer.holds_until is None
    assert answer.holds_since == datetime(2026, 1, 1, 11, 59, 1, tzinfo=UTC), (
        "since it was seen there, give or take 1 s"
    )
    before = resolve(where, flow("10.244.2.6"), answer.holds_since - timedelta(seconds=1))
    assert link(before) == link(answer)
    assert before.holds_since == datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC), "since its pod was started"


def test_answers_can_be_given_as_far_as_the_view_has_got() -> None:
    where = shop()
    resolver = ViewResolver(where)
    assert resolver.known_until("c") is None, "a view that stands still knows everything"
    where.confirmed = NOON.timestamp()
    assert resolver.known_until("c") == NOON + timedelta(seconds=5)
    assert isinstance(ViewResolver(ClusterView("c")).known_until("c"), datetime), "one that has not begun knows nothing"


def test_v4_mapped_and_dual_stack() -> None:
    where = shop(objects.pod("six", ip=("10.244.1.40", "fd00::40")))
    assert link(resolve(where, flow("::ffff:10.244.1.40")))[1] == workload("six", "Pod")
    assert link(resolve(where, flow("fd00::40")))[1] == workload("six", "Pod")


def test_loopback_is_not_recorded() -> None:
    assert resolve(shop(), flow("127.0.0.1")) == Refused(reason="loopback")


def test_a_pod_and_itself() -> None:
    assert link(resolve(shop(), flow("10.244.1.5")))[:2] == (workload("web"), workload("web"))


def test_a_pod_without_a_name_is_found_by_its_address_on_its_node() -> None:
    where = shop()
    assert link(resolve(where, flow("10.244.2.6", pod_uid="")))[0] == workload("web")
    assert isinstance(resolve(where, flow("10.244.2.6", pod_uid="", node="node-2")), NotYet)


def test_a_node_that_comes_back_under_its_name_is_itself_again() -> None:
    where = shop()
    where.remove("Node", "", "node-2", at=NOON.timestamp())
    assert isinstance(resolve(where, flow("192.168.0.2"), NOON + timedelta(minutes=5)), Resolved | NotYet)
    back = objects.node("node-2", "192.168.0.2", "10.244.2.0/24")
    back["metadata"]["creationTimestamp"] = (NOON + timedelta(minutes=10)).isoformat()
    where.apply("Node", back, at=NOON.timestamp() + 601)
    assert link(resolve(where, flow("192.168.0.2"), NOON + timedelta(minutes=20)))[1] == Nodes(cluster="c")
    between = resolve(where, flow("192.168.0.2"), NOON + timedelta(minutes=5))
    assert link(between)[1] == Address(cluster="c", ip=ip_address("192.168.0.2"))


def test_an_address_that_a_service_gave_up_is_anothers() -> None:
    taken = objects.service("two", ip="10.96.0.15", ports=[HTTP], externalIPs=["203.0.113.50"])
    taken["metadata"]["creationTimestamp"] = "2026-01-01T12:01:00Z"
    where = shop(
        objects.service("one", ip="10.96.0.14", ports=[HTTP], externalIPs=["203.0.113.50"]),
        objects.endpoint_slice("one", HTTP_BEHIND, ["10.244.2.6"]),
    )
    where.apply("Service", objects.service("one", ip="10.96.0.14", ports=[HTTP]), at=NOON.timestamp())
    where.apply("Service", taken, at=NOON.timestamp() + 60)
    where.apply("EndpointSlice", objects.endpoint_slice("two", HTTP_BEHIND, ["10.244.1.5"]), at=NOON.timestamp() + 60)
    assert resolve(where, flow("203.0.113.50", 80), NOON - timedelta(seconds=5)).service == "shop/one:80"
    assert resolve(where, flow("203.0.113.50", 80), NOON + timedelta(minutes=5)).service == "shop/two:80"


def test_a_service_that_is_made_anew_under_its_name_is_the_new_one() -> None:
    where = shop()
    where.remove("Service", "shop", "api", at=NOON.timestamp())
    new = objects.service("api", ip="10.96.0.10", ports=[HTTP], created="2026-01-01T12:10:00Z")
    new["metadata"]["uid"] = "uid-new"
    where.apply("Service", new, at=NOON.timestamp() + 601)
    assert link(resolve(where, flow("10.96.0.10", 80), NOON - timedelta(seconds=9)))[1] == workload("api")
    assert link(resolve(where, flow("10.96.0.10", 80), NOON + timedelta(minutes=20)))[1] == workload("api")
