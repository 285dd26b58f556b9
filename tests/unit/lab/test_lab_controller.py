"""What the lab makes of workloads: owners, labels, hashes, UIDs, addresses, Services and what waits for them."""

import random
from copy import deepcopy
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from lab import cluster, controller, services
from lab.addresses import PodAddresses, ServiceAddresses, plan_nodes
from lab.cluster import admit_service
from lab.controller import Names, admit, expand, start_job, without
from lab.errors import ScenarioError
from lab.scenario import Scenario, load
from lab.services import Backend
from lab.settings import Cidrs, Run

LAB = Path(__file__).parents[3] / "lab"
DUAL = Cidrs.model_validate(
    {
        "pods": ["10.42.0.0/16", "fd00:10:42::/48"],
        "services": ["10.43.0.0/16", "fd00:10:43::/112"],
        "nodes": ["192.168.77.0/24", "fd00:77::/64"],
    }
)


@pytest.fixture
def names() -> Names:
    return Names(random.Random(1))


@pytest.fixture(scope="module")
def shop() -> Scenario:
    return load(LAB / "shop.yaml")


@pytest.fixture(scope="module")
def clinic() -> Scenario:
    return load(LAB / "clinic.yaml")


def expanded(scenario: Scenario, key: str, names: Names, node_names: tuple[str, ...] = ("a", "b")):
    nodes = plan_nodes(node_names, scenario.lab.cidrs)
    return expand(admit(dict(scenario.workloads())[key], names), scenario, nodes, names)


def test_a_deployments_pods_are_owned_through_a_replica_set(shop: Scenario, names: Names) -> None:
    (deployment, replica_set), plans = expanded(shop, "kube-system/Deployment/coredns", names)
    assert len(plans) == 2
    pod_hash = replica_set["metadata"]["labels"]["pod-template-hash"]
    assert replica_set["metadata"]["ownerReferences"][0]["uid"] == deployment["metadata"]["uid"]
    assert replica_set["spec"]["selector"]["matchLabels"]["pod-template-hash"] == pod_hash
    for plan in plans:
        meta = plan.manifest["metadata"]
        assert meta["ownerReferences"][0] == controller.owner_reference(replica_set)
        assert meta["labels"] == {"k8s-app": "kube-dns", "pod-template-hash": pod_hash}
        assert meta["name"].startswith(f"coredns-{pod_hash}-")
    assert len({plan.manifest["metadata"]["uid"] for plan in plans}) == 2


def test_the_template_hash_follows_the_template_alone() -> None:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "x"}]}}
    other = deepcopy(template)
    other["spec"]["containers"][0]["image"] = "x:2"
    assert controller.template_hash(template) == controller.template_hash(deepcopy(template))
    assert controller.template_hash(template) != controller.template_hash(other)


def test_ordinals_nodes_and_static_pods(shop: Scenario, clinic: Scenario, names: Names) -> None:
    _, ordinals = expanded(clinic, "clinic/StatefulSet/patientdb", names)
    assert [p.manifest["metadata"]["name"] for p in ordinals] == ["patientdb-0", "patientdb-1"]
    assert {p.manifest["spec"]["subdomain"] for p in ordinals} == {"patientdb"}
    _, per_node = expanded(shop, "monitoring/DaemonSet/node-exporter", names)
    assert [p.node for p in per_node] == ["a", "b"]
    _, (static,) = expanded(shop, "kube-system/Pod/kube-apiserver-node-1", names)
    meta = static.manifest["metadata"]
    assert len(meta["annotations"]["kubernetes.io/config.hash"]) == 32
    assert meta["annotations"]["kubernetes.io/config.hash"] != meta["uid"].replace("-", "")


def test_a_cron_job_has_pods_only_when_it_is_due(shop: Scenario, names: Names) -> None:
    (cron_job,), plans = expanded(shop, "example-java-app/CronJob/report", names)
    assert plans == []
    job, plan = start_job(cron_job, shop, 1_700_000_000, names)
    assert job["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    assert plan.workload == "example-java-app/CronJob/report"
    assert plan.manifest["metadata"]["labels"] == {
        "app": "report",
        "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
        "batch.kubernetes.io/job-name": "report-1700000000",
        "controller-uid": job["metadata"]["uid"],
        "job-name": "report-1700000000",
    }


def test_a_workload_can_be_left_out_but_not_the_selected_one(shop: Scenario) -> None:
    left = without(shop, ("example-java-app/client", "monitoring/Deployment/prometheus"))
    gone = {key for key, _ in shop.workloads()} - {key for key, _ in left.workloads()}
    assert gone == {"example-java-app/Deployment/client", "monitoring/Deployment/prometheus"}
    with pytest.raises(ScenarioError, match="no such workload; known: example-java-app/CronJob/report"):
        without(shop, ("example-java-app/nobody",))
    with pytest.raises(ScenarioError, match="is the selected workload; keep it"):
        without(shop, ("example-java-app/javaapp",))


def test_addresses_go_round_and_come_back_late() -> None:
    (node,) = plan_nodes(["n"], DUAL)
    free = PodAddresses(node)
    first = free.take()
    assert [str(a) for a in first] == ["10.42.0.2", "fd00:10:42::2"]
    free.give_back(first)
    assert str(free.take()[0]) == "10.42.0.3"
    taken = {free.take()[0] for _ in range(252)}
    assert len(taken) == 252
    assert ip_address("10.42.0.2") in taken
    with pytest.raises(ScenarioError, match="no pod address left"):
        free.take()


def test_nodes_have_ranges_of_their_own_and_run_out() -> None:
    first, second = plan_nodes(["a", "b"], DUAL)
    assert [str(n) for n in second.pod_networks] == ["10.42.1.0/24", "fd00:10:42:1::/64"]
    assert not set(first.addresses) & set(second.addresses)
    narrow = DUAL.model_copy(update={"pods": plan_nodes(["a"], DUAL)[0].pod_networks})
    with pytest.raises(ScenarioError, match="no room for 2 nodes"):
        plan_nodes(["a", "b"], narrow)


# ---- Services


def service(names: Names, cidrs: Cidrs = DUAL, **spec: object) -> dict:
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}], **spec},
    }
    return admit_service(manifest, ServiceAddresses(cidrs, []), names)


