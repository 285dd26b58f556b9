"""The agent as a process: exit codes, readiness, SIGTERM, kill -9, and what stays in its memory."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from agent.errors import BpfSyscallError
from agent.kernel import bpf
from agent.kernel.perf import KPROBE_EVENTS
from tests.kernel.rig import (
    BACKEND,
    DEADLINE_SECONDS,
    Groups,
    Network,
    Pod,
    Rig,
    Row,
    decode,
    sh,
    tcp_client,
    tcp_server,
    total,
)
from wattle.v1 import flowlink_pb2

PRIME = 17
REPOSITORY = Path(__file__).resolve().parents[3]


class Aggregator:
    """Commits whatever comes; `committing` cleared makes it listen and say nothing."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.reports: list[flowlink_pb2.NodeReport] = []
        self.committing = threading.Event()
        self.committing.set()
        self._committed: dict[int, int] = {}
        self._threads = ThreadPoolExecutor(4)
        self._server = grpc.server(self._threads)
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect,
            request_deserializer=flowlink_pb2.AgentMessage.FromString,
            response_serializer=flowlink_pb2.ServerMessage.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("wattle.v1.FlowLink", {"Connect": handler}),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _connect(
        self, messages: Iterator[flowlink_pb2.AgentMessage], _context: grpc.ServicerContext
    ) -> Iterator[flowlink_pb2.ServerMessage]:
        epoch = 0
        for message in messages:
            match message.WhichOneof("message"):
                case "hello":
                    epoch = message.hello.epoch
                    welcome = flowlink_pb2.Welcome(
                        committed_seq=self._committed.get(epoch, 0),
                        window_batches=32,
                        window_bytes=8 << 20,
                        max_batch_bytes=1 << 20,
                        columns_version=2,
                    )
                    yield flowlink_pb2.ServerMessage(welcome=welcome)
                case "batch":
                    if not self.committing.wait(DEADLINE_SECONDS):
                        return
                    if message.batch.seq == self._committed.get(epoch, 0) + 1:
                        self._committed[epoch] = message.batch.seq
                        self.rows += decode(message.batch)
                    ack = flowlink_pb2.Ack(committed_seq=self._committed.get(epoch, 0))
                    yield flowlink_pb2.ServerMessage(ack=ack)
                case "node_report":
                    self.reports.append(message.node_report)

    def stop(self) -> None:
        self.committing.set()
        self._server.stop(0).wait()
        self._threads.shutdown()


@pytest.fixture
def aggregator() -> Iterator[Aggregator]:
    aggregator = Aggregator()
    yield aggregator
    aggregator.stop()


@pytest.fixture
def bpf_file_system(tmp_path: Path, rig: Rig) -> Iterator[Path]:
    del rig  # where that skips, nothing is mounted
    mount = tmp_path / "bpf"
    mount.mkdir()
    sh(f"mount -t bpf bpf {mount}")
    yield mount
    sh(f"umount {mount}")


