"""The `lab:` section of a scenario file: what plain Kubernetes objects do not say (commands, traffic, lifetimes).

Enters: parsed YAML. Leaves: checked, immutable values. Nothing here knows any particular scenario.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
PortNumber = Annotated[int, Field(ge=1, le=65535)]
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$"
Comm = Annotated[str, StringConstraints(min_length=1, max_length=15)]
WorkloadKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Z][A-Za-z]+/[a-z0-9.-]+$")]
Listen = Annotated[str, StringConstraints(pattern=r"^(tcp|http|udp|statsd):[0-9]{1,5}$")]
Target = Annotated[str, StringConstraints(pattern=r"^(tcp|http|udp|statsd|redis|dns|dns\+tcp)://[^/\s]+(/\S*)?$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Call(Strict):
    """One thing that a client does in each round; a bare string is a call that must be answered."""

    to: Target
    expect: Literal["answer", "refused", "no-answer"] = "answer"
    family: Literal[4, 6] | None = None
    keep: bool = False
    """Keep the connection open for as long as the pod lives, as a pool does (tcp and redis only)."""
    times: Annotated[int, Field(ge=1, le=100)] = 1
    payload_bytes: Annotated[int, Field(ge=1, le=60_000)] = 64

    @model_validator(mode="before")
    @classmethod
    def from_string(cls, value: Any) -> Any:
        return {"to": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def kept_open_by_a_stream(self) -> "Call":
        if self.keep and not self.to.startswith(("tcp://", "redis://")):
            raise ValueError("only tcp:// and redis:// calls can be kept open; remove `keep`")
        return self


class Program(Strict):
    """What runs in a container: a real `command`, the cluster's `dns`, or the lab's own `listen` and `calls`."""

    command: tuple[str, ...] = ()
    files: dict[str, str] = {}
    dns: PortNumber | None = None
    process: Comm | None = None
    listen: tuple[Listen, ...] = ()
    calls: tuple[Call, ...] = ()
    round_seconds: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    lifetime_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None

    @model_validator(mode="after")
    def one_kind(self) -> "Program":
        kinds = [bool(self.command), self.dns is not None, bool(self.listen or self.calls)]
        if sum(kinds) != 1:
            raise ValueError("give exactly one of `command`, `dns`, or `listen` and/or `calls`")
        if not (self.listen or self.calls) and (self.process or self.lifetime_seconds):
            raise ValueError("`process` and `lifetime_seconds` go with `listen` or `calls`; remove them")
        return self


class Run(Strict):
    """How one workload runs."""

    containers: Annotated[dict[str, Program], Field(min_length=1)]
    every_seconds: Annotated[float, Field(ge=1, le=3600)] | None = None
    """CronJob only: the schedule, shortened to what a person waits for."""


class WorldHost(Strict):
    """One address outside the cluster, with the names that public DNS has for it."""

    address: Address
    names: tuple[str, ...] = ()
    program: Program


class TruthLink(Strict):
    """What really runs, for the lab's own tests: the lab never shows it to the product."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    protocol: Literal["TCP", "UDP"] = "TCP"
    port: PortNumber
    process: str | None = None


class Cidrs(Strict):
    pods: tuple[Network, ...] = (IPv4Network("10.244.0.0/16"),)
    services: tuple[Network, ...] = (IPv4Network("10.96.0.0/16"),)
    nodes: tuple[Network, ...] = (IPv4Network("172.18.0.0/24"),)

    @model_validator(mode="after")
    def same_families(self) -> "Cidrs":
        families = [sorted(n.version for n in group) for group in (self.pods, self.services, self.nodes)]
        if families[0] not in ([4], [4, 6]) or any(f != families[0] for f in families):
            raise ValueError("pods, services and nodes each need one IPv4 range, or each one IPv4 and one IPv6 range")
        for network in self.pods:
            if network.prefixlen > (24 if network.version == 4 else 64):
                raise ValueError(f"pods: {network} is too small; each node takes a /24 (IPv4) or /64 (IPv6)")
        return self


class LabSection(Strict):
    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
    select: WorkloadKey
    cgroup_driver: Literal["systemd", "cgroupfs"] = "systemd"
    domain: str = "cluster.local"
    cidrs: Cidrs = Cidrs()
    run: dict[WorkloadKey, Run]
    world: tuple[WorldHost, ...] = ()
    truth: tuple[TruthLink, ...] = ()
