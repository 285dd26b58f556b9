"""Random small clusters and policies in which everything that decides a verdict happens often."""

from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from aggregator.model.adminpolicy import (
    Action,
    AdminPolicy,
    AdminPort,
    AdminRule,
    DomainNamesPeer,
    ForeignPolicy,
    NetworksPeer,
    NodesPeer,
    PodsPeer,
    Tier,
)
from aggregator.model.cluster import ClusterSnapshot, ContainerPort, Namespace, Node, Pod, Service
from aggregator.model.endpoint import AddressEndpoint, NodeEndpoint, PodEndpoint, ServiceEndpoint
from aggregator.model.networkpolicy import LabelSelector, Operator, Requirement
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.workload import Workload
from aggregator.policy.manifest.parse import parse_policy

NAMESPACES = ("x", "y", "z")
PORTS = (0, 1, 79, 80, 81, 82, 90, 8080, 65535)
UNSTATED = ip_address("0.0.0.0")
ADDRESSES = tuple(map(ip_address, ("10.0.0.77", "203.0.113.9", "fd00::9")))
CIDRS = ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/30", "192.0.2.0/24", "203.0.113.9/32", "::/0", "fd00::/8")

labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b", ""]), max_size=2)

raw_requirements = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["app", "tier", "ns"]),
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(st.sampled_from(["a", "b", "", "x"]), min_size=1, max_size=2),
        }
    ),
    st.fixed_dictionaries(
        {"key": st.sampled_from(["app", "tier", "ns"]), "operator": st.sampled_from(["Exists", "DoesNotExist"])}
    ),
)


def raw_selectors(values):
    return st.one_of(
        st.just({}),
        st.fixed_dictionaries({"matchLabels": values}),
        st.fixed_dictionaries({"matchExpressions": st.lists(raw_requirements, min_size=1, max_size=2)}),
    )


pod_selectors = raw_selectors(labels)
namespace_selectors = raw_selectors(
    st.one_of(
        st.fixed_dictionaries({"kubernetes.io/metadata.name": st.sampled_from(NAMESPACES)}),
        st.fixed_dictionaries({"ns": st.sampled_from(["x", "y"])}),
    )
)


@st.composite
def ip_blocks(draw):
    cidr = draw(st.sampled_from(CIDRS))
    inner = [other for other in CIDRS if _within(other, cidr)]
    block = {"cidr": cidr}
    if inner:
        block["except"] = draw(st.lists(st.sampled_from(inner), max_size=2))
    return {"ipBlock": block}


def _within(inner, outer):
    one, two = ip_network(inner), ip_network(outer)
    return one.version == two.version and one.prefixlen > two.prefixlen and one.subnet_of(two)


raw_peers = st.one_of(
    st.fixed_dictionaries({"podSelector": pod_selectors}),
    st.fixed_dictionaries({"namespaceSelector": namespace_selectors}),
    st.fixed_dictionaries({"podSelector": pod_selectors, "namespaceSelector": namespace_selectors}),
    ip_blocks(),
)
numbered_ports = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"protocol": st.sampled_from(["TCP", "UDP", "SCTP"])}),
    st.fixed_dictionaries({"port": st.sampled_from([80, 81, 8080])}, optional={"protocol": st.just("UDP")}),
    st.fixed_dictionaries({"port": st.just(80), "endPort": st.sampled_from([80, 82, 90])}),
)
named_ports = st.fixed_dictionaries(
    {"port": st.sampled_from(["http", "dns"])}, optional={"protocol": st.sampled_from(["TCP", "UDP"])}
)


def raw_rules(peers_key, ports=None):
    return st.fixed_dictionaries(
        {},
        optional={
            peers_key: st.lists(raw_peers, max_size=2),
            "ports": st.lists(st.one_of(numbered_ports, named_ports) if ports is None else ports, max_size=2),
        },
    )


def raw_policies(ports=None, *, empty_egress=True):
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just("networking.k8s.io/v1"),
            "kind": st.just("NetworkPolicy"),
            "metadata": st.fixed_dictionaries({"namespace": st.sampled_from(NAMESPACES), "name": st.just("p")}),
            "spec": st.fixed_dictionaries(
                {"podSelector": pod_selectors},
                optional={
                    "policyTypes": st.lists(
                        st.sampled_from(["Ingress", "Egress"]), min_size=1, max_size=2, unique=True
                    ),
                    "ingress": st.lists(raw_rules("from", ports), max_size=2),
                    "egress": st.lists(raw_rules("to", ports), min_size=0 if empty_egress else 1, max_size=2),
                },
            ),
        }
    )


def numbered(objects):
    """Policies with names of their own."""
    return [obj | {"metadata": obj["metadata"] | {"name": f"p{n}"}} for n, obj in enumerate(objects)]


native_policies = st.lists(raw_policies(), max_size=4).map(lambda objects: [parse_policy(o) for o in numbered(objects)])