class Agents:
    """Starts agents, and stops what a failed test left."""

    def __init__(self, arguments: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.http = f"127.0.0.1:{free.getsockname()[1]}"
        self._arguments = [*arguments, "--http-listen", self.http, "--backend", BACKEND]
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *further: str) -> subprocess.Popen[bytes]:
        agent = subprocess.Popen(self.command(*further), cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        self._started.append(agent)
        return agent

    def command(self, *further: str) -> list[str]:
        return [sys.executable, "-m", "agent", *self._arguments, *further]

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()
        except OSError as exc:
            return 0, str(exc)

    def stop(self) -> None:
        for agent in self._started:
            if agent.poll() is None:
                agent.kill()
                agent.wait()


@pytest.fixture
def agents(aggregator: Aggregator, logs: Path, bpf_file_system: Path) -> Iterator[Agents]:
    agents = Agents(
        [
            "--plaintext",
            "--server",
            f"127.0.0.1:{aggregator.port}",
            "--pod-logs",
            str(logs),
            "--pin-directory",
            str(bpf_file_system / "wattle"),
            "--drain-interval-seconds",
            "60",
        ]
    )
    yield agents
    agents.stop()


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


def is_ready(agents: Agents) -> bool:
    return agents.page("/readyz")[0] == 200


def traffic(network: Network, client: Pod, server: Pod, port: int) -> None:
    listening = server.start("backend", tcp_server((network.server_address, port), connections=PRIME))
    client.run("caller", tcp_client((network.server_address, port), connections=PRIME, request=b"12345"))
    listening.wait()


def test_check_says_what_it_chose(agents: Agents) -> None:
    done = subprocess.run(agents.command("--check"), cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "attached, self-test passed" in done.stdout


def test_four_capabilities_are_enough_and_one_less_is_not(agents: Agents) -> None:
    """Root in name alone: what the chart gives the container."""
    rights = ["bpf", "perfmon", "net_admin", "sys_ptrace"]

    def check(given: list[str]) -> subprocess.CompletedProcess[str]:
        bounds = ",".join(["-all", *(f"+{right}" for right in given)])
        command = ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", "--", *agents.command("--check")]
        return subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)

    done = check(rights)
    assert done.returncode == 0, done.stderr
    assert "attached, self-test passed" in done.stdout
    done = check(rights[1:])
    assert done.returncode == 3
    assert "this kernel takes no backend" in done.stderr
    assert "Operation not permitted" in done.stderr


def test_wrong_settings_are_all_named_at_once(agents: Agents) -> None:
    wrong = agents.command("--cluster", "Not A Label", "--flow-entries", "3", "--server", "nowhere")
    done = subprocess.run(wrong, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("cluster", "flow_entries", "server"))


def test_ready_means_that_a_batch_was_committed(agents: Agents, aggregator: Aggregator) -> None:
    aggregator.committing.clear()
    agents.start()
    eventually(lambda: agents.page("/livez")[0] == 200, "alive")
    status, said = agents.page("/readyz")
    assert (status, said.strip()) == (503, "no batch has been committed by the aggregator yet")
    assert subprocess.run(agents.command("--health"), cwd=REPOSITORY, check=False, capture_output=True).returncode == 5
    aggregator.committing.set()
    eventually(lambda: is_ready(agents), "ready")
    assert subprocess.run(agents.command("--health"), cwd=REPOSITORY, check=False, capture_output=True).returncode == 0
    eventually(lambda: bool(aggregator.reports), "reported")
    chosen, page = aggregator.reports[0].backend, agents.page("/metrics")[1]
    assert chosen in ("kprobe", "tracepoint")
    assert re.findall(r'^wattle_agent_backend\{backend="(.*)"\} 1\.0$', page, re.MULTILINE) == [chosen]
    refused = re.findall(r'^wattle_agent_backend_refused\{backend="(.*)"\} 1\.0$', page, re.MULTILINE)
    assert refused == (["kprobe"] if BACKEND == "auto" and chosen == "tracepoint" else [])
    for name in ("flow_map_fill_ratio", "events_lost_total", "drain_seconds", "drain_alive_seconds", "program_runs"):
        assert f"wattle_agent_{name}" in page
    assert "process_resident_memory_bytes" in page


def test_announcements_are_heard_between_two_drains(agents: Agents, groups: Groups) -> None:
    """A pod that lives a second is gone before the next drain; the ring is read when it is readable."""
    agents.start()
    eventually(lambda: is_ready(agents), "ready")
    page = 'wattle_agent_announcements_total{kind="cgroup"} '

    def heard() -> float:
        found = [line for line in agents.page("/metrics")[1].splitlines() if line.startswith(page)]
        return float(found[0].removeprefix(page)) if found else 0.0

    before = heard()
    groups.make("kubepods/announced")
    eventually(lambda: heard() > before, "heard of the new group, 60 s before the next drain")


def test_term_drains_and_flushes(
    agents: Agents, aggregator: Aggregator, network: Network, client: Pod, server: Pod
) -> None:
    agent = agents.start()
    eventually(lambda: is_ready(agents), "ready")
    traffic(network, client, server, 8501)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(DEADLINE_SECONDS) == 0
    assert total(aggregator.rows, pod="client", direction="EGRESS", port=8501)[0] == PRIME
    assert total(aggregator.rows, pod="server", direction="INGRESS", port=8501)[0] == PRIME


def test_term_does_not_wait_for_an_aggregator_that_commits_nothing(
    agents: Agents, aggregator: Aggregator, network: Network, client: Pod, server: Pod, tmp_path: Path
) -> None:
    """It drains, gives the stream its seconds, and leaves the rest to the spool."""
    spool = ("--spool-directory", str(tmp_path / "spool"))
    aggregator.committing.clear()
    agent = agents.start(*spool)
    eventually(lambda: agents.page("/livez")[0] == 200, "alive")
    traffic(network, client, server, 8503)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(DEADLINE_SECONDS) == 0
    assert total(aggregator.rows, port=8503)[0] == 0
    aggregator.committing.set()
    agents.start(*spool)
    eventually(lambda: total(aggregator.rows, pod="server", port=8503)[0] > 0, "what the spool kept has come")
    assert total(aggregator.rows, pod="client", direction="EGRESS", port=8503)[0] == PRIME
    assert total(aggregator.rows, pod="server", direction="INGRESS", port=8503)[0] == PRIME


def test_killed_agent_loses_nothing_that_the_kernel_had_counted(
    agents: Agents, aggregator: Aggregator, network: Network, client: Pod, server: Pod, bpf_file_system: Path
) -> None:
    agent = agents.start()
    eventually(lambda: is_ready(agents), "ready")
    traffic(network, client, server, 8502)
    agent.kill()
    agent.wait()
    assert total(aggregator.rows, port=8502)[0] == 0, "the test is void: it was drained before the kill"
    second = agents.start()
    eventually(lambda: total(aggregator.rows, pod="server", port=8502)[0] > 0, "what was left has come")
    assert total(aggregator.rows, pod="client", direction="EGRESS", port=8502)[0] == PRIME
    assert total(aggregator.rows, pod="server", direction="INGRESS", port=8502)[0] == PRIME
    second.send_signal(signal.SIGTERM)
    assert second.wait(DEADLINE_SECONDS) == 0
    assert total(aggregator.rows, pod="client", port=8502)[0] == PRIME, "and it came once"
    assert list((bpf_file_system / "wattle").iterdir()) == [], "an orderly end leaves no pins"


def test_what_happens_while_no_agent_runs_is_counted(
    agents: Agents, aggregator: Aggregator, network: Network, client: Pod, server: Pod
) -> None:
    agent = agents.start()
    eventually(lambda: is_ready(agents), "ready")
    for port in (8504, 8505):  # the second time, the agent that took over is killed
        agent.kill()
        agent.wait()
        traffic(network, client, server, port)
        agent = agents.start()
        eventually(lambda port=port: total(aggregator.rows, pod="server", port=port)[0] > 0, "it has come")
        eventually(lambda: is_ready(agents), "ready")
        assert "wattle_agent_taken_over 1.0" in agents.page("/metrics")[1]
    traffic(network, client, server, 8506)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(DEADLINE_SECONDS) == 0
    for port in (8504, 8505, 8506):
        assert total(aggregator.rows, pod="client", direction="EGRESS", port=port)[0] == PRIME
        assert total(aggregator.rows, pod="server", direction="INGRESS", port=port)[0] == PRIME


def test_an_agent_that_fails_leaves_to_the_next_what_was_counted(
    agents: Agents, aggregator: Aggregator, network: Network, client: Pod, server: Pod
) -> None:
    agent = agents.start()
    eventually(lambda: is_ready(agents), "ready")
    agent.kill()
    agent.wait()
    traffic(network, client, server, 8509)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = agents.command("--http-listen", f"127.0.0.1:{taken.getsockname()[1]}")
        failed = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert re.search(r"wattle-agent: listening on 127.0.0.1:\d+: another program has it", failed.stderr)
    assert "Traceback" not in failed.stderr
    agents.start()
    eventually(lambda: total(aggregator.rows, pod="server", port=8509)[0] > 0, "it has come")
    assert total(aggregator.rows, pod="client", direction="EGRESS", port=8509)[0] == PRIME
    assert total(aggregator.rows, pod="server", direction="INGRESS", port=8509)[0] == PRIME


def test_an_agent_with_other_settings_loads_its_own_programs_and_counts_no_event_twice(
    agents: Agents, aggregator: Aggregator, network: Network, client: Pod, server: Pod, bpf_file_system: Path
) -> None:
    """Between the kill and the moment when its own are attached, those of the dead agent count."""
    before = set(probes())
    agent = agents.start()
    eventually(lambda: is_ready(agents), "ready")
    programs = programs_of(agent.pid)
    agent.kill()
    agent.wait()
    traffic(network, client, server, 8507)
    second = agents.start("--flow-entries", "4096")
    eventually(lambda: is_ready(agents), "ready")
    assert "wattle_agent_taken_over 0.0" in agents.page("/metrics")[1]
    assert len(list((bpf_file_system / "wattle").iterdir())) == 1
    eventually(lambda: not any(is_loaded(program) for program in programs), "every program of the first is gone")
    traffic(network, client, server, 8508)
    second.send_signal(signal.SIGTERM)
    assert second.wait(DEADLINE_SECONDS) == 0
    for port in (8507, 8508):
        assert total(aggregator.rows, pod="client", direction="EGRESS", port=port)[0] == PRIME
        assert total(aggregator.rows, pod="server", direction="INGRESS", port=port)[0] == PRIME
    subprocess.run(agents.command("--check"), cwd=REPOSITORY, check=True, capture_output=True)
    assert len(set(probes()) - before) <= 1, "but for its own, a loader sweeps the probes that others left"


def test_second_agent_on_a_node_is_refused(agents: Agents) -> None:
    agents.start()
    eventually(lambda: is_ready(agents), "ready")
    done = subprocess.run(agents.command(), cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "another agent counts on this node" in done.stderr


def test_no_compiler_stays_in_memory(agents: Agents) -> None:
    agent = agents.start()
    eventually(lambda: is_ready(agents), "ready")
    mapped = Path(f"/proc/{agent.pid}/maps").read_text(encoding="utf-8")
    assert not [name for name in ("libbcc", "libLLVM", "libclang", "/bcc/") if name in mapped]
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text(encoding="ascii")
    assert children.strip() == ""


def programs_of(pid: int) -> set[int]:
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found |= {
                int(line.split(":")[1])
                for line in path.read_text(encoding="ascii").splitlines()
                if line.startswith("prog_id:")
            }
    return found


def probes() -> list[str]:
    """None where the kernel has no kprobes."""
    with contextlib.suppress(FileNotFoundError):
        return KPROBE_EVENTS.read_text(encoding="ascii").splitlines()
    return []


def is_loaded(program_id: int) -> bool:
    try:
        descriptor, _ = bpf._call(13, bpf._attr("<I", program_id), "BPF_PROG_GET_FD_BY_ID")
    except BpfSyscallError:
        return False
    os.close(descriptor)
    return True


def test_nothing_stays_attached_after_a_kill_without_pins(agents: Agents, tmp_path: Path) -> None:
    """BPF_PROG_ATTACH would outlive its process; a link that is not pinned does not."""
    agent = agents.start("--pin-directory", str(tmp_path / "no-bpf"))
    eventually(lambda: is_ready(agents), "ready")
    programs = programs_of(agent.pid)
    assert len(programs) > 5
    assert all(is_loaded(program) for program in programs)
    agent.kill()
    agent.wait()
    eventually(lambda: not any(is_loaded(program) for program in programs), "every program is gone")