def backend(number: int, port: int, *, ready: bool = True, **spec: object) -> Backend:
    manifest = {
        "metadata": {
            "name": f"web-{number}",
            "namespace": "shop",
            "uid": f"u{number}",
            "labels": {"app": "web", "x": "y"},
        },
        "spec": {"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": port}]}], **spec},
    }
    addresses = (ip_address(f"10.42.0.{number}"), ip_address(f"fd00:10:42::{number}"))
    return Backend(manifest=manifest, addresses=addresses, node="a", ready=ready)


def rules(stored: dict, backends: list[Backend], names: Names) -> list[str]:
    found = [admit(item, names) for item in services.slices(stored, backends)]
    return [line.strip() for line in services.ruleset([stored], found, DUAL).splitlines() if "dnat" in line]


def test_a_named_target_port_is_each_pods_own(names: Names) -> None:
    stored = service(names)
    found = services.slices(stored, [backend(2, 8080), backend(3, 9090)])
    assert sorted(item["ports"][0]["port"] for item in found) == [8080, 9090]
    (rule,) = rules(stored, [backend(2, 8080), backend(3, 9090)], names)
    assert rule == (
        f"ip daddr {stored['spec']['clusterIP']} tcp dport 80 dnat to "
        "numgen random mod 2 map { 0 : 10.42.0.2 . 8080, 1 : 10.42.0.3 . 9090 }"
    )


def test_only_ready_pods_are_served(names: Names) -> None:
    stored = service(names)
    (rule,) = rules(stored, [backend(2, 8080), backend(3, 8080, ready=False)], names)
    assert rule.endswith("dnat to 10.42.0.2:8080")
    assert rules(stored, [backend(2, 8080, ready=False)], names) == []
    (found,) = services.slices(stored, [backend(3, 8080, ready=False)])
    assert found["endpoints"][0]["conditions"]["ready"] is False


def test_both_families_of_a_dual_stack_service(names: Names) -> None:
    stored = service(names, ipFamilyPolicy="RequireDualStack")
    assert stored["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    found = rules(stored, [backend(2, 8080)], names)
    assert [rule.split()[0] for rule in found] == ["ip", "ip6"]
    assert found[1].endswith("dnat to [fd00:10:42::2]:8080")
    single = service(names, cidrs=Cidrs(), ipFamilyPolicy="PreferDualStack")
    assert single["spec"]["ipFamilies"] == ["IPv4"]
    with pytest.raises(ScenarioError, match="asks for IPv6"):
        service(names, cidrs=Cidrs(), ipFamilyPolicy="RequireDualStack", ipFamilies=["IPv6"])


def test_a_headless_service_is_names_alone(names: Names) -> None:
    stored = service(names, clusterIP="None")
    backends = [backend(2, 8080, hostname="web-0", subdomain="web"), backend(3, 8080, ready=False)]
    assert rules(stored, backends, names) == []
    text = services.hosts([stored], backends, [], "cluster.local")
    assert text.splitlines() == ["10.42.0.2 web-0.web.shop.svc.cluster.local", "10.42.0.2 web.shop.svc.cluster.local"]


def test_a_pod_of_another_namespace_or_without_the_label_is_no_backend(names: Names) -> None:
    stored = service(names)
    elsewhere = backend(2, 8080)
    elsewhere.manifest["metadata"]["namespace"] = "other"
    unlabelled = backend(3, 8080)
    unlabelled.manifest["metadata"]["labels"] = {"x": "y"}
    assert services.selected(stored, [elsewhere, unlabelled]) == []
    assert services.selected(stored, [replace(backend(4, 8080), addresses=())]) == []


def test_the_cluster_has_what_every_cluster_has(clinic: Scenario, names: Names) -> None:
    nodes = plan_nodes(clinic.node_names(), clinic.lab.cidrs)
    found = {(i["kind"], i["metadata"]["name"]): i for i in cluster.cluster_objects(clinic, nodes, names)}
    assert found["Node", "ward-1"]["spec"]["podCIDRs"] == ["10.42.0.0/24", "fd00:10:42::/64"]
    assert found["ServiceCIDR", "kubernetes"]["spec"]["cidrs"] == ["10.43.0.0/16", "fd00:10:43::/112"]
    assert "podSubnet: 10.42.0.0/16,fd00:10:42::/48" in str(found["ConfigMap", "kubeadm-config"]["data"])
    for name in ("clinic", "default", "kube-system"):
        assert found["Namespace", name]["metadata"]["labels"]["kubernetes.io/metadata.name"] == name
    api = cluster.api_service(clinic, names)
    assert api["spec"]["clusterIP"] == "10.43.0.1"


def test_a_run_without_containers_is_refused() -> None:
    with pytest.raises(ValueError, match="containers"):
        Run.model_validate({"containers": {}})
