"""Whose an address is when nobody owns it: by ranges that are known, and never by ranges that are not."""

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from aggregator.cluster.cidrs import incomplete_finding
from aggregator.cluster.discover import CidrDiscovery, SeenArgument, Told, discovered_cidrs
from aggregator.cluster.view import ClusterView
from aggregator.errors import InputError
from aggregator.model.address import AddressClass
from aggregator.model.cidrs import CidrRole, CidrSource, ClusterCidrs, classify
from tests.unit.cluster import objects


def view(*raws: dict[str, Any]) -> ClusterView:
    found = ClusterView("c")
    for raw in raws:
        found.apply(raw["kind"], raw, at=0)
    return found


def cidrs(*raws: dict[str, Any], **more: Any) -> ClusterCidrs:
    return discovered_cidrs(view(*raws), **more)


WHOLE = (objects.node("n1", "192.168.0.1", "10.244.1.0/24"), objects.service_cidr())


def test_outside_complete_ranges_is_external() -> None:
    found = cidrs(*WHOLE)
    assert found.complete
    assert classify(ip_address("8.8.8.8"), found).address_class is AddressClass.EXTERNAL
    assert incomplete_finding(found, "c") is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.244.1.9", "pod range 10.244.1.0/24 (Node n1 spec.podCIDRs)"),
        ("10.96.0.9", "service range 10.96.0.0/16 (ServiceCIDR kubernetes)"),
        ("192.168.0.1", "nodes"),
    ],
)
def test_inside_is_internal_and_says_where_that_is_from(address: str, reason: str) -> None:
    found = classify(ip_address(address), cidrs(*WHOLE))
    assert found.address_class is AddressClass.INTERNAL
    assert found.reason.endswith(reason)


@pytest.mark.parametrize(
    ("raws", "missing"),
    [
        ((), "pod and service"),
        ((objects.service_cidr(),), "pod"),
        ((objects.node("n1", "192.168.0.1", "10.244.1.0/24"),), "service"),
        ((*WHOLE, objects.node("n2", "192.168.0.2")), "pod"),  # one node's part is not known
    ],
)
def test_incomplete_ranges_make_the_rest_unknown(raws: tuple[Any, ...], missing: str) -> None:
    found = cidrs(*raws)
    answer = classify(ip_address("8.8.8.8"), found)
    assert answer.address_class is AddressClass.UNKNOWN
    assert missing in answer.reason
    finding = incomplete_finding(found, "c")
    assert finding is not None
    assert finding.code == "cluster-subnets-incomplete"
    for role in missing.split(" and "):
        assert f'"{role}_cidrs"' in finding.way_out


def test_process_arguments_complete_them() -> None:
    seen = [
        SeenArgument("cp", "kube-apiserver", "--service-cluster-ip-range", "10.96.0.0/12,fd00::/108"),
        SeenArgument("cp", "kube-controller-manager", "--cluster-cidr", "10.244.0.0/16"),
        SeenArgument("cp", "kube-apiserver", "--etcd-servers", "10.0.0.0/8"),
    ]
    found = cidrs(arguments=seen)
    assert found.complete
    assert found.of(CidrRole.SERVICE) == (ip_network("10.96.0.0/12"), ip_network("fd00::/108"))
    assert classify(ip_address("10.244.7.7"), found).reason.endswith(
        "(--cluster-cidr of kube-controller-manager on cp)"
    )


def test_kubeadm_config_completes_them() -> None:
    text = "networking:\n  podSubnet: 10.1.0.0/16,fd01::/48\n  serviceSubnet: 10.2.0.0/16\n"
    raw = {
        "kind": "ConfigMap",
        "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
        "data": {"ClusterConfiguration": text},
    }
    found = cidrs(raw)
    assert found.complete
    assert found.of(CidrRole.POD) == (ip_network("10.1.0.0/16"), ip_network("fd01::/48"))


def test_kubeadm_nonsense_is_left_alone() -> None:
    for text in ("]: [", "- a list", "networking: text", ""):
        raw = {
            "kind": "ConfigMap",
            "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
            "data": {"ClusterConfiguration": text},
        }
        assert not cidrs(raw).complete


def test_by_hand_wins() -> None:
    discovery, where = CidrDiscovery(), view(*WHOLE)
    discovery.set_by_hand([(CidrRole.POD, "10.50.0.0/16")])
    discovery.refresh(where)
    assert where.cidrs.of(CidrRole.POD) == (ip_network("10.50.0.0/16"),)
    assert classify(ip_address("10.244.1.9"), where.cidrs).address_class is AddressClass.EXTERNAL
    assert classify(ip_address("10.50.1.9"), where.cidrs).reason.endswith("(set by hand)")
    with pytest.raises(InputError, match="no CIDR"):
        discovery.set_by_hand([(CidrRole.POD, "10.50.0.0/33")])


