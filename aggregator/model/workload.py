"""Workload: the top owner of pods, and the ends that a Link can have."""

from dataclasses import dataclass

from aggregator.model.address import IPAddress

TRIAL = "wattle-verify"  # ConfigMaps named after it own the pods that try policies for real


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Workload:
    """The top owner: Deployment, StatefulSet, DaemonSet, CronJob, Job without a CronJob, ReplicaSet and Pod without an
    owner, and custom owners by their own kind.
    """

    cluster: str
    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"

    @property
    def is_trial(self) -> bool:
        """Pods of one run of `wattle verify`: gone in minutes, and nobody's workload."""
        return self.kind == "ConfigMap" and self.name.startswith(f"{TRIAL}-")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Nodes:
    """All nodes of a cluster as one end: hostNetwork pods, NodePort and LoadBalancer SNAT, kubelets."""

    cluster: str

    def __str__(self) -> str:
        return "nodes"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ApiServer:
    """The Kubernetes API server, by its Service address or one of its endpoints."""

    cluster: str

    def __str__(self) -> str:
        return "kubernetes API server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address that no pod, Service or node owned at that time. Its class and alias are computed on reading.

    With a `prefix_length` it is a whole network whose first address is `ip`: what the addresses of a workload with very
    many of them are rolled up to.
    """

    cluster: str
    ip: IPAddress
    prefix_length: int | None = None

    def __str__(self) -> str:
        return str(self.ip) if self.prefix_length is None else f"{self.ip}/{self.prefix_length}"


LinkEnd = Workload | Nodes | ApiServer | Address
