"""Names and addresses of the cluster: two nodes on one fabric, and the world outside at the fabric's other end.

IPv4 comes first and IPv6 beside it, where the machine can (`without_ipv6`): whatever has an address has one of each of
FAMILIES. Names without a number are IPv4's, which every cluster here has.
"""

from dataclasses import dataclass

from tests.e2e.kube.machine import NAME, without_ipv6


@dataclass(frozen=True, slots=True)
class Family:
    version: int
    fabric: str
    gateway: str  # this process's side: the control plane, and where the outside world is reached
    pods: str
    services: str
    outside: str  # a server outside the cluster
    visitor: str  # a client outside the cluster
    nodes: str  # a node's address, but for its number
    settings: dict[str, str]  # below /proc/sys/net, of every network here

    @property
    def name(self) -> str:
        """As Kubernetes spells it."""
        return f"IPv{self.version}"

    @property
    def suffix(self) -> str:
        """Of the names of nftables' and iptables' things."""
        return "6" if self.version == 6 else ""

    @property
    def prefix(self) -> str:
        return self.fabric.rpartition("/")[2]

    @property
    def everything(self) -> str:
        return "::/0" if self.version == 6 else "0.0.0.0/0"

    @property
    def single(self) -> int:
        """The prefix length of one address."""
        return 128 if self.version == 6 else 32


IPV4 = Family(
    version=4,
    fabric="10.200.0.0/24",
    gateway="10.200.0.1",
    pods="10.244.0.0/16",
    services="10.96.0.0/16",
    outside="203.0.113.10",
    visitor="198.51.100.7",
    nodes="10.200.0.1",
    settings={"ipv4/ip_forward": "1", "ipv4/icmp_ratemask": "0", "bridge/bridge-nf-call-iptables": "1"},
)
IPV6 = Family(
    version=6,
    fabric="fd00:10:200::/64",
    gateway="fd00:10:200::1",
    pods="fd00:10:244::/56",
    services="fd00:10:96::/112",
    outside="2001:db8:113::10",
    visitor="2001:db8:100::7",
    nodes="fd00:10:200::1",
    # Without a look for duplicates (accept_dad) an address is of use at once.
    settings={
        "ipv6/conf/all/accept_dad": "0",
        "ipv6/conf/default/accept_dad": "0",
        "ipv6/conf/all/forwarding": "1",
        "ipv6/icmp/ratemask": "3-127",
        "bridge/bridge-nf-call-ip6tables": "1",
    },
)
WITHOUT_IPV6 = without_ipv6()  # the reason why not, or ""
FAMILIES = (IPV4,) if WITHOUT_IPV6 else (IPV4, IPV6)
GATEWAY = IPV4.gateway
API_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
DOMAIN = "cluster.local"
API_URL = f"https://{GATEWAY}:6443"
# Pods of one node meet on its bridge: without bridge-nf no packet of theirs would pass the enforcer's rules.
# A refusal is an ICMP message: were their rate limited (ratemask), some would look like silence.
SETTINGS = {key: value for family in FAMILIES for key, value in family.settings.items()}
POD_CIDRS = ",".join(family.pods for family in FAMILIES)
SERVICE_CIDRS = ",".join(family.services for family in FAMILIES)


@dataclass(frozen=True, slots=True)
class Node:
    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    def address(self, family: Family) -> str:
        return f"{family.nodes}{self.number}"

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self.address(family) for family in FAMILIES)

    @property
    def cgroup(self) -> str:
        """The kubelet's cgroupRoot: what tells this node's pods from the other's on one kernel."""
        return f"/{NAME}/{self.name}"


NODES = (Node(1), Node(2))