def test_what_an_agent_saw_changes_the_class_at_once() -> None:
    discovery, where = CidrDiscovery(), view(objects.service_cidr())
    discovery.refresh(where)
    generation = where.generation
    assert classify(ip_address("8.8.8.8"), where.cidrs).address_class is AddressClass.UNKNOWN
    discovery.see_arguments([SeenArgument("cp", "kube-controller-manager", "--cluster-cidr", "10.244.0.0/16")])
    discovery.refresh(where)
    assert classify(ip_address("8.8.8.8"), where.cidrs).address_class is AddressClass.EXTERNAL
    assert where.generation > generation


def test_an_alias_names_an_address_and_the_narrowest_wins() -> None:
    aliases = {ip_network("203.0.113.0/24"): "the bank", ip_network("203.0.113.7/32"): "its mail"}
    found = classify(ip_address("203.0.113.7"), cidrs(*WHOLE), aliases)
    assert (found.address_class, found.alias) == (AddressClass.ALIASED, "its mail")
    assert classify(ip_address("203.0.113.8"), cidrs(*WHOLE), aliases).alias == "the bank"
    assert classify(ip_network("203.0.113.0/25"), cidrs(*WHOLE), aliases).alias == "the bank"
    assert classify(ip_network("203.0.0.0/16"), cidrs(*WHOLE), aliases).address_class is AddressClass.EXTERNAL


def test_an_alias_in_the_pods_or_services_ranges_does_not_count() -> None:
    """A rule for that name would be a rule for whichever pod has the address next."""
    for text, role in (("10.244.1.9", "pod"), ("10.96.0.9", "service")):
        found = classify(ip_address(text), cidrs(*WHOLE), {ip_network("10.0.0.0/8"): "odd"})
        assert (found.address_class, found.alias) == (AddressClass.INTERNAL, "")
        assert f"inside the cluster's {role} range" in found.reason
        assert "the alias 'odd' for 10.0.0.0/8 does not count there" in found.reason


def test_a_neighbour_of_the_nodes_may_have_a_name() -> None:
    near = CidrSource(role=CidrRole.NODE, cidr=ip_network("192.168.0.0/24"), found_in="set by hand", by_hand=True)
    found = classify(ip_address("192.168.0.77"), cidrs(*WHOLE, by_hand=[near]), {ip_network("192.168.0.77/32"): "nas"})
    assert (found.address_class, found.alias) == (AddressClass.ALIASED, "nas")
    assert "inside the cluster's node range" in found.reason


@pytest.mark.parametrize("typed", ["10.244.0.0/15", "10.244.1.128/25", "10.0.0.0/8", "192.168.0.0/24", "0.0.0.0/0"])
def test_a_typed_cidr_that_touches_the_cluster_is_explained(typed: str) -> None:
    found = classify(ip_network(typed), cidrs(*WHOLE))
    assert found.address_class is AddressClass.INTERNAL
    assert "inside the cluster's" in found.reason


def test_families_do_not_mix() -> None:
    found = cidrs(*WHOLE)
    assert classify(ip_address("2001:db8::1"), found).address_class is AddressClass.EXTERNAL
    assert classify(ip_network("2001:db8::/32"), found).address_class is AddressClass.EXTERNAL


async def test_what_the_store_has_is_followed() -> None:
    discovery, where = CidrDiscovery(), view()
    said = iter([Told(), Told([SeenArgument("", "kube-apiserver", "--service-cluster-ip-range", "10.9.0.0/16")])])
    asked = asyncio.Event()

    def ask() -> Told:
        told = next(said, None)
        if told is None:
            loop.call_soon_threadsafe(asked.set)
            return Told(by_hand=[(CidrRole.POD, "10.8.0.0/16")])
        return told

    loop = asyncio.get_running_loop()
    following = asyncio.create_task(discovery.follow(ask, every_seconds=0))
    async with asyncio.timeout(10):
        await asked.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    discovery.set_by_hand([(CidrRole.POD, "10.8.0.0/16")])
    discovery.refresh(where)
    assert where.cidrs.complete
    assert [s.found_in for s in where.cidrs.sources] == ["set by hand", "--service-cluster-ip-range of kube-apiserver"]
