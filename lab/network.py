"""The wires: one namespace for the outside world, one per node, one per pod; the host's own is never touched.

Pods hang on their node's bridge as isolated ports with /32 (/128) addresses, so that all their traffic is routed by the
node and its DNAT is undone on the way back. Pods leave the cluster under their node's address, as with any CNI.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.addresses import NodePlan
from lab.cgroups import PREFIX
from lab.errors import CommandError
from lab.settings import Address, Cidrs, Network

NETNS_FOLDER = Path("/run/netns")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BRIDGE = "pods"
# Left alone, a bridge takes the lowest MAC of its ports: a pod that comes or goes may change everyone's gateway.
BRIDGE_MAC = "02:77:61:74:74:6c"
UPLINK = "uplink"
# Addresses come from one hand: waiting a second or two for a duplicate only loses the first packets.
NO_DUPLICATES = {"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0"}
# Isolated ports would have the node answer with ICMP redirects to its own bridge: off.
FORWARDING = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv6/conf/all/forwarding": "1",
    **NO_DUPLICATES,
    # br_netfilter, where loaded, would bridge a packet to its new place right after DNAT, and isolation would drop it.
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-ip6tables": "0",
}


def run(*command: str, given: str | None = None) -> str:
    # Root's PATH after `su` may lack the sbin folders.
    environment = {"PATH": PATH, "LANG": "C.UTF-8"}
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise CommandError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def inside(netns: str, *command: str, given: str | None = None) -> str:
    return run("nsenter", f"--net={NETNS_FOLDER / netns}", *command, given=given)


def _configure(netns: str, lines: Sequence[str]) -> None:
    run("ip", "-n", netns, "-batch", "-", given="\n".join(lines) + "\n")


def _set(netns: str, settings: dict[str, str]) -> None:
    """Per-namespace sysctls; those of IPv6 are absent where the kernel has it disabled."""
    lines = [f"[ ! -e /proc/sys/net/{key} ] || echo {value} > /proc/sys/net/{key}" for key, value in settings.items()]
    inside(netns, "sh", "-ec", "\n".join(lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    lab: str
    cidrs: Cidrs

    @property
    def prefix(self) -> str:
        # A lab's name has no dot: the prefix of lab "a" is never a prefix of lab "a-b".
        return f"{PREFIX}{self.lab}."

    @property
    def world(self) -> str:
        return f"{self.prefix}world"

    def node(self, name: str) -> str:
        return f"{self.prefix}node.{name}"

    def pod(self, namespace: str, name: str) -> str:
        return f"{self.prefix}pod.{namespace}.{name}"

    def make_world(self, addresses: Sequence[Address]) -> None:
        run("ip", "netns", "add", self.world)
        _set(self.world, FORWARDING)
        lines = ["link set lo up", f"link add fabric address {BRIDGE_MAC} type bridge", "link set fabric up"]
        lines += [
            f"addr add {network[1]}/{network.prefixlen} dev fabric{_nodad(network)}" for network in self.cidrs.nodes
        ]
        lines += [f"addr add {address}/{address.max_prefixlen} dev lo" for address in addresses]
        _configure(self.world, lines)

    def make_nodes(self, nodes: Sequence[NodePlan]) -> None:
        for node in nodes:
            netns = self.node(node.name)
            run("ip", "netns", "add", netns)
            _set(netns, FORWARDING)
            # The last of the node's address names its port on the fabric: an interface name has 15 letters at most.
            port = f"node{int(node.addresses[0]) - int(self.cidrs.nodes[0][0])}"
            lines = [
                "link set lo up",
                f"link add {BRIDGE} address {BRIDGE_MAC} type bridge mcast_snooping 0",
                f"link set {BRIDGE} up",
            ]
            lines += [
                f"addr add {network[1]}/{network.prefixlen} dev {BRIDGE}{_nodad(network)}"
                for network in node.pod_networks
            ]
            lines += [f"link add {UPLINK} type veth peer name {port} netns {self.world}", f"link set {UPLINK} up"]
            for address, network in zip(node.addresses, self.cidrs.nodes, strict=True):
                lines += [
                    f"addr add {address}/{network.prefixlen} dev {UPLINK}{_nodad(network)}",
                    f"route add default via {network[1]} dev {UPLINK}",
                ]
            _configure(netns, lines)
            _configure(self.world, [f"link set {port} master fabric", f"link set {port} up"])
        for node in nodes:
            others = [other for other in nodes if other is not node]
            routes = [
                f"route add {network} via {address} dev {UPLINK}"
                for other in others
                for network, address in zip(other.pod_networks, other.addresses, strict=True)
            ]
            if routes:
                _configure(self.node(node.name), routes)

    def make_pod(self, netns: str, uid: str, node: NodePlan, addresses: Sequence[Address]) -> None:
        run("ip", "netns", "add", netns)
        if len(addresses) > 1:
            _set(netns, NO_DUPLICATES)
        port = f"veth{uid.replace('-', '')[:10]}"
        _configure(
            self.node(node.name),
            [
                f"link add {port} type veth peer name eth0 netns {netns}",
                f"link set {port} master {BRIDGE}",
                f"link set {port} type bridge_slave isolated on",
                f"link set {port} up",
            ],
        )
        lines = ["link set lo up", "link set eth0 up"]
        for address, gateway in zip(addresses, node.gateways, strict=True):
            lines += [
                f"addr add {address}/{address.max_prefixlen} dev eth0{' nodad' if address.version == 6 else ''}",
                f"route add default via {gateway} dev eth0 onlink",
            ]
        _configure(netns, lines)

    def drop(self, netns: str) -> None:
        run("ip", "netns", "del", netns)

    def left(self) -> list[str]:
        if not NETNS_FOLDER.is_dir():
            return []
        return sorted(found.name for found in NETNS_FOLDER.iterdir() if found.name.startswith(self.prefix))


def labs_left() -> set[str]:
    """Names of labs that have a network namespace, running or not."""
    if not NETNS_FOLDER.is_dir():
        return set()
    names = (found.name for found in NETNS_FOLDER.iterdir())
    return {n.removeprefix(PREFIX).partition(".")[0] for n in names if n.startswith(PREFIX) and "." in n}


def _nodad(network: Network) -> str:
    return " nodad" if network.version == 6 else ""