# ---- admin tiers ----

selectors = st.one_of(
    st.just(LabelSelector()),
    st.builds(
        LabelSelector,
        match_labels=st.sampled_from([(), (("app", "a"),), (("app", "b"),)]),
        match_expressions=st.sampled_from([(), (Requirement(key="tier", operator=Operator.EXISTS),)]),
    ),
)
in_namespaces = st.sampled_from([LabelSelector(), LabelSelector(), LabelSelector(match_labels=(("ns", "x"),))])
pods_peers = st.builds(PodsPeer, namespace_selector=in_namespaces, pod_selector=st.none() | selectors)
admin_peers = st.one_of(
    pods_peers,
    st.builds(NodesPeer, selector=selectors),
    st.builds(NetworksPeer, cidrs=st.lists(st.sampled_from(CIDRS).map(ip_network), max_size=2).map(tuple)),
    st.just(DomainNamesPeer(names=("example.org",))),
)
admin_ports = st.one_of(
    st.builds(AdminPort, protocol=st.sampled_from(Protocol)),
    st.sampled_from(
        [
            AdminPort(protocol=Protocol.TCP, first=80, last=81),
            AdminPort(protocol=Protocol.UDP, first=80, last=80),
            AdminPort(name="http"),
            AdminPort(name="dns"),
        ]
    ),
)
admin_rules = st.builds(
    AdminRule,
    action=st.sampled_from(Action),
    peers=st.lists(admin_peers, max_size=2).map(tuple),
    ports=st.lists(admin_ports, max_size=2).map(tuple),
)
admin_policies = st.builds(
    AdminPolicy,
    kind=st.just("ClusterNetworkPolicy"),
    name=st.sampled_from(["one", "two", "three"]),
    tier=st.sampled_from(Tier),
    priority=st.integers(0, 2),
    subject=pods_peers,
    ingress=st.lists(admin_rules, max_size=3).map(tuple),
    egress=st.lists(admin_rules, max_size=3).map(tuple),
)
foreign_policies = st.builds(
    ForeignPolicy,
    kind=st.just("CiliumNetworkPolicy"),
    name=st.just("far"),
    namespace=st.sampled_from(["", "x"]),
    pod_selector=st.none() | selectors,
    directions=st.sampled_from([frozenset(Direction), frozenset({Direction.INGRESS})]),
)


# ---- clusters ----


def pod(namespace, name, *, ips, **more):
    workload = Workload(cluster="default", namespace=namespace, kind="Pod", name=name)
    return Pod(namespace=namespace, name=name, workload=workload, ips=ips, **more)


container_ports = st.lists(
    st.builds(
        ContainerPort,
        name=st.sampled_from(["http", "dns"]),
        port=st.sampled_from([80, 81, 8080]),
        protocol=st.sampled_from([Protocol.TCP, Protocol.UDP]),
    ),
    max_size=2,
).map(tuple)


@st.composite
def clusters(draw):
    nodes = tuple(
        Node(name=f"n{i}", addresses=(ip_address(f"192.0.2.{i}"),), labels=tuple(sorted(draw(labels).items())))
        for i in (1, 2)
    )
    pods = []
    for number in range(draw(st.integers(1, 4))):
        hosted = draw(st.sampled_from([False, False, False, True]))
        node = draw(st.sampled_from(["", "n1", "n2", "n3"]))
        addresses = [ip_address(f"10.0.0.{number + 1}")]
        if draw(st.booleans()):
            addresses.append(ip_address(f"fd00::{number + 1}"))
        if draw(st.sampled_from([False, False, False, True])):
            addresses = []
        pods.append(
            pod(
                draw(st.sampled_from(NAMESPACES)),
                f"p{number}",
                ips=tuple(addresses),
                labels=tuple(sorted(draw(labels).items())),
                ports=draw(container_ports),
                host_network=hosted,
                node_name=node,
                ended=draw(st.sampled_from([False, False, False, True])),
            )
        )
    service = Service(namespace="x", name="s", cluster_ips=(ip_address("10.96.0.1"),))
    return ClusterSnapshot(
        namespaces=(Namespace(name="x", labels=(("ns", "x"),)), Namespace(name="y")),
        nodes=nodes,
        pods=tuple(pods),
        services=(service,),
        pod_cidrs=draw(st.sampled_from([(), (ip_network("10.0.0.0/24"),)])),
    )


def all_ends(cluster):
    """Every pod by every address, and one of each other kind."""
    found = [PodEndpoint(pod=p, ip=ip) for p in cluster.pods for ip in p.ips or (UNSTATED,)]
    found += [NodeEndpoint(node=node, ip=node.addresses[0]) for node in cluster.nodes]
    found += [ServiceEndpoint(service=s, ip=s.cluster_ips[0]) for s in cluster.services]
    return found + [AddressEndpoint(ip=ip) for ip in ADDRESSES]
