"""What a row's times are of: the connections that it counts; of what only closed, how long it had been open."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.rig import DEADLINE_SECONDS, Network, Pod, Ready, Rig, Row, sh

PORT = 8311
OPEN_SECONDS = 0.6


class Caller:
    """A process of the client that opens connections, and closes the oldest, when it is told to."""

    def __init__(self, client: Pod, network: Network, stack: ExitStack) -> None:
        self._ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        self._ours.settimeout(DEADLINE_SECONDS)

        def obey(ready: Ready) -> None:
            ready()
            held: list[socket.socket] = []
            while word := theirs.recv(1):
                if word == b"o":
                    held.append(socket.create_connection((network.server_address, PORT), DEADLINE_SECONDS))
                else:
                    held.pop(0).close()
                theirs.send(b"done")

        stack.callback(client.start("caller", obey).kill)

    def open(self) -> None:
        self._tell(b"o")

    def close(self) -> None:
        self._tell(b"c")

    def _tell(self, word: bytes) -> None:
        self._ours.send(word)
        assert self._ours.recv(4) == b"done"


@pytest.fixture
def caller(network: Network, client: Pod, server: Pod) -> Iterator[Caller]:
    def serve(ready: Ready) -> None:
        with socket.create_server((network.server_address, PORT)) as listener:
            ready()
            while True:
                connection, _peer = listener.accept()
                while connection.recv(1):
                    pass
                connection.close()

    with ExitStack() as stack:
        stack.callback(server.start("backend", serve).kill)
        yield Caller(client, network, stack)


def closed(rows: list[Row]) -> bool:
    return {row.pod for row in rows if row.longest_ms} == {"client", "server"}


def test_a_close_says_how_long_the_oldest_had_been_open(rig: Rig, client: Pod, server: Pod, caller: Caller) -> None:
    began = time.monotonic()
    caller.open()
    time.sleep(OPEN_SECONDS)
    opened = rig.rows(client, server)
    assert {(row.pod, row.count, row.longest_ms) for row in opened} == {("client", 1, 0), ("server", 1, 0)}
    caller.close()
    rows = rig.rows_until(closed, client, server)
    most_ms = (time.monotonic() - began) * 1000 + 1
    assert [row.count for row in rows] == [0, 0]
    assert all(OPEN_SECONDS * 1000 <= row.longest_ms <= most_ms for row in rows)


def test_of_several_that_close_the_oldest_is_told(rig: Rig, client: Pod, server: Pod, caller: Caller) -> None:
    began = time.monotonic()
    caller.open()
    time.sleep(0.1)
    caller.open()
    caller.open()
    time.sleep(OPEN_SECONDS)
    rig.rows()
    for _ in range(3):
        caller.close()
    rows = rig.rows_until(closed, client, server)
    most_ms = (time.monotonic() - began) * 1000 + 1
    (row,) = [row for row in rows if row.pod == "client"]
    assert (OPEN_SECONDS + 0.1) * 1000 <= row.longest_ms <= most_ms, "not a sum"


def test_a_close_before_does_not_make_an_opening_earlier_nor_one_after_later(
    rig: Rig, client: Pod, server: Pod, caller: Caller
) -> None:
    """The peer's address may have gone to another pod between the two."""
    caller.open()
    times = [time.monotonic()]
    rig.rows()
    times.append(time.monotonic())
    caller.close()
    time.sleep(OPEN_SECONDS)
    times.append(time.monotonic())
    caller.open()
    times.append(time.monotonic())
    time.sleep(OPEN_SECONDS)
    caller.close()
    (row,) = [row for row in rig.rows(client, server) if row.pod == "client"]
    step_ms = (time.monotonic() - times[0]) * 1000 / 127 + 1
    assert row.count == 1
    assert (times[2] - times[1]) * 1000 - step_ms <= row.first_ms == row.last_ms <= (times[3] - times[0]) * 1000 + 1


def test_the_last_packets_of_a_pod_that_went_without_a_word_come_from_who_has_its_address_now(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    """Why ages are told at all: a server's end of a connection is closed by the next owner of its client's address."""
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())

        def serve(ready: Ready) -> None:
            with socket.create_server((network.server_address, PORT)) as listener:
                ready()
                connection, _peer = listener.accept()
                theirs.recv(1)
                connection.sendall(b"are you there?")
                connection.close()

        def hold(ready: Ready) -> None:
            with socket.create_connection((network.server_address, PORT), DEADLINE_SECONDS):
                ready()
                time.sleep(DEADLINE_SECONDS)

        stack.callback(server.start("backend", serve).kill)
        holder = client.start("gone", hold)
        rig.rows()
        sh(f"ip -n {network.router.name} link set {network.client.name}1 down")
        try:
            holder.kill()  # its last packets reach nobody
            time.sleep(OPEN_SECONDS)
            assert not [row for row in rig.rows(server) if row.port == PORT]
        finally:
            sh(f"ip -n {network.router.name} link set {network.client.name}1 up")
            network.router.sh(f"ip -6 addr replace fd00:251:1::1/64 dev {network.client.name}1 nodad")
        ours.send(b"c")  # the address answers again, and knows nothing of that connection
        rows = rig.rows_until(lambda rows: any(row.longest_ms for row in rows), server)
    (row,) = [row for row in rows if row.port == PORT]
    assert (row.remote, row.outcome, row.count) == (network.client_address, "ESTABLISHED", 0)
    assert row.longest_ms >= OPEN_SECONDS * 1000


def test_an_answer_by_udp_says_how_long_ago_it_was_asked_for(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    """Whoever asked may be gone by then, and its address somebody else's."""
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())

        def answer(ready: Ready) -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
                listener.bind((network.server_address, PORT))
                ready()
                for _ in range(2):
                    _question, peer = listener.recvfrom(9)
                theirs.send(b"asked")
                theirs.recv(1)
                listener.sendto(b"late", peer)
                theirs.send(b"said")

        def ask(ready: Ready) -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
                caller.sendto(b"question", (network.server_address, PORT))
                time.sleep(OPEN_SECONDS)
                caller.sendto(b"question", (network.server_address, PORT))
                ready()

        stack.callback(server.start("backend", answer).kill)
        began = time.monotonic()
        client.start("caller", ask).wait()
        assert ours.recv(5) == b"asked"
        asked = rig.rows(server)
        time.sleep(OPEN_SECONDS)
        ours.send(b"a")
        assert ours.recv(4) == b"said"
        (row,) = rig.rows(server)
    most_ms = (time.monotonic() - began) * 1000 - OPEN_SECONDS * 1000 + 2
    assert [(each.direction, each.count, each.longest_ms) for each in asked] == [("INGRESS", 2, 0)]
    assert (row.direction, row.remote, row.count) == ("INGRESS", network.client_address, 0)
    assert OPEN_SECONDS * 1000 <= row.longest_ms <= most_ms, "since the last question"
