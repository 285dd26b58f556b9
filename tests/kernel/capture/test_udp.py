"""UDP as a kernel counts it: who asked, which port is the service's, how sure that is. A reply is no flow."""

import socket
from collections.abc import Callable

import pytest

from agent.config import AgentConfig
from agent.kernel.maps import Counter
from tests.kernel.rig import DEADLINE_SECONDS, Network, Pod, Ready, Rig, open_rig, total

PRIME = 7
REQUEST, ANSWER = b"q" * 20, b"r" * 33


def datagram_socket(address: tuple[str, int] | None = None, *, v6: bool = False, shared: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(DEADLINE_SECONDS)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if address is not None:
        made.bind(address)
    return made


def answering(address: tuple[str, int], times: int, *, v6: bool = False) -> Callable[[Ready], None]:
    def body(ready: Ready) -> None:
        with datagram_socket(address, v6=v6) as server:
            ready()
            for _ in range(times):
                _data, peer = server.recvfrom(2048)
                server.sendto(ANSWER, peer)

    return body


def asking(
    address: tuple[str, int],
    times: int,
    *,
    own: tuple[str, int] | None = None,
    connected: bool = False,
    v6: bool = False,
) -> Callable[[], None]:
    def body() -> None:
        with datagram_socket(own, v6=v6) as client:
            if connected:
                client.connect(address)
            for _ in range(times):
                if connected:
                    client.send(REQUEST)
                    assert client.recv(2048) == ANSWER
                else:
                    client.sendto(REQUEST, address)
                    assert client.recvfrom(2048)[0] == ANSWER

    return body


@pytest.mark.parametrize(
    ("port", "own_port", "connected", "v6"),
    [
        pytest.param(53, None, False, False, id="DNS, unconnected"),
        pytest.param(5300, None, True, False, id="DNS, connected as glibc does"),
        pytest.param(443, 0, True, False, id="QUIC: bind to port 0, then connect"),
        pytest.param(123, 123, False, False, id="NTP: both sides on port 123"),
        pytest.param(6000, 5000, False, False, id="client with a port of its own"),
        pytest.param(8000, None, False, True, id="IPv6"),
        pytest.param(8001, None, True, True, id="IPv6, connected"),
        pytest.param(40_000, None, False, False, id="service on a port above 32768"),
    ],
)
def test_question_is_the_flow_and_the_answer_is_not(
    rig: Rig, network: Network, client: Pod, server: Pod, *, port: int, own_port: int | None, connected: bool, v6: bool
) -> None:
    address = network.server_v6 if v6 else network.server_address
    own_address = network.client_v6 if v6 else network.client_address
    own = None if own_port is None else (own_address, own_port)
    listening = server.start("udp-server", answering((address, port), PRIME, v6=v6))
    client.run("udp-client", asking((address, port), PRIME, own=own, connected=connected, v6=v6))
    listening.wait()
    rows = rig.rows(client, server)
    asked, answered = PRIME * len(REQUEST), PRIME * len(ANSWER)
    found = {
        (row.pod, row.direction, row.remote, row.port, row.count, row.tx_bytes, row.rx_bytes, row.process)
        for row in rows
    }
    assert found == {
        ("client", "EGRESS", address, port, PRIME, asked, answered, "udp-client"),
        ("server", "INGRESS", own_address, port, PRIME, answered, asked, "udp-server"),
    }
    low_at_client = port >= 32_768  # it cannot tell this from a TFTP reply; the server, which bound the port, can
    assert {row.pod: row.confidence for row in rows} == {
        "client": "LOW" if low_at_client else "HIGH",
        "server": "HIGH",
    }


def test_v4_mapped_datagrams_are_ipv4_and_counted_once(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    listening = server.start("dual", answering(("::", 8100), PRIME, v6=True))
    client.run("mapped", asking((f"::ffff:{network.server_address}", 8100), PRIME, v6=True))
    listening.wait()
    rows = rig.rows(client, server)
    assert [(row.remote, row.count) for row in rows if row.pod == "client"] == [(network.server_address, PRIME)]
    assert [(row.remote, row.count) for row in rows if row.pod == "server"] == [(network.client_address, PRIME)]


def test_service_address_is_kept_for_dns(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    """Row 36: TCP and UDP of one port are two links; here the UDP one, through a Service with another target port."""
    listening = server.start("dns", answering((network.server_address, 5353), 1))
    client.run("resolver", asking((network.service_address, 53), 1, connected=True))
    listening.wait()
    rows = rig.rows(client, server)
    assert {(row.pod, row.remote, row.port, row.protocol) for row in rows} == {
        ("client", network.service_address, 53, 17),
        ("server", network.client_address, 5353, 17),
    }


def test_server_that_answers_from_a_socket_per_client_stays_a_server(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    address = (network.server_address, 7000)

    def serve(ready: Ready) -> None:
        with datagram_socket(address, shared=True) as waiting:
            ready()
            _data, peer = waiting.recvfrom(99)
            with datagram_socket(address, shared=True) as private:
                private.connect(peer)
                for _ in range(3):
                    private.send(ANSWER)

    def call() -> None:
        with datagram_socket() as caller:
            caller.sendto(REQUEST, address)
            for _ in range(3):
                caller.recvfrom(99)

    listening = server.start("dtls", serve)
    client.run("caller", call)
    listening.wait()
    rows = rig.rows(client, server)
    assert {(row.pod, row.direction, row.port, row.count) for row in rows} == {
        ("client", "EGRESS", 7000, 1),
        ("server", "INGRESS", 7000, 1),
    }


def test_tftp_like_reply_from_a_fresh_port_is_of_low_confidence(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    address = (network.server_address, 69)

    def serve(ready: Ready) -> None:
        with datagram_socket(address) as waiting, datagram_socket() as fresh:
            ready()
            _data, peer = waiting.recvfrom(99)
            fresh.sendto(b"data", peer)
            fresh.recvfrom(99)

    def call() -> None:
        with datagram_socket() as caller:
            caller.sendto(b"rrq", address)
            _data, peer = caller.recvfrom(99)
            caller.sendto(b"ack", peer)

    listening = server.start("tftpd", serve)
    client.run("tftp", call)
    listening.wait()
    rows = rig.rows(client, server)
    sure = {(row.pod, row.direction, row.port) for row in rows if row.confidence == "HIGH"}
    assert sure == {("client", "EGRESS", 69), ("server", "INGRESS", 69)}
    assert all(row.port >= 32_768 for row in rows if row.confidence == "LOW")


def test_one_way_datagrams_are_all_counted(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    datagrams = 1009
    address = (network.server_address, 8125)

    def serve(ready: Ready) -> None:
        with datagram_socket(address) as waiting:
            waiting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            ready()
            for _ in range(datagrams):
                waiting.recvfrom(99)

    def call() -> None:
        with datagram_socket() as caller:
            caller.connect(address)
            for _ in range(datagrams):
                caller.send(b"c:1|c")

    before = rig.node.capture.counters()[Counter.EVENTS]
    listening = server.start("statsd", serve)
    client.run("app", call)
    listening.wait()
    assert rig.node.capture.counters()[Counter.EVENTS] - before >= 2 * datagrams
    rows = rig.rows(client, server)
    assert total(rows, pod="client", direction="EGRESS", port=8125) == (datagrams, datagrams * 5, 0)
    assert total(rows, pod="server", direction="INGRESS", port=8125) == (datagrams, 0, datagrams * 5)


def test_peeking_does_not_count(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    address = (network.server_address, 8126)

    def serve(ready: Ready) -> None:
        with datagram_socket(address) as waiting:
            ready()
            for _ in range(3):
                waiting.recvfrom(99, socket.MSG_PEEK)
            waiting.recvfrom(99)

    def call() -> None:
        with datagram_socket() as caller:
            caller.sendto(b"once", address)

    listening = server.start("peeker", serve)
    client.run("caller", call)
    listening.wait()
    assert total(rig.rows(server), pod="server", port=8126) == (1, 0, 4)


def test_peer_of_one_socket_is_not_taken_for_anothers(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    """Where peer and length come from two hooks, the first leaves nothing behind, not even of a failed send."""
    network.client.sh("ip route replace prohibit 10.251.78.1")
    address = network.server_address

    def call() -> None:
        with datagram_socket() as loose, datagram_socket() as connected:
            connected.connect((address, 8129))
            for _ in range(PRIME):
                loose.sendto(b"one", (address, 8128))
                connected.send(b"other")
                with pytest.raises(PermissionError):
                    loose.sendto(b"lost", ("10.251.78.1", 8130))
                connected.send(b"other")

    def serve(ready: Ready) -> None:
        with datagram_socket((address, 8128)) as one, datagram_socket((address, 8129)) as other:
            ready()
            for _ in range(PRIME):
                one.recvfrom(99)
                other.recvfrom(99)
                other.recvfrom(99)

    listening = server.start("two", serve)
    client.run("app", call)
    listening.wait()
    rows = rig.rows(client, server)
    for pod, direction, sent, received in (("client", "EGRESS", 1, 0), ("server", "INGRESS", 0, 1)):
        one, other = PRIME * len("one"), 2 * PRIME * len("other")
        assert total(rows, pod=pod, direction=direction, port=8128) == (PRIME, sent * one, received * one)
        assert total(rows, pod=pod, direction=direction, port=8129) == (2 * PRIME, sent * other, received * other)


def test_agent_that_comes_between_question_and_answer(
    rig: Rig, network: Network, client: Pod, server: Pod, config: AgentConfig
) -> None:
    """Rule 3: an own low port that answers an ephemeral one is a server whose request predates the agent."""
    address = (network.server_address, 5355)
    ours, theirs = socket.socketpair()

    def serve(ready: Ready) -> None:
        with datagram_socket(address) as waiting:
            ready()
            _data, peer = waiting.recvfrom(99)
            theirs.send(b"asked")
            theirs.recv(9)
            waiting.sendto(ANSWER, peer)

    def call(ready: Ready) -> None:
        with datagram_socket() as caller:
            caller.sendto(REQUEST, address)
            ready()
            caller.recvfrom(99)

    with ours, theirs:
        listening = server.start("slow-dns", serve)
        waiting = client.start("resolver", call)
        assert ours.recv(9) == b"asked"
        late = open_rig(config)
        try:
            ours.send(b"go")
            waiting.wait()
            listening.wait()
            rows = late.rows(client, server)
        finally:
            late.close()
    assert {(row.pod, row.direction, row.port, row.confidence) for row in rows} == {
        ("client", "EGRESS", 5355, "HIGH"),
        ("server", "INGRESS", 5355, "LOW"),
    }
    rig.rows()


def test_receiving_without_an_address_is_counted_or_said_to_be_uncounted(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    """recv(2) on an unconnected socket: a kprobe sees the packet, the cgroup hooks see nothing."""
    address = (network.server_address, 8127)

    def serve(ready: Ready) -> None:
        with datagram_socket(address) as waiting:
            ready()
            for _ in range(PRIME):
                waiting.recv(99)

    def call() -> None:
        with datagram_socket() as caller:
            for _ in range(PRIME):
                caller.sendto(b"once", address)

    listening = server.start("nameless", serve)
    client.run("caller", call)
    listening.wait()
    rows = rig.rows(client, server)
    assert total(rows, pod="client", port=8127)[0] == PRIME
    assert total(rows, pod="server", port=8127)[0] + rig.loss.uncounted_udp == PRIME
