"""What happens to a watch in its life: the cache becomes equal to the server's again, and an old one says it is old."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
import yaml

from aggregator import metrics
from aggregator.cluster.kinds import WATCHED
from aggregator.cluster.reflector import State, Timing
from aggregator.cluster.transport import ApiError, KubernetesApi
from aggregator.cluster.watch import KubernetesSource
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, Resolved
from tests.cluster.conftest import QUICK, RBAC, Follow, create_namespace, running
from tests.cluster.controlplane import Admin, ControlPlane, random_name, wait_until
from tests.cluster.kubelet import pod_spec, stamp
from tests.cluster.relay import Mood, Relay
from tests.unit.cluster.test_past import Memory

CLUSTER_ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/wattle-aggregator"
ROLE = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/wattle-aggregator"


@pytest.fixture
def relay(plane: ControlPlane) -> Iterator[Relay]:
    found = Relay(int(plane.url.rsplit(":", 1)[1]))
    yield found
    found.close()


def create(admin: Admin, namespace: str, name: str, ip: str = "") -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    admin.create(pods, {"metadata": {"name": name}, "spec": pod_spec(nodeName="node-1")})
    if ip:
        status = {"phase": "Running", "startTime": stamp(), "podIP": ip, "podIPs": [{"ip": ip}]}
        admin.patch(f"{pods}/{name}/status", {"status": status})


def names(view: KubernetesSource, namespace: str) -> set[str]:
    return {pod.name for pod in view.snapshot.pods if pod.namespace == namespace}


def seen(view: KubernetesSource, namespace: str, *expected: str, seconds: float = 60.0) -> None:
    wait_until(lambda: names(view, namespace) == set(expected), f"exactly {expected} in the view", seconds)


def test_a_restarted_api_server_is_followed_again(
    plane: ControlPlane, admin: Admin, namespace: str, follow: Follow
) -> None:
    with follow() as view:
        create(admin, namespace, "before")
        seen(view, namespace, "before")
        plane.restart_apiserver()
        create(admin, namespace, "after")
        admin.delete(f"/api/v1/namespaces/{namespace}/pods/before", now=True)
        seen(view, namespace, "after")


def test_a_view_grows_old_while_the_api_server_is_away_for_a_minute(
    plane: ControlPlane, admin: Admin, namespace: str, follow: Follow
) -> None:
    with follow() as view:
        create(admin, namespace, "before")
        seen(view, namespace, "before")
        wait_until(lambda: view.view.confirmed > 0 and not view.stale, "the view to be right")
        plane.stop_apiserver()
        try:
            confirmed = view.view.confirmed
            wait_until(lambda: view.stale, "the view to be called stale", 90)
            assert view.age_seconds > 60
            assert view.view.confirmed < confirmed + 5, "what was not seen is not vouched for"
            assert names(view, namespace) == {"before"}, "what was known stays known"
        finally:
            plane.start_apiserver()
        wait_until(lambda: admin.get("/readyz"), "the API server", 60)
        wait_until(lambda: not view.stale, "the view to be right again", 60)
        create(admin, namespace, "after")
        seen(view, namespace, "before", "after")


def test_a_compacted_history_is_listed_anew(
    plane: ControlPlane, admin: Admin, namespace: str, follow: Follow, relay: Relay
) -> None:
    """410 Gone: what the watch would go on from is no longer kept."""
    with follow(url=f"https://127.0.0.1:{relay.port}") as view:
        create(admin, namespace, "before")
        seen(view, namespace, "before")
        lists = _counted(view, "gone")
        relay.mood = Mood.SLAM
        wait_until(lambda: view.reflectors["Pod"].state is State.RETRYING, "the watch to break")
        for number in range(20):
            create(admin, namespace, f"p{number}")
            admin.delete(f"/api/v1/namespaces/{namespace}/pods/p{number}", now=True)
        admin.delete(f"/api/v1/namespaces/{namespace}/pods/before", now=True)
        create(admin, namespace, "after")
        plane.compact()
        plane.restart_apiserver()  # a fresh server's watch cache begins at the newest version
        relay.mood = Mood.PASS
        seen(view, namespace, "after")
        assert _counted(view, "gone") > lists, "the server did not say 410: the test shows nothing"


def _counted(view: KubernetesSource, event: str) -> float:
    return metrics.CLUSTER_WATCH_EVENTS.labels(view.cluster, "Pod", event)._value.get()


def test_a_watch_that_hangs_in_silence_is_given_up(admin: Admin, namespace: str, follow: Follow, relay: Relay) -> None:
    timing = replace(QUICK, hang_seconds=3.0)
    with follow(url=f"https://127.0.0.1:{relay.port}", timing=timing, stale_after_seconds=10.0) as view:
        create(admin, namespace, "before")
        seen(view, namespace, "before")
        relay.mood = Mood.SILENT
        create(admin, namespace, "during")
        wait_until(lambda: view.stale, "the silence to be noticed", 30)
        assert names(view, namespace) == {"before"}
        relay.mood = Mood.PASS
        seen(view, namespace, "before", "during")
        wait_until(lambda: not view.stale, "the view to be right again")


def test_a_restarted_aggregator_still_knows_yesterday(
    plane: ControlPlane, admin: Admin, namespace: str, follow: Follow
) -> None:
    """The pod is gone before the second process starts; its address is another's by then."""
    memory = Memory()
    pods, ip = f"/api/v1/namespaces/{namespace}/pods", "10.244.9.9"
    with follow(store=memory) as first:
        create(admin, namespace, "asker", "10.244.9.1")
        create(admin, namespace, "before", ip)
        wait_until(lambda: len([p for p in first.snapshot.pods if p.namespace == namespace and p.ips]) == 2, "both")
        asker = next(p.uid for p in first.snapshot.pods if p.name == "asker")
        then = time.time() + 3
        wait_until(lambda: first.view.confirmed > then + 6, "the view to get past that")
    admin.delete(f"{pods}/before", now=True)
    create(admin, namespace, "after", ip)
    with follow(store=memory) as second:
        now = time.time() + 4
        wait_until(lambda: second.view.confirmed > now + 6, "the view to get past that")

        def owner(moment: float) -> str:
            what = FlowIdentity(
                cluster="c",
                node="node-1",
                pod_uid=asker,
                remote_ip=ip_address(ip),
                port=80,
                protocol=Protocol.TCP,
                direction=Direction.EGRESS,
            )
            answer = second.resolver.resolve(what, datetime.fromtimestamp(moment, UTC))
            return answer.dst_pod if isinstance(answer, Resolved) else "unknown"

        assert owner(then) == f"{namespace}/before"
        assert owner(now) == f"{namespace}/after"


