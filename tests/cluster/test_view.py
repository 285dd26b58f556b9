"""What the view says of a real API server's cluster, and that it never names the wrong owner."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from aggregator.cluster.resolve import LETTING_GO_SECONDS
from aggregator.cluster.watch import KubernetesSource
from aggregator.model.address import AddressClass
from aggregator.model.cidrs import classify
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity, NotYet, Resolution, Resolved
from aggregator.model.workload import ApiServer, Workload
from tests.cluster.conftest import Follow, create_namespace
from tests.cluster.controlplane import Admin, ControlPlane, random_name, wait_until
from tests.cluster.kubelet import Kubelet, Life, deployment, pod_spec, stamp


@pytest.fixture
def view(follow: Follow) -> Iterator[KubernetesSource]:
    with follow() as source:
        yield source


def workload(namespace: str, kind: str, name: str) -> Workload:
    return Workload(cluster="c", namespace=namespace, kind=kind, name=name)


def flow(remote: str, port: int = 80, *, pod_uid: str, node: str = "node-1") -> FlowIdentity:
    return FlowIdentity(
        cluster="c",
        node=node,
        pod_uid=pod_uid,
        remote_ip=ip_address(remote),
        port=port,
        protocol=Protocol.TCP,
        direction=Direction.EGRESS,
    )


def ask(view: KubernetesSource, what: FlowIdentity, at: float) -> Resolution:
    """The answer once the view is far enough past that time to have heard of everybody."""
    wait_until(lambda: view.view.confirmed > at + LETTING_GO_SECONDS, "the view to catch up")
    return view.resolver.resolve(what, datetime.fromtimestamp(at, UTC))


def destination(answer: Resolution) -> object:
    assert isinstance(answer, Resolved), answer
    return answer.link.dst


def pods_of(view: KubernetesSource, namespace: str) -> list[str]:
    return [pod.name for pod in view.snapshot.pods if pod.namespace == namespace and pod.ips and not pod.ended]


def test_a_rolling_update_is_one_workload(view: KubernetesSource, admin: Admin, namespace: str) -> None:
    with Kubelet(admin, namespace) as kubelet:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        admin.create(path, deployment("web", 3))
        wait_until(lambda: len(pods_of(view, namespace)) == 3, "three pods in the view")
        first = dict(kubelet.lives)
        admin.patch(f"{path}/web", {"spec": {"template": {"metadata": {"labels": {"release": "two"}}}}})
        wait_until(
            lambda: (
                admin.get(f"{path}/web")["status"].get("updatedReplicas") == 3
                and not (set(first) & {p.uid for p in view.snapshot.pods})
            ),
            "the rollout",
            60,
        )
        wait_until(lambda: len(pods_of(view, namespace)) == 3, "three new pods in the view")
        assert {p.workload for p in view.snapshot.pods if p.namespace == namespace} == {
            workload(namespace, "Deployment", "web")
        }
        asker = next(uid for uid in kubelet.lives if uid not in first)
        for life in first.values():
            middle = (life.since + life.until) / 2
            assert destination(ask(view, flow(life.ip, pod_uid=asker), middle)) == workload(
                namespace, "Deployment", "web"
            )


def test_a_service_is_the_workload_behind_it(view: KubernetesSource, admin: Admin, namespace: str) -> None:
    with Kubelet(admin, namespace) as kubelet:
        admin.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment("api", 2))
        made = admin.create(
            f"/api/v1/namespaces/{namespace}/services",
            {
                "metadata": {"name": "api"},
                "spec": {"selector": {"app": "api"}, "ports": [{"port": 80, "targetPort": 8080}]},
            },
        )
        wait_until(
            lambda: [len(s.backends) for s in view.snapshot.services if str(s) == f"{namespace}/api"] == [2],
            "both backends",
        )
        asker = next(iter(kubelet.lives))
        answer = ask(view, flow(made["spec"]["clusterIP"], 80, pod_uid=asker), time.time())
        assert destination(answer) == workload(namespace, "Deployment", "api")
        assert isinstance(answer, Resolved)
        assert (answer.link.port, answer.service) == (8080, f"{namespace}/api:80")


def test_a_cron_jobs_pod_is_the_cron_job_after_it_is_gone(view: KubernetesSource, admin: Admin, namespace: str) -> None:
    job_spec = {"template": {"metadata": {"labels": {"app": "nightly"}}, "spec": pod_spec(restartPolicy="Never")}}
    with Kubelet(admin, namespace, finish="nightly") as kubelet:
        cron = admin.create(
            f"/apis/batch/v1/namespaces/{namespace}/cronjobs",
            {
                "metadata": {"name": "nightly"},
                "spec": {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": job_spec}},
            },
        )
        owner = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "name": "nightly",
            "uid": cron["metadata"]["uid"],
            "controller": True,
        }
        jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        admin.create(jobs, {"metadata": {"name": "nightly-1", "ownerReferences": [owner]}, "spec": job_spec})
        wait_until(lambda: any(life.until < time.time() for life in kubelet.lives.values()), "the job's pod to end")
        life = next(iter(kubelet.lives.values()))
        wait_until(lambda: life.uid in view.view.history.pods, "the pod in the view")
        admin.call("DELETE", f"{jobs}/nightly-1", {"propagationPolicy": "Background"})
        wait_until(lambda: not [p for p in view.snapshot.pods if p.namespace == namespace], "the pod to be gone")
    answer = ask(view, flow("10.96.0.1", 443, pod_uid=life.uid), time.time())
    source = answer.link.src if isinstance(answer, Resolved) else answer.fallback.src if answer.fallback else None
    assert source == workload(namespace, "CronJob", "nightly")


def test_the_api_server_is_itself(view: KubernetesSource, admin: Admin, plane: ControlPlane, namespace: str) -> None:
    port = int(plane.url.rsplit(":", 1)[1])
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    admin.create(
        slices,
        {
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        },
    )
    try:
        with Kubelet(admin, namespace) as kubelet:
            admin.create(f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "one"}, "spec": pod_spec()})
            wait_until(lambda: pods_of(view, namespace), "the pod")
            uid = next(iter(kubelet.lives))
            for remote, at_port in (("10.96.0.1", 443), ("192.0.2.1", port)):
                answer = wait_until(
                    lambda r=remote, p=at_port: (
                        isinstance(a := ask(view, flow(r, p, pod_uid=uid), time.time()), Resolved) and a
                    ),
                    "an answer",
                )
                assert (destination(answer), answer.link.port) == (ApiServer(cluster="c"), port)
    finally:
        admin.delete(f"{slices}/kubernetes")


def test_the_clusters_ranges_are_found(view: KubernetesSource) -> None:
    wait_until(lambda: view.cidrs.complete, "the ranges")
    assert classify(ip_address("10.96.3.4"), view.cidrs).address_class is AddressClass.INTERNAL
    assert classify(ip_address("8.8.8.8"), view.cidrs).address_class is AddressClass.EXTERNAL
    assert [f.code for f in view.findings if f.code == "cluster-subnets-incomplete"] == []


def test_an_address_reused_at_once_is_never_given_to_the_wrong_pod(
    view: KubernetesSource, admin: Admin, namespace: str
) -> None:
    """The kubelet plays 15 owners of one address, each gone less than a second before the next comes."""
    kubelet, ip = Kubelet(admin, namespace), "10.244.1.250"
    pods = f"/api/v1/namespaces/{namespace}/pods"
    asker = admin.create(pods, {"metadata": {"name": "asker"}, "spec": pod_spec(nodeName="node-1")})
    lives: list[tuple[Life, Workload]] = []
    for number in range(15):
        name = f"owner-{number}"
        pod = admin.create(pods, {"metadata": {"name": name}, "spec": pod_spec(nodeName="node-1")})
        kubelet.start(pod, ip)
        life = kubelet.lives[pod["metadata"]["uid"]]
        time.sleep(0.3 if number % 3 else 4.0)  # short lives and long ones: the span is the subject, not readiness
        kubelet.let_go(life.uid)
        admin.delete(f"{pods}/{name}", now=True)
        lives.append((life, workload(namespace, "Pod", name)))
    asked, named = 0, 0
    for life, owner in lives:
        steps = 20
        for step in range(steps + 1):
            answer = ask(
                view,
                flow(ip, pod_uid=asker["metadata"]["uid"]),
                life.since + (life.until - life.since) * step / steps,
            )
            asked += 1
            if isinstance(answer, Resolved):
                named += 1
                assert answer.link.dst == owner
            else:
                assert isinstance(answer, NotYet)
    assert named > asked // 10, "it must not answer by never answering"


def test_a_deleted_namespace_leaves_the_view(view: KubernetesSource, admin: Admin) -> None:
    name = random_name("gone")
    create_namespace(admin, name)
    with Kubelet(admin, name):
        admin.create(f"/apis/apps/v1/namespaces/{name}/deployments", deployment("web", 2))
        admin.create(
            f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies",
            {"metadata": {"name": "p"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}},
        )
        wait_until(lambda: len(pods_of(view, name)) == 2, "the pods")
        wait_until(lambda: [p for p in view.snapshot.policies if p.namespace == name], "the policy")
        admin.delete(f"/api/v1/namespaces/{name}")
        wait_until(
            lambda: (
                name not in {n.name for n in view.snapshot.namespaces}
                and not [p for p in view.snapshot.pods if p.namespace == name]
                and not [w for w in view.snapshot.workloads if w.workload.namespace == name]
                and not [p for p in view.snapshot.policies if p.namespace == name]
            ),
            "everything of it to be gone",
            60,
        )


def test_a_host_network_pod_is_its_node(view: KubernetesSource, admin: Admin, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made = admin.create(pods, {"metadata": {"name": "h"}, "spec": pod_spec(nodeName="node-1", hostNetwork=True)})
    status = {"phase": "Running", "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}], "startTime": stamp()}
    admin.patch(f"{pods}/h/status", {"status": status})
    wait_until(lambda: [p for p in view.snapshot.pods if p.name == "h" and p.ips], "the pod")
    answer = ask(view, flow("192.0.2.2", 9100, pod_uid=made["metadata"]["uid"]), time.time())
    assert isinstance(answer, Resolved)
    assert (str(answer.link.src), str(answer.link.dst)) == ("nodes", "nodes")
