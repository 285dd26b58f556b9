"""Random small clusters with links and decisions, and the brute force that generated policies are judged by."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from aggregator.model.cluster import (
    ClusterSnapshot,
    ContainerPort,
    Namespace,
    Node,
    Pod,
    Service,
    ServiceBackend,
    ServicePort,
    WorkloadRecord,
)
from aggregator.model.decision import (
    Alias,
    Choice,
    Decisions,
    GeneralRule,
    PortRangeConsent,
    TypedCIDR,
)
from aggregator.model.endpoint import AddressEndpoint, Connection, Endpoint, NodeEndpoint, PodEndpoint
from aggregator.model.link import Confidence, Evidence, Link, ObservedLink
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import Explanation, Verdict
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.evaluation.opened import is_exempt

CLUSTER = "c"
NAMESPACES = ("app", "data", "kube-system")
PORTS = (53, 80, 81, 82, 83, 443, 8080)
OUTSIDE = (*(ip_address(f"203.0.113.{n}") for n in (1, 2, 3, 4, 8, 9, 77)), ip_address("2001:db8::5"))
NODES = (
    Node(name="n1", addresses=(ip_address("192.0.2.11"),)),
    Node(name="n2", addresses=(ip_address("192.0.2.12"), ip_address("2001:db8:1::12"))),
)
DNS = Workload(cluster=CLUSTER, namespace="kube-system", kind="Deployment", name="coredns")
API_BACKEND = ServiceBackend(ip=ip_address("192.0.2.1"), port=6443, protocol=Protocol.TCP, port_name="https")

_labels = st.dictionaries(
    st.sampled_from(("app", "tier", "version", "pod-template-hash", "team")),
    st.sampled_from(("a", "b", "1.2.3", "y", "deadbeef1")),
    max_size=3,
)


@dataclass(frozen=True, kw_only=True)
class World:
    cluster: ClusterSnapshot
    links: tuple[ObservedLink, ...]
    decisions: Decisions

    @property
    def workloads(self) -> tuple[Workload, ...]:
        return tuple(sorted(self.cluster.pods_by_workload))


@st.composite
def clusters(draw: st.DrawFn, *, labelled: bool = False) -> ClusterSnapshot:
    """Up to seven workloads in three namespaces, two nodes, sometimes with DNS. `labelled` = all can be told apart."""
    pods: list[Pod] = []
    records: list[WorkloadRecord] = []
    count = draw(st.integers(2, 6))
    for index in range(count):
        namespace = draw(st.sampled_from(NAMESPACES[:2]))
        kind = draw(st.sampled_from(("Deployment", "StatefulSet", "CronJob")))
        workload = Workload(cluster=CLUSTER, namespace=namespace, kind=kind, name=f"w{index}")
        labels = {**draw(_labels)}
        if labelled:
            labels["name"] = f"w{index}"
        replicas = draw(st.integers(0 if kind == "CronJob" else 1, 2))
        for replica in range(replicas):
            own = {**labels, "pod-template-hash": f"h{draw(st.integers(0, 1))}"}
            pods.append(
                Pod(
                    namespace=namespace,
                    name=f"w{index}-{replica}",
                    workload=workload,
                    uid=f"{index}-{replica}",
                    labels=tuple(sorted(own.items())),
                    ips=(ip_address(f"10.244.{index}.{replica + 1}"),),
                    ports=(ContainerPort(name="http", port=8080),),
                    node_name=draw(st.sampled_from(("n1", "n2"))),
                )
            )
        selector = tuple(sorted((k, v) for k, v in labels.items() if k in {"app", "name"}))
        if draw(st.booleans()) or not replicas:
            records.append(
                WorkloadRecord(
                    workload=workload,
                    selector=selector if draw(st.booleans()) else (),
                    template_labels=tuple(sorted(labels.items())),
                )
            )
    services: list[Service] = [
        Service(
            namespace="default",
            name="kubernetes",
            cluster_ips=(ip_address("10.96.0.1"),),
            ports=(ServicePort(name="https", port=443, target_port=6443),),
            backends=(API_BACKEND,),
        )
    ]
    if draw(st.booleans()):
        ip = ip_address("10.244.9.1")
        pods.append(
            Pod(
                namespace="kube-system",
                name="coredns-0",
                workload=DNS,
                uid="dns",
                labels=(("k8s-app", "kube-dns"),),
                ips=(ip,),
                ports=(ContainerPort(name="dns", port=5353, protocol=Protocol.UDP),),
                node_name="n1",
            )
        )
        services.append(
            Service(
                namespace="kube-system",
                name="kube-dns",
                cluster_ips=(ip_address("10.96.0.10"),),
                selector=(("k8s-app", "kube-dns"),),
                ports=(ServicePort(name="dns", port=53, protocol=Protocol.UDP, target_port="dns"),),
                backends=(ServiceBackend(ip=ip, port=5353, protocol=Protocol.UDP, port_name="dns", pod="coredns-0"),),
            )
        )
    return ClusterSnapshot(
        name=CLUSTER,
        namespaces=tuple(Namespace(name=name) for name in NAMESPACES),
        nodes=NODES,
        pods=tuple(pods),
        services=tuple(services),
        workloads=tuple(records),
        pod_cidrs=(ip_network("10.244.0.0/16"),),
        service_cidrs=(ip_network("10.96.0.0/12"),),
        cidrs_complete=True,
    )


def ends_of(cluster: ClusterSnapshot) -> list[LinkEnd]:
    records = {record.workload for record in cluster.workloads}
    workloads = sorted(set(cluster.pods_by_workload) | records)
    return [
        *workloads,
        Nodes(cluster=CLUSTER),
        ApiServer(cluster=CLUSTER),
        *(Address(cluster=CLUSTER, ip=ip) for ip in (*OUTSIDE, ip_address("10.244.200.9"), ip_address("127.0.0.1"))),
    ]


@st.composite
def link_sets(draw: st.DrawFn, cluster: ClusterSnapshot, *, plain: bool = False) -> tuple[ObservedLink, ...]:
    """Links with at least one workload. `plain` = established ones of high confidence only."""
    ends = ends_of(cluster)
    workloads = [end for end in ends if isinstance(end, Workload)]
    found: dict[Link, ObservedLink] = {}
    for _ in range(draw(st.integers(0, 10))):
        one, other = draw(st.sampled_from(workloads)), draw(st.sampled_from(ends))
        src, dst = (one, other) if draw(st.booleans()) else (other, one)
        link = Link(
            src=src,
            dst=dst,
            protocol=draw(st.sampled_from((Protocol.TCP, Protocol.TCP, Protocol.UDP)))
            if not isinstance(dst, ApiServer)
            else Protocol.TCP,
            port=6443 if isinstance(dst, ApiServer) else draw(st.sampled_from(PORTS)),
        )
        found[link] = ObservedLink(
            link=link,
            established=plain or draw(st.integers(0, 5)) > 0,
            evidence=Evidence(
                connections=draw(st.integers(0, 9)),
                confidence=Confidence.HIGH if plain or draw(st.integers(0, 5)) else Confidence.LOW,
                same_node_probe=not plain and isinstance(src, Nodes) and draw(st.booleans()),
            ),
        )
    return tuple(found.values())


@st.composite
def decision_sets(draw: st.DrawFn, cluster: ClusterSnapshot, links: Sequence[ObservedLink]) -> Decisions:
    workloads = [end for end in ends_of(cluster) if isinstance(end, Workload)]
    chosen = {
        row.link: draw(st.sampled_from((Choice.INCLUDE, Choice.EXCLUDE)))
        for row in links
        if draw(st.integers(0, 3)) == 0
    }
    rules = {
        (workload, direction): draw(st.sampled_from(list(GeneralRule)))
        for workload in workloads
        for direction in Direction
        if draw(st.integers(0, 5)) == 0
    }
    typed = tuple(
        TypedCIDR(
            workload=workload,
            direction=draw(st.sampled_from(list(Direction))),
            cidr=draw(st.sampled_from((ip_network("203.0.113.0/29"), ip_network("0.0.0.0/0")))),
            protocol=draw(st.sampled_from((None, Protocol.TCP))),
            port=None,
        )
        for workload in workloads
        if draw(st.integers(0, 7)) == 0
    )
    aliases = ()
    if draw(st.integers(0, 3)) == 0:
        aliases = (Alias(name="lan", networks=(ip_network("203.0.113.8/30"),), allowed=draw(st.booleans())),)
    ranges = tuple(
        PortRangeConsent(src=row.link.src, dst=row.link.dst, protocol=row.link.protocol, first=79, last=82)
        for row in links
        if not isinstance(row.link.dst, ApiServer) and draw(st.integers(0, 7)) == 0
    )
    return Decisions(
        port_ranges=tuple(dict.fromkeys(ranges)),
        links=tuple(chosen.items()),
        directions=tuple((workload, direction, rule) for (workload, direction), rule in rules.items()),
        typed_cidrs=typed,
        aliases=aliases,
    )


@st.composite
def worlds(draw: st.DrawFn, *, labelled: bool = False, plain: bool = False, decided: bool = True) -> World:
    cluster = draw(clusters(labelled=labelled))
    links = draw(link_sets(cluster, plain=plain))
    decisions = draw(decision_sets(cluster, links)) if decided else Decisions()
    return World(cluster=cluster, links=links, decisions=decisions)


# ---- brute force ---------------------------------------------------------------------------------------------------


def endpoints(cluster: ClusterSnapshot, end: LinkEnd) -> list[Endpoint]:
    match end:
        case Workload():
            return [PodEndpoint(pod=pod, ip=pod.ips[0]) for pod in cluster.pods_by_workload.get(end, ())]
        case Nodes():
            return [NodeEndpoint(node=node, ip=ip) for node in cluster.nodes for ip in node.addresses]
        case ApiServer():
            return [AddressEndpoint(ip=API_BACKEND.ip)]
        case Address(ip=ip):
            return [AddressEndpoint(ip=ip)]


def tries(cluster: ClusterSnapshot, link: Link) -> Iterator[Connection]:
    for src in endpoints(cluster, link.src):
        for dst in endpoints(cluster, link.dst):
            yield Connection(src=src, dst=dst, protocol=link.protocol, port=link.port)


def explained(
    policies: Sequence[NetworkPolicy], cluster: ClusterSnapshot, link: Link
) -> Iterator[tuple[Connection, Explanation]]:
    """Every pair behind a link that policies have a say in."""
    for connection in tries(cluster, link):
        said = evaluate(policies, cluster, connection)
        if not is_exempt(said):
            yield connection, said


def allowed_links(
    policies: Sequence[NetworkPolicy], cluster: ClusterSnapshot, links: Iterable[Link]
) -> frozenset[Link]:
    """The links of which any pair is allowed."""
    return frozenset(
        link for link in links if any(said.verdict is Verdict.ALLOWED for _, said in explained(policies, cluster, link))
    )


def universe(cluster: ClusterSnapshot) -> list[Link]:
    """Every pair of ends with a workload among them, at every port that matters and its neighbours."""
    ends = ends_of(cluster)
    ports = sorted({port + step for port in (*PORTS, 5353, 6443) for step in (-1, 0, 1)})
    return [
        Link(src=src, dst=dst, protocol=protocol, port=port)
        for src in ends
        for dst in ends
        if src != dst and (isinstance(src, Workload) or isinstance(dst, Workload))
        for protocol in (Protocol.TCP, Protocol.UDP)
        for port in ports
    ]