def test_a_door_that_is_slammed_is_not_stormed(follow: Follow, relay: Relay) -> None:
    """Every kind asks again, but ever more seldom."""
    timing = Timing(first_wait_seconds=0.5, longest_wait_seconds=30.0)
    with follow(url=f"https://127.0.0.1:{relay.port}", timing=timing) as view:
        settled = {State.WATCHING, State.NOT_SERVED}
        wait_until(lambda: all(r.state in settled for r in view.reflectors.values()), "every kind to be followed")
        served = [r for r in view.reflectors.values() if r.state is State.WATCHING]
        relay.mood = Mood.SLAM
        wait_until(lambda: all(r.state is State.RETRYING for r in served), "every watch to break")
        before = relay.accepted
        time.sleep(10)  # the number of attempts in a span is the subject
        attempts = (relay.accepted - before) / len(served)
        assert attempts < 8, f"{attempts:.1f} attempts for each kind in 10 s"
        relay.mood = Mood.PASS
        wait_until(lambda: not view.stale and all(r.state is State.WATCHING for r in served), "to be followed", 90)


@pytest.mark.parametrize("resource", sorted({w.resource for w in WATCHED if w.resource != "configmaps"}))
def test_one_right_fewer_fails(plane: ControlPlane, admin: Admin, resource: str) -> None:
    role = next(d for d in yaml.safe_load_all(RBAC.read_text()) if d["kind"] == "ClusterRole")
    fewer = [
        {**rule, "resources": kept}
        for rule in role["rules"]
        if (kept := [r for r in rule["resources"] if r != resource])
    ]
    token = plane.token("wattle", "wattle-aggregator", expirationSeconds=3600)
    api = KubernetesApi.from_kubeconfig(plane.kubeconfig({"token": token}))

    def refused() -> set[str]:
        return {path for w in WATCHED for path in w.paths if _status(api, path, w.field_selector) == 403}

    expected = {path for w in WATCHED if w.resource == resource for path in w.paths}
    wait_until(lambda: refused() == set(), "all rights to be granted")
    try:
        admin.patch(CLUSTER_ROLE, {"rules": fewer})
        wait_until(lambda: refused() == expected, f"{sorted(expected)} to be refused")
    finally:
        admin.patch(CLUSTER_ROLE, {"rules": role["rules"]})
        api.close()


