"""TCP as a kernel counts it: direction by state, outcomes told apart, payload bytes, every connection once."""

import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.errors import BpfSyscallError, SelfTestError
from agent.flow import address_bytes
from agent.kernel import selftest
from agent.kernel.capture import Capture, ListenerEntry
from agent.kernel.maps import Drained
from tests.kernel.rig import (
    DEADLINE_SECONDS,
    Namespace,
    Network,
    Pod,
    Ready,
    Rig,
    Row,
    open_rig,
    tcp_client,
    tcp_server,
    total,
)

PRIME = 23
MULTIPATH = 262  # IPPROTO_MPTCP


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_each_connection_is_counted_once_at_both_ends(
    rig: Rig, network: Network, client: Pod, server: Pod, *, v6: bool
) -> None:
    address = (network.server_v6 if v6 else network.server_address, 8081)
    peer = network.client_v6 if v6 else network.client_address
    listening = server.start("backend", tcp_server(address, connections=PRIME, answer=b"r" * 5000))
    client.run("caller", tcp_client(address, connections=PRIME, request=b"q" * 100))
    listening.wait()

    def enough(rows: list[Row]) -> bool:
        return total(rows)[1] >= PRIME * 5100

    rows = rig.rows_until(enough, client, server)
    egress = {"pod": "client", "direction": "EGRESS", "remote": address[0], "port": 8081}
    ingress = {"pod": "server", "direction": "INGRESS", "remote": peer, "port": 8081}
    assert total(rows, **egress) == (PRIME, PRIME * 100, PRIME * 5000)
    assert total(rows, **ingress) == (PRIME, PRIME * 5000, PRIME * 100)
    assert {(row.pod, row.process) for row in rows} == {("client", "caller"), ("server", "backend")}
    assert {row.outcome for row in rows} == {"ESTABLISHED"}
    assert {row.confidence for row in rows} == {"HIGH"}
    assert all(row.longest_ms for row in rows)


