"""Pods without Kubernetes for the kernel tests: network namespaces, kubelet-shaped control groups, log folders.

A `Pod` runs Python functions as its processes. A `Rig` is an attached agent whose spool is a list; `rows()` gives what
it would have sent since the last call. Everything carries this process's id in its name and is removed again.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config import AgentConfig
from agent.errors import NoBackendError
from agent.flow import Confidence, Direction, Outcome, address_text
from agent.identity.cgroups import Hierarchy
from agent.node import Node
from agent.pipeline import Pipeline
from wattle.v1 import flowlink_pb2

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_PR_SET_NAME = 15
DEADLINE_SECONDS = int(os.environ.get("WATTLE_TEST_DEADLINE_SECONDS", "60"))  # longer where the machine is emulated
BACKEND = os.environ.get("WATTLE_TEST_BACKEND", "auto")

Ready = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One flow record, readable."""

    pod: str
    direction: str
    remote: str
    port: int
    protocol: int
    outcome: str
    errno: int
    confidence: str
    process: str
    count: int
    tx_bytes: int
    rx_bytes: int
    first_ms: int  # since the interval began, give or take a step
    last_ms: int
    longest_ms: int
    container: str
    namespace: str
    container_id: str
    own: str
    host_network: bool


class ListSpool:
    def __init__(self) -> None:
        self.batches: list[flowlink_pb2.Batch] = []
        self.epoch, self.next_seq = 7, 1

    def took(self, *, epoch: int, seq: int) -> bool:
        return (epoch, seq) < (self.epoch, self.next_seq)

    def append(self, batch: flowlink_pb2.Batch, *, flow_records: int | None = None) -> None:
        self.batches.append(batch)
        self.next_seq += 1


def decode(batch: flowlink_pb2.Batch) -> Iterator[Row]:
    columns = flowlink_pb2.Columns.FromString(batch.columns)
    remotes = [
        bytes(10) + b"\xff\xff" + batch.remotes4[place : place + 4] for place in range(0, len(batch.remotes4), 4)
    ]
    remotes += [batch.remotes[place : place + 16] for place in range(0, len(batch.remotes), 16)]
    for i in range(len(columns.local)):
        side = batch.locals[columns.local[i]]
        kind = batch.kinds[columns.kind[i]]
        yield Row(
            pod=side.pod_name or side.pod_uid,
            direction=Direction(kind.direction).name,
            remote=address_text(remotes[columns.remote[i]]),
            port=batch.ports[columns.server_port[i]],
            protocol=kind.protocol,
            outcome=Outcome(kind.outcome).name,
            errno=kind.errno,
            confidence=Confidence(kind.confidence).name,
            process=batch.processes[kind.process],
            count=columns.count[i],
            tx_bytes=columns.tx_bytes[i],
            rx_bytes=columns.rx_bytes[i],
            first_ms=columns.first_step[i] * batch.interval.step_ms,
            last_ms=(columns.first_step[i] + columns.steps[i]) * batch.interval.step_ms,
            longest_ms=columns.longest_ms[i],
            container=side.container_name,
            namespace=side.namespace,
            container_id=side.container_id,
            own=address_text(side.address) if side.address else "",
            host_network=side.host_network,
        )


class Rig:
    def __init__(self, config: AgentConfig) -> None:
        self.node = Node.open(config, pinned=False)
        self.spool = ListSpool()
        self.pipeline = Pipeline(
            source=self.node.capture,
            resolver=self.node.resolver,
            sink=self.spool,
            open_flows=self.node.open_flows,
        )
        self.node.begin(self.pipeline)
        self.loss = flowlink_pb2.Loss()
        self.rows()

    def rows(self, *pods: "Pod") -> list[Row]:
        self.pipeline.turn()
        return self.taken(*pods)

    def taken(self, *pods: "Pod") -> list[Row]:
        taken, self.spool.batches = self.spool.batches, []
        names = {pod.name for pod in pods}
        found = []
        self.loss = flowlink_pb2.Loss()
        for batch in taken:
            for field in flowlink_pb2.Loss.DESCRIPTOR.fields:
                setattr(self.loss, field.name, getattr(self.loss, field.name) + getattr(batch.loss, field.name))
            found += [row for row in decode(batch) if not names or row.pod in names]
        return found

    def rows_until(self, enough: Callable[[list[Row]], bool], *pods: "Pod") -> list[Row]:
        """Collect until `enough`; closes may wait for a softirq on a busy machine."""
        found: list[Row] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found += self.rows(*pods)
            if enough(found) or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def close(self) -> None:
        self.pipeline.close()
        self.node.close(orderly=True)


