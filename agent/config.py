# ruff: noqa: RUF009 - setting() makes dataclass fields
"""What a person can set, from the environment (WATTLE_<NAME>) and from flags, which win.

Enters: environment and command line. Leaves: one frozen `AgentConfig`, or ConfigError that names every fault at once.
Invariant: nothing else in the agent reads the environment.

A plain dataclass: pydantic-settings would keep 11 MB resident on every node for thirty values that are read once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX: Final = "WATTLE_"
_DOING: Final = "reading the settings: "
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_BACKENDS: Final = ("auto", "kprobe", "tracepoint")

Check = Callable[[Any], str]  # what is wrong with a value, or ""


def setting(default: Any, description: str, *, parse: Callable[[str], Any] = str, check: Check | None = None) -> Any:
    """A field with its meaning, and how text becomes a value."""
    metadata = {"description": description, "parse": parse, "check": check or (lambda _value: "")}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _between(least: float, most: float) -> Check:
    return lambda value: "" if least <= value <= most else f"{value} is not between {least} and {most}"


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _ports(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_label(value: str) -> str:
    return "" if _LABEL.fullmatch(value) else f"{value!r} is no DNS label (RFC 1123)"


def _is_name(value: str) -> str:
    return "" if 0 < len(value) <= 253 else "1 to 253 characters"


def _is_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    return "" if host and port.isdecimal() and 0 < int(port) < 1 << 16 else f"{value!r} is not host:port"


def _is_listening_address(value: str) -> str:
    return _is_address(value) if value else ""


def _is_backend(value: str) -> str:
    return "" if value in _BACKENDS else f"{value!r} is none of {', '.join(_BACKENDS)}"


def _are_ports(value: tuple[int, ...]) -> str:
    return "" if all(0 < port < 1 << 16 for port in value) else "ports are 1 to 65535"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Every setting, with its unit in its name."""

    cluster: str = setting("default", "Name of the cluster this node is in.", check=_is_label)
    node: str = setting(platform.node, "Name of this node.", check=_is_name)
    server: str = setting("127.0.0.1:8471", "The aggregator's FlowLink address, host:port.", check=_is_address)
    plaintext: bool = setting(default=False, description="Speak without TLS; only to loopback.", parse=_boolean)
    ca_file: Path | None = setting(None, "Certificate authority of the aggregator.", parse=Path)
    token_file: Path | None = setting(None, "Projected ServiceAccount token to present.", parse=Path)
    certificate_file: Path | None = setting(None, "This agent's certificate, instead of a token.", parse=Path)
    key_file: Path | None = setting(None, "Its key.", parse=Path)
    server_name: str = setting("", "Name in the aggregator's certificate, where it is not the host.")

    backend: str = setting("auto", "How to hook the kernel: auto, kprobe or tracepoint.", check=_is_backend)
    flow_entries: int = setting(65_536, "Flows one interval can hold.", parse=int, check=_between(16, 1 << 20))
    drain_interval_seconds: float = setting(5.0, "Length of an interval.", parse=float, check=_between(0.1, 60))
    report_interval_seconds: float = setting(30.0, "Between two NodeReports.", parse=float, check=_between(1, 600))
    open_interval_seconds: float = setting(
        300.0, "Between two looks at open connections.", parse=float, check=_between(1, 3600)
    )
    mesh_ports: tuple[int, ...] = setting(
        (15001, 15006),
        "Ports to which a mesh proxy redirects inside the pod; not links.",
        parse=_ports,
        check=_are_ports,
    )
    cidr_processes: tuple[str, ...] = setting(
        ("kube-apiserver", "kube-controller-manager"),
        "Processes whose arguments tell the cluster's address ranges.",
        parse=_words,
    )

    cgroup_root: Path = setting(Path("/sys/fs/cgroup"), "The node's cgroup file systems.", parse=Path)
    kubelet_cgroup: str = setting(
        "/", "The kubelet's cgroupRoot: only pods below it are this node's, where several nodes share a kernel."
    )
    proc_root: Path = setting(Path("/proc"), "The node's proc file system.", parse=Path)
    pod_logs: Path = setting(Path("/var/log/pods"), "The kubelet's log folders.", parse=Path)
    pin_directory: Path = setting(
        Path("/sys/fs/bpf/wattle"),
        "Where maps and programs outlive a killed agent; needs a bpf file system.",
        parse=Path,
    )
    spool_directory: Path | None = setting(None, "Where batches wait; memory alone when unset.", parse=Path)
    spool_memory_bytes: int = setting(
        8 << 20, "Bound of what waits in memory.", parse=int, check=_between(1 << 20, 1 << 40)
    )
    spool_disk_bytes: int = setting(
        128 << 20, "Bound of what waits on the disk.", parse=int, check=_between(8 << 20, 1 << 40)
    )
    http_listen: str = setting(
        "127.0.0.1:9464", "Health and metrics, host:port; empty for none.", check=_is_listening_address
    )

    def __post_init__(self) -> None:
        faults = []
        for field in dataclasses.fields(self):
            fault = field.metadata["check"](getattr(self, field.name))
            if fault:
                faults.append(f"{field.name}: {fault}")
        if (self.certificate_file is None) != (self.key_file is None):
            faults.append("certificate_file and key_file go together")
        if faults:
            raise ConfigError(f"{_DOING}{'; '.join(faults)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """What this run is for."""

    check: bool
    health: bool
    once: bool
    doctor: bool


def read_config(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[AgentConfig, Mode]:
    """Environment below, flags above; every field is a flag."""
    environment = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(prog="wattle-agent", description="Counts this node's flows and sends them.")
    parser.add_argument("--check", action="store_true", help="load, attach, self-test, say what was chosen, exit")
    parser.add_argument("--health", action="store_true", help="ask the running agent whether it is ready, exit")
    parser.add_argument(
        "--doctor", action="store_true", help="look at everything that can keep it from its work, say what to do, exit"
    )
    parser.add_argument("--once", action="store_true", help="drain once, wait until it is committed, exit")
    fields = dataclasses.fields(AgentConfig)
    for field in fields:
        flag, about = (
            f"--{field.name.replace('_', '-')}",
            f"{field.metadata['description']} [{PREFIX}{field.name.upper()}]",
        )
        if field.type == "bool":
            parser.add_argument(flag, action="store_const", const="true", help=about)
        else:
            parser.add_argument(flag, metavar="VALUE", help=about)
    flags = vars(parser.parse_args(arguments))
    given: dict[str, Any] = {}
    faults = []
    for field in fields:
        text = flags[field.name]
        text = environment.get(f"{PREFIX}{field.name.upper()}") or None if text is None else text
        if text is None:
            continue
        try:
            given[field.name] = field.metadata["parse"](text)
        except ValueError as exc:
            faults.append(f"{field.name}: {exc}")
    config: AgentConfig | None = None
    try:
        config = AgentConfig(**given)
    except ConfigError as exc:
        faults.append(str(exc).removeprefix(_DOING))
    if config is None or faults:
        raise ConfigError(f"{_DOING}{'; '.join(faults)}")
    return config, Mode(check=flags["check"], health=flags["health"], once=flags["once"], doctor=flags["doctor"])


def boot_id(proc: Path) -> str:
    """Names this boot; cgroup ids and namespace cookies hold within it."""
    return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def kernel_release() -> str:
    return os.uname().release