def test_v4_mapped_connection_is_ipv4_and_counted_once(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    listening = server.start("dual", tcp_server(("::", 8082), connections=3))
    client.run("mapped", tcp_client((f"::ffff:{network.server_address}", 8082), connections=3))
    listening.wait()
    rows = rig.rows(client, server)
    assert total(rows, pod="client", direction="EGRESS", remote=network.server_address, port=8082)[0] == 3
    assert total(rows, pod="server", direction="INGRESS", remote=network.client_address, port=8082)[0] == 3
    assert {(row.pod, row.process) for row in rows} == {("client", "mapped"), ("server", "dual")}


def test_multipath_connection_is_one_flow(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    """Its own socket and the TCP one below it change state: only the latter is on the wire."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, MULTIPATH).close()
    except OSError as exc:
        pytest.skip(f"this kernel has no MPTCP: {exc}")

    def serve(ready: Ready) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MULTIPATH) as listener:
            listener.bind((network.server_address, 8097))
            listener.listen(8)
            ready()
            for _ in range(PRIME):
                connection, _peer = listener.accept()
                with connection:
                    while connection.recv(99):
                        pass

    def call() -> None:
        for _ in range(PRIME):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MULTIPATH) as caller:
                caller.settimeout(DEADLINE_SECONDS)
                caller.connect((network.server_address, 8097))
                caller.sendall(b"over one path")
                caller.shutdown(socket.SHUT_WR)
                caller.recv(1)

    listening = server.start("backend", serve)
    client.run("caller", call)
    listening.wait()
    rows = rig.rows(client, server)
    assert total(rows, pod="client", direction="EGRESS", remote=network.server_address, port=8097)[0] == PRIME
    assert total(rows, pod="server", direction="INGRESS", remote=network.client_address, port=8097)[0] == PRIME
    assert sum(row.count for row in rows) == 2 * PRIME
    assert {(row.pod, row.process) for row in rows} == {("client", "caller"), ("server", "backend")}


def test_service_address_is_seen_by_the_client_and_the_target_port_by_the_server(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    listening = server.start("backend", tcp_server(("0.0.0.0", 8080), connections=1))
    client.run("viavip", tcp_client((network.service_address, 80)))
    listening.wait()
    rows = rig.rows(client, server)
    assert total(rows, pod="client", direction="EGRESS", remote=network.service_address, port=80)[0] == 1
    assert total(rows, pod="server", direction="INGRESS", remote=network.client_address, port=8080)[0] == 1
    assert {(row.pod, row.process) for row in rows} == {("client", "viavip"), ("server", "backend")}


def dial(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), timeout=DEADLINE_SECONDS)


def attempt(address: tuple[str, int], timeout_seconds: float) -> None:
    with socket.socket() as caller, contextlib.suppress(OSError):
        caller.settimeout(timeout_seconds)
        caller.connect(address)


@pytest.mark.parametrize(
    ("port", "address", "timeout_seconds", "outcome", "errnos"),
    [
        pytest.param(9999, Network.server_address, 10, "REFUSED", {111}, id="nobody listens"),
        pytest.param(7003, Network.server_address, 10, "REFUSED", {111}, id="rejected by a reset"),
        pytest.param(7002, Network.server_address, 10, "UNREACHABLE", {101, 113, 13}, id="rejected by ICMP"),
        pytest.param(80, "10.251.77.1", 10, "UNREACHABLE", {101, 113}, id="no route beyond the router"),
        pytest.param(7001, Network.server_address, 0.3, "ABORTED", {4095}, id="dropped, the application gives up"),
        pytest.param(7001, Network.server_address, 30, "TIMED_OUT", {110}, id="dropped, the kernel gives up"),
    ],
)
def test_failed_attempts_are_told_apart(
    rig: Rig,
    network: Network,
    client: Pod,
    port: int,
    address: str,
    timeout_seconds: float,
    outcome: str,
    errnos: set[int],
) -> None:
    network.client.sh("sysctl -qw net.ipv4.tcp_syn_retries=1")  # 3 s instead of two minutes
    client.run("hopeful", lambda: attempt((address, port), timeout_seconds))
    rows = [row for row in rig.rows_until(bool, client) if row.port == port]
    assert [(row.outcome, row.direction, row.remote, row.count) for row in rows] == [(outcome, "EGRESS", address, 1)]
    assert rows[0].errno in errnos
    assert rows[0].process == "hopeful"
    assert rows[0].longest_ms


def test_a_failed_attempt_is_no_established_flow(rig: Rig, network: Network, client: Pod) -> None:
    client.run("refused", lambda: attempt((network.server_address, 9998), 5))
    assert [row.outcome for row in rig.rows(client)] == ["REFUSED"]


def test_forty_blocked_acceptors_lose_no_connection(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    """The default kretprobe on inet_csk_accept counted 10 of 40."""
    acceptors, rounds = 40, 2

    def serve(ready: Ready) -> None:
        listener = socket.create_server((network.server_address, 8090), backlog=64)
        children = []
        for _ in range(acceptors):
            pid = os.fork()
            if pid == 0:
                for _ in range(rounds):
                    connection, _peer = listener.accept()
                    connection.sendall(b"x")
                    connection.close()
                os._exit(0)
            children.append(pid)
        ready()
        for pid in children:
            os.waitpid(pid, 0)

    listening = server.start("prefork", serve)

    def call() -> None:
        for _ in range(rounds):
            callers = [
                socket.create_connection((network.server_address, 8090), timeout=DEADLINE_SECONDS)
                for _ in range(acceptors)
            ]
            for caller in callers:
                assert caller.recv(1) == b"x"
                caller.close()

    client.run("caller", call)
    listening.wait()
    rows = rig.rows(client, server)
    assert total(rows, pod="server", direction="INGRESS", port=8090)[0] == acceptors * rounds
    assert total(rows, pod="client", direction="EGRESS", port=8090)[0] == acceptors * rounds


def test_inherited_listener_keeps_its_pod_when_the_accept_is_elsewhere(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    """A connection that nobody ever accepts is still the listener's."""

    def serve(ready: Ready) -> None:
        listener = socket.create_server((network.server_address, 8091))
        ready()
        select.select([listener], [], [], DEADLINE_SECONDS)

    listening = server.start("lazy", serve)

    def call() -> None:
        with contextlib.suppress(ConnectionResetError):  # the listener may be gone before connect() has returned
            dial(network.server_address, 8091).close()

    client.run("caller", call)
    listening.wait()
    rows = rig.rows(server)
    assert [(row.process, row.count) for row in rows if row.port == 8091][:1] == [("lazy", 1)]


def test_listener_that_closed_is_forgotten(rig: Rig, network: Network, server: Pod) -> None:
    """A namespace's inode is given again at once: who listened in the last one must not own the next one's flows."""
    entry = ListenerEntry(
        local=address_bytes(network.server_address),
        netns_inode=Path(f"/run/netns/{network.server.name}").stat().st_ino,
        port=8095,
        cgroup_id=1,
        pid=1,
        process=b"somebody else",
    )

    def serve(ready: Ready) -> None:
        with socket.create_server((network.server_address, 8095)):
            ready()
            signal.pause()

    listening = server.start("backend", serve)
    assert not rig.node.capture.tell_listener(entry), "the kernel's own knowledge wins"
    listening.kill()
    assert rig.node.capture.tell_listener(entry)


def test_reset_connection_counts_its_bytes_without_a_fin(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    def serve(ready: Ready) -> None:
        listener = socket.create_server((network.server_address, 8092))
        ready()
        connection, _peer = listener.accept()
        assert connection.recv(10, socket.MSG_WAITALL) == b"0123456789"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # a reset, no FIN

    listening = server.start("rude", serve)

    def call() -> None:
        with socket.create_connection((network.server_address, 8092), timeout=DEADLINE_SECONDS) as caller:
            caller.sendall(b"0123456789")
            with contextlib.suppress(ConnectionResetError):
                caller.recv(1)

    client.run("caller", call)
    listening.wait()
    rows = rig.rows_until(
        lambda rows: total(rows, pod="client")[1] > 0 and total(rows, pod="server")[2] > 0, client, server
    )
    assert total(rows, pod="client", port=8092) == (1, 10, 0)
    assert total(rows, pod="server", port=8092) == (1, 0, 10)


def test_what_is_sent_again_is_counted_once(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    """The router loses everything until the client's kernel has sent its bytes a second time."""
    address, sent = (network.server_address, 8094), 1000
    ours, theirs = socket.socketpair()

    def call(ready: Ready) -> None:
        with dial(*address) as caller:
            ready()
            theirs.recv(1)
            caller.sendall(b"x" * sent)
            while not sent_again(caller):
                time.sleep(0.01)
            theirs.send(b"lost")
            caller.shutdown(socket.SHUT_WR)
            caller.recv(1)

    with ours, theirs:
        listening = server.start("backend", tcp_server(address, connections=1))
        calling = client.start("caller", call)
        with lossy(network.router, port=address[1]):
            ours.send(b"g")
            assert ours.recv(4) == b"lost"
        calling.wait()
        listening.wait()
    rows = rig.rows_until(
        lambda rows: total(rows, pod="client")[1] > 0 and total(rows, pod="server")[2] > 0, client, server
    )
    assert total(rows, pod="client", port=8094) == (1, sent, 0)
    assert total(rows, pod="server", port=8094) == (1, 0, sent)


def sent_again(caller: socket.socket) -> int:
    """Segments, tcpi_total_retrans of struct tcp_info."""
    (segments,) = struct.unpack_from("=I", caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)
    return int(segments)


@contextlib.contextmanager
def lossy(router: Namespace, *, port: int) -> Iterator[None]:
    router.sh("nft add table ip lossy")
    router.sh("nft add chain ip lossy forward { type filter hook forward priority -10 ; }")
    router.sh(f"nft add rule ip lossy forward tcp dport {port} drop")
    try:
        yield
    finally:
        router.sh("nft delete table ip lossy")


def test_thread_names_do_not_become_process_names(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    listening = server.start("backend", tcp_server((network.server_address, 8093), connections=1))

    def call() -> None:
        import ctypes
        import threading

        def in_thread() -> None:
            ctypes.CDLL(None).prctl(15, b"worker-7", 0, 0, 0)
            tcp_client((network.server_address, 8093))()

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()

    client.run("leader", call)
    listening.wait()
    assert {row.process for row in rig.rows(client) if row.port == 8093} == {"leader"}


def test_self_test_refuses_a_kernel_that_counts_wrongly(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets that are off by a few bytes read as silence or garbage: no other error would tell."""

    class Deaf:
        backend = rig.node.capture.backend

        @staticmethod
        def peek() -> Drained:
            drained = rig.node.capture.peek()
            return replace(drained, keys=drained.keys[:0], stats=drained.stats[:0])

    monkeypatch.setattr(selftest, "_PATIENCE_SECONDS", 0.0)
    with pytest.raises(SelfTestError, match="was not seen: TCP EGRESS"):
        selftest.self_test(Deaf())  # type: ignore[arg-type]


def test_agent_that_fails_its_self_test_does_not_start(
    rig: Rig, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    del rig
    captured: list[Capture] = []

    def fail(capture: Capture) -> None:
        captured.append(capture)
        raise SelfTestError("a known connection was not seen")

    monkeypatch.setattr("agent.node.self_test", fail)
    with pytest.raises(SelfTestError):
        open_rig(config)
    (capture,) = captured
    with pytest.raises(BpfSyscallError):
        capture.programs()  # closed: nothing of it counts on
