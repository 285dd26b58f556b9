"""What a person can set, from the environment (WATTLE_<NAME>) and from flags, which win.

Enters: environment and command line. Leaves: one frozen `AgentConfig`, or ConfigError that names every fault at once.
Invariant: nothing else in the agent reads the environment.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class AgentConfig(BaseSettings):
    """Every setting, with its unit in its name."""

    model_config = SettingsConfigDict(env_prefix="WATTLE_", frozen=True, extra="forbid", env_ignore_empty=True)

    cluster: str = Field(default="default", pattern=_DNS_LABEL, description="Name of the cluster this node is in.")
    node: str = Field(default_factory=platform.node, min_length=1, max_length=253, description="Name of this node.")
    server: str = Field(default="127.0.0.1:7443", description="The aggregator's FlowLink address, host:port.")
    plaintext: bool = Field(default=False, description="Speak without TLS; only to loopback.")
    ca_file: Path | None = Field(default=None, description="Certificate authority of the aggregator.")
    token_file: Path | None = Field(default=None, description="Projected ServiceAccount token to present.")
    certificate_file: Path | None = Field(default=None, description="This agent's certificate, instead of a token.")
    key_file: Path | None = Field(default=None, description="Its key.")
    server_name: str = Field(default="", description="Name in the aggregator's certificate, where it is not the host.")

    backend: str = Field(default="auto", pattern="^(auto|kprobe|tracepoint)$", description="How to hook the kernel.")
    flow_entries: int = Field(default=65_536, ge=16, le=1 << 20, description="Flows one interval can hold.")
    drain_interval_seconds: float = Field(default=5.0, ge=0.1, le=60, description="Length of an interval.")
    report_interval_seconds: float = Field(default=30.0, ge=1, le=600, description="Between two NodeReports.")
    open_interval_seconds: float = Field(default=300.0, ge=1, le=3600, description="Between looks at open connections.")
    mesh_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        default=(15001, 15006), description="Ports to which a mesh proxy redirects inside the pod; not links."
    )
    cidr_processes: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("kube-apiserver", "kube-controller-manager"),
        description="Processes whose arguments tell the cluster's address ranges.",
    )

    cgroup_root: Path = Field(default=Path("/sys/fs/cgroup"), description="The node's cgroup file systems.")
    proc_root: Path = Field(default=Path("/proc"), description="The node's proc file system.")
    pod_logs: Path = Field(default=Path("/var/log/pods"), description="The kubelet's log folders.")
    pin_directory: Path = Field(
        default=Path("/sys/fs/bpf/wattle"), description="Where maps outlive a killed agent; needs a bpf file system."
    )
    spool_directory: Path | None = Field(default=None, description="Where batches wait; memory alone when unset.")
    spool_memory_bytes: int = Field(default=8 << 20, ge=1 << 20, description="Bound of what waits in memory.")
    spool_disk_bytes: int = Field(default=128 << 20, ge=8 << 20, description="Bound of what waits on the disk.")
    http_listen: str = Field(default="127.0.0.1:9464", description="Health and metrics, host:port; empty for none.")

    @field_validator("mesh_ports", "cidr_processes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("server")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"{value!r} is not host:port")
        return value

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if self.plaintext:
            return self
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class Mode(argparse.Namespace):
    """What this run is for."""

    check: bool = False
    health: bool = False
    once: bool = False


def read_config(arguments: Sequence[str]) -> tuple[AgentConfig, Mode]:
    """Environment below, flags above; every field is a flag."""
    parser = argparse.ArgumentParser(prog="wattle-agent", description="Counts this node's flows and sends them.")
    parser.add_argument("--check", action="store_true", help="load, attach, self-test, say what was chosen, exit")
    parser.add_argument("--health", action="store_true", help="ask the running agent whether it is ready, exit")
    parser.add_argument("--once", action="store_true", help="drain once, wait until it is committed, exit")
    for name, field in AgentConfig.model_fields.items():
        flag = "--" + name.replace("_", "-")
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", default=None, help=field.description)
        else:
            parser.add_argument(flag, metavar="VALUE", default=None, help=field.description)
    parsed = vars(parser.parse_args(arguments))
    mode = Mode(**{name: parsed.pop(name) for name in ("check", "health", "once")})
    given = {name: value for name, value in parsed.items() if value is not None}
    try:
        return AgentConfig(**given), mode
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}" for fault in exc.errors()
        )
        raise ConfigError(f"reading the settings: {faults}") from exc


def boot_id(proc: Path) -> str:
    """Names this boot; cgroup ids and namespace cookies hold within it."""
    return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def kernel_release() -> str:
    return os.uname().release
