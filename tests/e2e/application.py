"""The application under test: its parts, and its real graph as data. The graph is what its plans do, written once.

Three namespaces. `shop`: web, api, cart, rates, a CronJob and a Job of half a second. `data`: cache (redis), db
(PostgreSQL), queue (a headless StatefulSet whose pods talk to each other), worker. `ops`: metrics (UDP), scraper, and
exporter, a DaemonSet on the nodes' own network. From outside, a visitor comes through web's NodePort, and api calls a
partner outside the cluster.

Where the cluster is dual-stack, links are IPv4's, IPv6's or both's: by what families a Service has, and by a number at
the end of a call's scheme (`family_of`). A link is one link, whatever its packets look like.
"""

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.kube.layout import FAMILIES, IPV4, NODES, Family

NODE_PORT = 30080
PARTNER_PORT = 8443
NAMESPACES = ("shop", "data", "ops")
DNS = "kube-system/Deployment/kube-dns"
ONLY_IPV4 = (IPV4,)
ONLY_NEWEST = FAMILIES[-1:]  # IPv6, where there is any
OVER = str(FAMILIES[-1].version)  # the same, at the end of a scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One workload: what listens, what it calls, and by which names its ports go."""

    namespace: str
    kind: str
    name: str
    replicas: int = 1
    listen: tuple[str, ...] = ()
    ports: dict[str, int] = field(default_factory=dict)  # named container ports
    service: dict[int, str] = field(default_factory=dict)  # service port -> targetPort's name
    calls: tuple[dict[str, Any], ...] = ()
    command: tuple[str, ...] = ("/usr/bin/python3", "/app/app.py")
    host_network: bool = False
    headless: bool = False
    node_port: int = 0
    families: tuple[Family, ...] = FAMILIES  # of its Service
    process: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"

    def protocol_of(self, port: int) -> str:
        told = {int(each.partition(":")[2]): each.partition(":")[0] for each in self.listen}
        return "UDP" if told.get(port) in UDP else "TCP"

    @property
    def comm(self) -> str:
        return self.process or self.name


def at(address: str) -> str:
    """An address as URLs have it."""
    return f"[{address}]" if ":" in address else address


def _call(to: str, **more: Any) -> dict[str, Any]:
    return {"to": to, **more}


PARTS = (
    Part(
        namespace="shop",
        kind="Deployment",
        name="web",
        replicas=2,
        listen=("http:8080",),
        ports={"http": 8080},
        service={80: "http"},
        node_port=NODE_PORT,
        calls=(_call(f"http{OVER}://api:80"), _call("tcp://cart:9000", keep=True)),
    ),
    Part(
        namespace="shop",
        kind="Deployment",
        name="api",
        replicas=2,
        listen=("http:8081",),
        ports={"http": 8081},
        service={80: "http"},
        calls=(
            _call("redis://cache.data:6379"),
            _call("postgres4://db.data:5432", every=1.0),
            _call("udp://rates:5005"),
            *(_call(f"tcp://{at(family.outside)}:{PARTNER_PORT}") for family in FAMILIES),
        ),
    ),
    Part(
        namespace="shop",
        kind="Deployment",
        name="cart",
        listen=("tcp:50051",),
        ports={"grpc": 50051},
        service={9000: "grpc"},
        families=ONLY_NEWEST,
        calls=(_call("redis://cache.data:6379", keep=True),),
    ),
    Part(
        namespace="shop",
        kind="Deployment",
        name="rates",
        listen=("udp:5005",),
        ports={"quote": 5005},
        service={5005: "quote"},
        families=ONLY_NEWEST,
    ),
    Part(namespace="shop", kind="CronJob", name="report", calls=(_call("http4://api:80"),)),
    Part(namespace="shop", kind="Job", name="migrate", calls=(_call("postgres4://db.data:5432"),)),
    Part(
        namespace="data",
        kind="Deployment",
        name="cache",
        command=("redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""),
        ports={"redis": 6379},
        service={6379: "redis"},
        families=ONLY_IPV4,
        process="redis-server",
    ),
    Part(
        namespace="data",
        kind="Deployment",
        name="db",
        command=("/usr/bin/python3", "/app/postgres.py"),
        ports={"sql": 5432},
        service={5432: "sql"},
        process="postgres",
    ),
    Part(
        namespace="data",
        kind="StatefulSet",
        name="queue",
        replicas=2,
        listen=("tcp:5672", "http:8090"),
        ports={"amqp": 5672, "metrics": 8090},
        service={5672: "amqp", 8090: "metrics"},
        headless=True,
        calls=(_call("tcp4://queue-0.queue:5672"), _call(f"tcp{OVER}://queue-1.queue:5672")),
    ),
    Part(
        namespace="data",
        kind="Deployment",
        name="worker",
        calls=(
            _call(f"tcp{OVER}://queue-0.queue:5672", keep=True),
            _call("tcp4://queue:5672"),
            _call(f"postgres{OVER}://db:5432", every=1.0),
            _call(f"statsd{OVER}://metrics.ops:8125"),
        ),
    ),
    Part(
        namespace="ops",
        kind="Deployment",
        name="metrics",
        listen=("statsd:8125",),
        ports={"statsd": 8125},
        service={8125: "statsd"},
    ),
    Part(
        namespace="ops",
        kind="DaemonSet",
        name="exporter",
        listen=("http:9100",),
        ports={"scrape": 9100},
        host_network=True,
        calls=(_call("statsd4://metrics.ops:8125"),),
    ),
    Part(
        namespace="ops",
        kind="Deployment",
        name="scraper",
        calls=(
            _call("http4://web.shop:80"),
            _call(f"http{OVER}://queue.data:8090"),
            *(_call(f"http://{at(address)}:9100") for node in NODES for address in node.addresses),
        ),
    ),
)
UDP = {"udp", "statsd"}
OUTSIDERS = {family.outside for family in FAMILIES}
ON_NODES = {address for node in NODES for address in node.addresses}
# What an evaluator must be shown of the cluster.
LISTED = (
    ("v1", "Namespace", "/api/v1/namespaces"),
    ("v1", "Node", "/api/v1/nodes"),
    ("v1", "Pod", "/api/v1/pods"),
    ("v1", "Service", "/api/v1/services"),
    ("apps/v1", "Deployment", "/apis/apps/v1/deployments"),
    ("apps/v1", "ReplicaSet", "/apis/apps/v1/replicasets"),
    ("apps/v1", "StatefulSet", "/apis/apps/v1/statefulsets"),
    ("apps/v1", "DaemonSet", "/apis/apps/v1/daemonsets"),
    ("networking.k8s.io/v1", "NetworkPolicy", "/apis/networking.k8s.io/v1/networkpolicies"),
)
BY_SERVICE = {(part.namespace, part.name): part for part in PARTS if part.service}


NODES_END = "nodes"  # what sits on a node's own network speaks with the node's address: a policy knows no pod there


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """One link of the real graph."""

    src: str
    dst: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.src} -> {self.dst} {self.protocol}/{self.port}"


