"""One pod: its network namespace, its containers' cgroups, log folders and processes, and what its status says.

Enters: a PodPlan and a node. Leaves: running processes that a kubelet's node could not be told from by cgroup, network
namespace or log folder. The supervisor alone changes a pod.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.addresses import NodePlan
from lab.cgroups import CgroupTree, container_path, quality_of_service
from lab.controller import Names, PodPlan, timestamp
from lab.network import NETNS_FOLDER, PATH, Wires
from lab.scenario import Manifest
from lab.settings import Address, Program

HERE = Path(__file__).parent
# The real interpreter: through a virtual environment's link, each start would look for it again.
INTERPRETER = os.path.realpath(sys.executable)
TCP_LISTEN = 0x0A
UDP_UNCONNECTED = 0x07
Entry = dict[str, Any]
"""The one argument of enter.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is the same for every pod of a lab."""

    state: Path
    wires: Wires
    cgroups: CgroupTree
    driver: str
    domain: str
    names: Names


@dataclass(slots=True, kw_only=True)
class Container:
    name: str
    program: Program
    ports: tuple[tuple[str, int], ...]
    container_id: str = ""
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started_at: str = ""
    finished_at: str = ""
    exit_code: int | None = None

    def listening(self) -> bool:
        """Alive, and every port it offers is open in its own namespace: readiness without a single packet."""
        if self.process is None or self.exit_code is not None:
            return False
        return all(is_open(self.process.pid, protocol, port) for protocol, port in self.ports)


@dataclass(slots=True, kw_only=True)
class Pod:
    plan: PodPlan
    manifest: Manifest
    node: NodePlan
    addresses: tuple[Address, ...]
    netns: str
    nameserver: str | None
    containers: list[Container] = field(default_factory=list)
    ready: bool = False
    checked_monotonic: float = 0.0
    finished_at: str = ""
    finished_monotonic: float = 0.0

    def visible(self) -> tuple[object, ...]:
        """Changes whenever something changes that objects, Services or DNS show of this pod."""
        containers = tuple((c.container_id, c.exit_code) for c in self.containers)
        return (self.manifest["metadata"]["uid"], self.ready, self.finished_at, containers)

    @property
    def host_network(self) -> bool:
        return bool(self.manifest["spec"].get("hostNetwork"))

    @property
    def name(self) -> str:
        meta = self.manifest["metadata"]
        return f"{meta['namespace']}/{meta['name']}"

    @property
    def cgroup_uid(self) -> str:
        """A static pod's cgroup and log folder carry the hash of its file, which its mirror's UID is not."""
        meta = self.manifest["metadata"]
        uid: str = meta.get("annotations", {}).get("kubernetes.io/config.hash", meta["uid"])
        return uid

    @property
    def log_folder(self) -> str:
        meta = self.manifest["metadata"]
        return f"{meta['namespace']}_{meta['name']}_{self.cgroup_uid}"

    def cgroup(self, container: Container, driver: str) -> str:
        return container_path(driver, quality_of_service(self.manifest), self.cgroup_uid, container.container_id)


def is_job(plan: PodPlan) -> bool:
    return plan.workload.split("/")[1] in {"Job", "CronJob"}


def is_static(manifest: Manifest) -> bool:
    return "kubernetes.io/config.mirror" in manifest["metadata"].get("annotations", {})


def serves_dns(plan: PodPlan) -> bool:
    return any(program.dns is not None for program in plan.run.containers.values())


def asks_cluster_dns(manifest: Manifest) -> bool:
    """The kubelet's rule: dnsPolicy, which hostNetwork turns into Default unless it says ...WithHostNet."""
    policy = manifest["spec"].get("dnsPolicy", "ClusterFirst")
    return policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not manifest["spec"].get("hostNetwork"))


def new_pod(plan: PodPlan, node: NodePlan, addresses: tuple[Address, ...], nameserver: str | None, place: Place) -> Pod:
    meta = plan.manifest["metadata"]
    spec = plan.manifest["spec"]
    host = bool(spec.get("hostNetwork"))
    spec["nodeName"] = node.name
    containers = []
    for item in spec["containers"]:
        program = plan.run.containers[item["name"]]
        containers.append(Container(name=item["name"], program=program, ports=offered_ports(item, program)))
    return Pod(
        plan=plan,
        manifest=plan.manifest,
        node=node,
        addresses=node.addresses if host else addresses,
        netns=place.wires.node(node.name) if host else place.wires.pod(meta["namespace"], meta["name"]),
        nameserver=nameserver,
        containers=containers,
    )


def offered_ports(container: dict[str, Any], program: Program) -> tuple[tuple[str, int], ...]:
    if program.dns is not None:
        return (("tcp", program.dns), ("udp", program.dns))
    if program.command:
        return tuple((p.get("protocol", "TCP").lower(), p["containerPort"]) for p in container.get("ports", []))
    split = [wanted.split(":") for wanted in program.listen]
    return tuple(("tcp" if protocol in {"tcp", "http"} else "udp", int(port)) for protocol, port in split)


def start(pod: Pod, place: Place) -> None:
    if not pod.host_network:
        place.wires.make_pod(pod.netns, pod.manifest["metadata"]["uid"], pod.node, pod.addresses)
    for container in pod.containers:
        start_container(pod, container, place)