def _status(api: KubernetesApi, path: str, field_selector: str) -> int:
    try:
        api.get(path, {"limit": 1, "fieldSelector": field_selector})
    except ApiError as error:
        return error.status
    return 200


def test_a_right_that_is_taken_away_is_said(plane: ControlPlane, admin: Admin, follow: Follow) -> None:
    role = next(d for d in yaml.safe_load_all(RBAC.read_text()) if d["kind"] == "ClusterRole")
    timing = replace(QUICK, watch_seconds=2.0)
    admin.patch(CLUSTER_ROLE, {"rules": [r for r in role["rules"] if "cronjobs" not in r["resources"]]})
    try:
        with follow_without_jobs(plane, timing) as view:
            wait_until(lambda: [f for f in view.findings if f.code == "kind-forbidden"], "the finding")
            found = {f.subject for f in view.findings if f.code == "kind-forbidden"}
            assert found <= {"c: CronJob", "c: Job"}
    finally:
        admin.patch(CLUSTER_ROLE, {"rules": role["rules"]})


def follow_without_jobs(plane: ControlPlane, timing: Timing):
    token = plane.token("wattle", "wattle-aggregator", expirationSeconds=3600)
    api = KubernetesApi.from_kubeconfig(plane.kubeconfig({"token": token}))
    return running(KubernetesSource(api, cluster="c", timing=timing))


def test_config_maps_of_others_are_not_read(plane: ControlPlane) -> None:
    token = plane.token("wattle", "wattle-aggregator", expirationSeconds=3600)
    api = KubernetesApi.from_kubeconfig(plane.kubeconfig({"token": token}))
    assert _status(api, "/api/v1/namespaces/kube-system/configmaps", "") == 403
    assert _status(api, "/api/v1/secrets", "") == 403
    api.close()


def test_ten_thousand_pods(plane: ControlPlane, admin: Admin, follow: Follow) -> None:
    """Created and deleted while they are watched, and listed anew by a second view: both see the same. The last test
    of the tier: the namespace is left to die with the control plane.
    """
    total, namespace = 10_000, random_name("many")
    create_namespace(admin, namespace)

    def make(number: int) -> None:
        create(admin, namespace, f"p{number}", f"10.244.{100 + number // 250}.{number % 250 + 1}")

    def unmake(number: int) -> None:
        admin.delete(f"/api/v1/namespaces/{namespace}/pods/p{number}", now=True)

    def equal(one: KubernetesSource, other: KubernetesSource, count: int) -> bool:
        mine, theirs = (
            {(p.name, p.ips, p.workload) for p in view.snapshot.pods if p.namespace == namespace and p.ips}
            for view in (one, other)
        )
        return len(mine) == count and mine == theirs

    with ThreadPoolExecutor(8) as hands, follow() as view:
        list(hands.map(make, range(total)))
        with follow() as second:
            wait_until(lambda: equal(view, second, total), "both views to show all", 60)
            list(hands.map(unmake, range(0, total, 10)))
            wait_until(lambda: equal(view, second, total - total // 10), "both views to show who is left", 60)
