"""Names and addresses of the cluster: two nodes on one fabric, and the world outside at the fabric's other end."""

from dataclasses import dataclass

from tests.e2e.kube.machine import NAME

FABRIC = "10.200.0.0/24"
GATEWAY = "10.200.0.1"  # this process's side: the control plane, and where the outside world is reached
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
DOMAIN = "cluster.local"
API_URL = f"https://{GATEWAY}:6443"
OUTSIDE = "203.0.113.10"  # a server outside the cluster
VISITOR = "198.51.100.7"  # a client outside the cluster


@dataclass(frozen=True, slots=True)
class Node:
    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        return f"10.200.0.1{self.number}"

    @property
    def cgroup(self) -> str:
        """The kubelet's cgroupRoot: what tells this node's pods from the other's on one kernel."""
        return f"/{NAME}/{self.name}"


NODES = (Node(1), Node(2))