def open_rig(config: AgentConfig) -> Rig:
    """Skip, loudly and with the kernel's own words, only where the kernel refuses BPF."""
    import pytest

    if os.geteuid() != 0:
        pytest.skip("attaching BPF programs needs root; run `make test-kernel`")
    try:
        return Rig(config)
    except NoBackendError as exc:
        if BACKEND != "auto":
            raise
        pytest.skip(f"the kernel refuses BPF: {exc}")


class Namespace:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = f"w{os.getpid() % 100_000}{name}"
        sh(f"ip netns add {self.name}")
        sh(f"ip -n {self.name} link set lo up")

    def sh(self, command: str) -> str:
        return sh(f"ip netns exec {self.name} {command}")

    def enter(self) -> None:
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        if _LIBC.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"entering {self.name}")
        os.close(descriptor)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False, stderr=subprocess.DEVNULL)


class Process:
    """A child that runs one function."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = False

    def wait(self) -> None:
        _pid, status = os.waitpid(self.pid, 0)
        self._ended = True
        assert os.waitstatus_to_exitcode(status) == 0, "a test process failed; its traceback is above"

    def kill(self) -> None:
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self._ended = True


class Pod:
    """A pod's control groups, log folder and (unless hostNetwork) network namespace."""

    def __init__(
        self,
        name: str,
        *,
        number: int,
        namespace: Namespace | None,
        groups: "Groups",
        logs: Path,
        container: str = "main",
        kubernetes_namespace: str = "shop",
    ) -> None:
        self.name = name
        self.uid = f"{os.getpid():08x}-0000-4000-8000-{number:012x}"
        self.container_id = f"{number:064x}"
        self.network = namespace
        self._groups = groups
        self._path = f"kubepods/burstable/pod{self.uid}/{self.container_id}"
        groups.make(self._path)
        self.logs = logs / f"{kubernetes_namespace}_{name}_{self.uid}"
        (self.logs / container).mkdir(parents=True)
        self._processes: list[Process] = []

    def start(self, comm: str, body: Callable[[Ready], None]) -> Process:
        """Run `body` as a process of this pod; returns when it called ready() or ended."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(DEADLINE_SECONDS)
                os.close(reading)
                self._groups.join(self._path)
                if self.network is not None:
                    self.network.enter()
                _LIBC.prctl(_PR_SET_NAME, comm.encode()[:15], 0, 0, 0)
                body(lambda: void(os.write(writing, b"r")))
                status = 0
            except BaseException:  # noqa: BLE001  whatever it was, the parent learns it by the status
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        process = Process(pid)
        self._processes.append(process)
        readable, _, _ = select.select([reading], [], [], DEADLINE_SECONDS)
        os.close(reading)
        assert readable, f"{comm} neither got ready nor ended"
        return process

    def run(self, comm: str, body: Callable[[], None]) -> None:
        self.start(comm, lambda _ready: body()).wait()

    def remove(self) -> None:
        for process in self._processes:
            process.kill()
        self._groups.remove(self._path)


class Groups:
    """One folder of this process in every hierarchy that an agent may read."""

    def __init__(self, hierarchy: Hierarchy, name: str = "test") -> None:
        roots = {hierarchy.root}
        if hierarchy.v2_root is not None:
            roots.add(hierarchy.v2_root)
        self._roots = [root / f"wattle-{name}-{os.getpid()}" for root in roots]

    def make(self, path: str) -> None:
        for root in self._roots:
            (root / path).mkdir(parents=True)

    def join(self, path: str) -> None:
        for root in self._roots:
            (root / path / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    def remove(self, path: str) -> None:
        """The container's group and the pod's, as the kubelet does."""
        for root in self._roots:
            for directory in ((root / path), (root / path).parent):
                deadline = time.monotonic() + 10
                while directory.exists() and time.monotonic() < deadline:
                    with contextlib.suppress(OSError):  # EBUSY while a killed process is still leaving
                        directory.rmdir()

    def remove_all(self) -> None:
        for root in self._roots:
            for directory in sorted(root.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    directory.rmdir()


class Network:
    """Client - router - server, with a Service address and every way to be refused on the router.

    Client 10.251.1.2 and fd00:251:1::2, server 10.251.2.2 and fd00:251:2::2, Service 10.96.251.10 port 80 to 8080 (TCP)
    and 53 to 5353 (UDP). From the client, port 7001 is dropped, 7002 rejected by ICMP, 7003 by a reset.
    """

    client_address, server_address, service_address = "10.251.1.2", "10.251.2.2", "10.96.251.10"
    client_v6, server_v6 = "fd00:251:1::2", "fd00:251:2::2"

    def __init__(self) -> None:
        self.client, self.router, self.server = Namespace("c"), Namespace("r"), Namespace("s")
        self.router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        for end, number in ((self.client, 1), (self.server, 2)):
            near, far = f"{end.name}0", f"{end.name}1"
            sh(f"ip link add {near} netns {end.name} type veth peer name {far} netns {self.router.name}")
            end.sh(f"ip addr add 10.251.{number}.2/24 dev {near}")
            end.sh(f"ip addr add fd00:251:{number}::2/64 dev {near} nodad")
            self.router.sh(f"ip addr add 10.251.{number}.1/24 dev {far}")
            self.router.sh(f"ip addr add fd00:251:{number}::1/64 dev {far} nodad")
            end.sh(f"ip link set {near} up")
            self.router.sh(f"ip link set {far} up")
            end.sh(f"ip route add default via 10.251.{number}.1")
            end.sh(f"ip -6 route add default via fd00:251:{number}::1")
        subprocess.run(
            ["ip", "netns", "exec", self.router.name, "nft", "-f", "-"], input=_ROUTER_RULES, text=True, check=True
        )

    def remove(self) -> None:
        for namespace in (self.client, self.router, self.server):
            namespace.remove()


_ROUTER_RULES = """
table ip service {
  chain to_pods {
    type nat hook prerouting priority -100;
    ip daddr 10.96.251.10 tcp dport 80 dnat to 10.251.2.2:8080
    ip daddr 10.96.251.10 udp dport 53 dnat to 10.251.2.2:5353
  }
}
table ip fence {
  chain forward {
    type filter hook forward priority 0;
    ct state established,related accept
    ip saddr 10.251.1.2 tcp dport 7001 drop
    ip saddr 10.251.1.2 tcp dport 7002 reject with icmp type admin-prohibited
    ip saddr 10.251.1.2 tcp dport 7003 reject with tcp reset
  }
}
"""


def sh(command: str) -> str:
    done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def void(_value: object) -> None:
    """A lambda's body that must be a statement."""


def tcp_server(address: tuple[str, int], *, connections: int, answer: bytes = b"", linger: bool = False) -> Callable:
    """Accept, read to the end, answer, close."""

    def body(ready: Ready) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(256)
            ready()
            for _ in range(connections):
                connection, _peer = listener.accept()
                with connection:
                    if not linger:
                        while connection.recv(65536):
                            pass
                    connection.sendall(answer)

    return body


def tcp_client(address: tuple[str, int], *, connections: int = 1, request: bytes = b"") -> Callable[[], None]:
    def body() -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        for _ in range(connections):
            with socket.socket(family) as client:
                client.settimeout(DEADLINE_SECONDS)
                client.connect(address)
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass

    return body


def total(rows: list[Row], **wanted: object) -> tuple[int, int, int]:
    """(count, tx, rx) over the rows that match; a flow whose close came in a later interval has two rows."""
    matching = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    return (
        sum(row.count for row in matching),
        sum(row.tx_bytes for row in matching),
        sum(row.rx_bytes for row in matching),
    )