def start_container(pod: Pod, container: Container, place: Place) -> None:
    meta = pod.manifest["metadata"]
    container.container_id = place.names.container_id()
    container.exit_code = None
    folder = place.state / "run" / meta["uid"] / container.name
    folder.mkdir(parents=True, exist_ok=True)
    write_container_files(pod, container, folder, place)
    logs = place.state / "pods" / pod.log_folder / container.name
    logs.mkdir(parents=True, exist_ok=True)
    cgroups = place.cgroups.make(pod.cgroup(container, place.driver))
    plan = entry(pod, folder, [str(path) for path in cgroups])
    plan["command"] = command_line(pod, container, folder, place)
    container.process = launch(plan, logs / f"{container.restarts}.log")
    container.started_at = timestamp()


def launch(plan: Entry, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        return subprocess.Popen(
            enter_command(plan), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )


def enter_command(plan: Entry) -> list[str]:
    return [INTERPRETER, "-I", "-S", str(HERE / "enter.py"), json.dumps(plan)]


def own_files(folder: Path) -> dict[str, str]:
    """What a pod has under its own /etc, by bind mounts in its own mount namespace."""
    return {"/etc/resolv.conf": str(folder / "resolv.conf"), "/etc/hosts": str(folder / "hosts")}


def entry(pod: Pod, folder: Path, cgroups: list[str]) -> Entry:
    """What enter.py needs to become part of this pod."""
    return {
        "cgroups": cgroups,
        "netns": str(NETNS_FOLDER / pod.netns),
        "binds": own_files(folder),
        "hostname": pod.manifest["metadata"]["name"],
        "environment": {"PATH": PATH, "HOSTNAME": pod.manifest["metadata"]["name"], "LANG": "C.UTF-8"},
        "inherit": False,
        "folder": str(folder),
    }


def write_container_files(pod: Pod, container: Container, folder: Path, place: Place) -> None:
    search = f"{pod.manifest['metadata']['namespace']}.svc.{place.domain} svc.{place.domain} {place.domain}"
    lines = []
    if pod.nameserver:
        # The kubelet writes the same but for the timeout; nobody here waits 5 s for a server that is still starting.
        lines = [f"search {search}", f"nameserver {pod.nameserver}", "options ndots:5 timeout:1 attempts:2"]
    (folder / "resolv.conf").write_text("\n".join(lines) + "\n")
    own = [f"{address} {pod.manifest['metadata']['name']}" for address in pod.addresses]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", "::1 localhost", *own]) + "\n")
    for name, text in container.program.files.items():
        (folder / name).write_text(expand(text, pod, folder))


def command_line(pod: Pod, container: Container, folder: Path, place: Place) -> list[str]:
    program = container.program
    if program.command:
        return [expand(word, pod, folder) for word in program.command]
    if program.dns is not None:
        return dns_command(program.dns, place)
    return workload_command(program, container.name, folder, lambda text: expand(text, pod, folder))


def dns_command(port: int, place: Place) -> list[str]:
    """`local=/#/`: it knows the hosts file and nothing else; every other name is answered NXDOMAIN at once."""
    return [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--log-facility=-",
        "--no-resolv", "--no-hosts", "--local=/#/", "--cache-size=0", f"--port={port}",
        f"--addn-hosts={place.state / 'dns' / 'hosts'}",
    ]  # fmt: skip


def workload_command(
    program: Program, name: str, folder: Path, expanded: Callable[[str], str], bind: str | None = None
) -> list[str]:
    plan = {
        "bind": bind,
        "process": program.process or name[:15],
        "listen": list(program.listen),
        "calls": [{**call.model_dump(), "to": expanded(call.to)} for call in program.calls],
        "round_seconds": program.round_seconds,
        "lifetime_seconds": program.lifetime_seconds,
        "progress": str(folder / "progress.json"),
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    return [INTERPRETER, "-I", "-S", str(HERE / "workload.py"), str(folder / "plan.json")]


def expand(text: str, pod: Pod, folder: Path) -> str:
    """Kubernetes' own $(NAME) form, for what the downward API would have given."""
    known = {
        "POD_IP": str(pod.addresses[0]),
        "HOST_IP": str(pod.node.addresses[0]),
        "NODE_NAME": pod.node.name,
        "DIR": str(folder),
    }
    for name, value in known.items():
        text = text.replace(f"$({name})", value)
    return text


def is_open(pid: int, protocol: str, port: int) -> bool:
    wanted = TCP_LISTEN if protocol == "tcp" else UDP_UNCONNECTED
    for family in ("", "6"):
        try:
            lines = Path(f"/proc/{pid}/net/{protocol}{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[3], 16) == wanted and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False


def listening(pod: Pod) -> bool:
    return all(container.listening() for container in pod.containers)


def reap(pod: Pod) -> list[Container]:
    """Containers that ended since the last look."""
    ended = []
    for container in pod.containers:
        if container.process is not None and container.exit_code is None:
            code = container.process.poll()
            if code is not None:
                container.exit_code = code
                container.finished_at = timestamp()
                ended.append(container)
    return ended


def tear_down(pod: Pod, place: Place) -> None:
    """Processes and cgroups first, the network after them; logs and objects stay until the pod is forgotten."""
    for container in pod.containers:
        if container.process is None:
            continue
        directory = pod.cgroup(container, place.driver)
        place.cgroups.remove(str(Path(directory).parent))
        container.process.wait()
    if not pod.host_network:
        place.wires.drop(pod.netns)


def progress(pod: Pod, container: Container, place: Place) -> dict[str, Any]:
    path = place.state / "run" / pod.manifest["metadata"]["uid"] / container.name / "progress.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {"rounds": 0, "failed_rounds": 0, "last_error": "not started yet"}
    return found


def hang_up(pod: Pod) -> None:
    """Have a DNS server read its names again."""
    for container in pod.containers:
        if container.program.dns is not None and container.process is not None and container.exit_code is None:
            container.process.send_signal(signal.SIGHUP)
