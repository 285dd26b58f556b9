"""Which pairs a verification tries: pods of the namespaces asked for, denied and allowed in turn, within the limit."""

from dataclasses import replace
from typing import Any

from aggregator.cluster.scenario import scenario_of
from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.verdict import Verdict
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.trial import USUAL_PORT, Trial, choose


def a_pod(name: str, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    owner = {"kind": "Deployment", "name": name}
    return {"namespace": namespace, "name": name, "labels": {"app": name}, "owner": owner, **more}


TO_DB = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "db", "namespace": "shop"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "db"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}],
    },
}
PORTS = [{"port": 5432}, {"port": 9187}, {"port": 53, "protocol": "UDP"}]
PODS = [a_pod("web"), a_pod("db", ports=PORTS), a_pod("far", namespace="other"), a_pod("node", hostNetwork=True)]


def cluster(*policies: dict[str, Any]) -> ClusterSnapshot:
    return scenario_of({"name": "t", "pods": PODS, "policies": list(policies)}).cluster


def chosen(found: Trial) -> dict[str, Verdict]:
    return {str(pair): pair.expected for pair in found.pairs}


def test_every_declared_tcp_port_of_the_namespace_and_nothing_beyond_it() -> None:
    found = choose(cluster(TO_DB), ["shop"], limit=10, profile=GENERIC)
    assert chosen(found) == {
        "shop/web -> shop/db:5432": Verdict.ALLOWED,
        "shop/web -> shop/db:9187": Verdict.DENIED,
        f"shop/db -> shop/web:{USUAL_PORT}": Verdict.ALLOWED,
    }
    assert found.left_out == found.unknown == 0
    assert "db" in next(pair.because for pair in found.pairs if pair.expected is Verdict.DENIED)


def test_a_limit_takes_from_both_kinds_and_tells_what_it_leaves_out() -> None:
    found = choose(cluster(TO_DB), ["shop"], limit=2, profile=GENERIC)
    assert sorted(pair.expected.value for pair in found.pairs) == ["allowed", "denied"]
    assert found.left_out == 1


def test_what_nobody_can_tell_is_counted_and_not_tried() -> None:
    theirs = ForeignPolicy(kind="CiliumNetworkPolicy", name="p", namespace="shop")
    view = replace(cluster(), extra_policies=(theirs,))
    found = choose(view, ["shop"], limit=10, profile=GENERIC)
    assert (found.pairs, found.unknown) == ((), 3)


def test_a_refused_pod_is_at_neither_end() -> None:
    view = cluster(TO_DB)
    [db] = [pod for pod in view.pods if pod.name == "db"]
    assert chosen(choose(view, ["shop"], limit=10, profile=GENERIC, refused=frozenset({db}))) == {}