@dataclass(frozen=True, slots=True)
class Ends:
    """The processes at both ends, as the kernel names them; "" where the end is no pod."""

    client: str
    server: str


def graph() -> dict[Edge, Ends]:
    """Every link that the application really makes, by what its parts are told to do."""
    found = {Edge(NODES_END, BY_SERVICE["shop", "web"].key, "TCP", 8080): Ends("", "web")}  # by the NodePort
    for part in PARTS:
        for call in part.calls:
            found[edge_of(part, call["to"])] = Ends(part.comm, _server(part, call["to"]))
        names = {_host(call["to"]) for call in part.calls} - OUTSIDERS - ON_NODES
        if names and not part.host_network:
            found[Edge(part.key, DNS, "UDP", 53)] = Ends(part.comm, "dnsmasq")
    return found


def edge_of(part: Part, to: str) -> Edge:
    parts = urlsplit(to)
    host, port = _host(to), parts.port or 0
    protocol = "UDP" if parts.scheme.rstrip("46") in UDP else "TCP"
    source = NODES_END if part.host_network else part.key
    if host in OUTSIDERS:
        return Edge(source, f"address/{host}", protocol, port)
    if host in ON_NODES:
        return Edge(source, NODES_END, protocol, port)
    target = _target(part, host)
    return Edge(source, target.key, protocol, target.ports[target.service[port]])


def _server(part: Part, to: str) -> str:
    host = _host(to)
    if host in OUTSIDERS:
        return ""
    return "exporter" if host in ON_NODES else _target(part, host).comm


def family_of(part: Part, to: str) -> int:
    """The version of IP that a call goes over: its scheme's, its address's, or the only one that its Service has."""
    scheme, host = urlsplit(to).scheme, _host(to)
    if scheme[-1].isdigit():
        return int(scheme[-1])
    if host in OUTSIDERS | ON_NODES:
        return ip_address(host).version
    [family] = _target(part, host).families
    return family.version


def _host(to: str) -> str:
    return urlsplit(to).hostname or ""


def _target(part: Part, host: str) -> Part:
    """Of SERVICE, SERVICE.NAMESPACE or POD.SERVICE."""
    first, _, rest = host.partition(".")
    if rest in NAMESPACES:
        return BY_SERVICE[rest, first]
    return BY_SERVICE[part.namespace, rest or first]
