"""Connections that were open before the agent came: found, with their direction, and never counted twice."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.config import AgentConfig
from agent.kernel.maps import Counter
from tests.kernel.rig import Network, Pod, Process, Ready, Rig, open_rig

PORT = 8301


@pytest.fixture
def pool(rig: Rig, network: Network, client: Pod, server: Pod) -> Iterator[tuple[Process, Process]]:
    """A connection that both sides keep, as a database pool does."""
    rig.rows()
    with ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)

        def serve(ready: Ready) -> None:
            with socket.create_server((network.server_address, PORT)) as listener:
                ready()
                connection, _peer = listener.accept()
                theirs.send(b"accepted")
                with connection:
                    connection.recv(1)

        def hold(ready: Ready) -> None:
            with (
                socket.create_connection((network.server_address, PORT)) as caller,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            ):
                datagrams.connect((network.server_address, 8125))
                ready()
                caller.recv(1)

        serving = server.start("database", serve)
        holding = client.start("pool", hold)
        assert ours.recv(8) == b"accepted"
        yield serving, holding
        holding.kill()
        serving.kill()


@pytest.mark.usefixtures("pool")
def test_open_connections_are_found_with_their_direction(
    rig: Rig, network: Network, client: Pod, server: Pod, config: AgentConfig
) -> None:
    del rig
    time.sleep(0.1)
    late = open_rig(config)
    try:
        late.pipeline.look()
        rows = late.taken(client, server)
        pods_ms = (time.time() - min(pod.logs.stat().st_ctime for pod in (client, server))) * 1000
        found = {
            (row.pod, row.direction, row.remote, row.port, row.protocol, row.outcome, row.process, row.confidence)
            for row in rows
        }
        late.pipeline.look()
        again = late.rows(client, server)
    finally:
        late.close()
    assert found == {
        ("client", "EGRESS", network.server_address, PORT, 6, "OPEN", "pool", "HIGH"),
        ("client", "EGRESS", network.server_address, 8125, 17, "OPEN", "pool", "HIGH"),
        ("server", "INGRESS", network.client_address, PORT, 6, "OPEN", "database", "HIGH"),
    }
    assert all(100 <= row.longest_ms <= pods_ms for row in rows), "no connection is older than its pod"
    assert len(again) == 3  # a later look keeps the link alive
    assert sum(row.count for row in again) == 0


def test_connection_seen_by_the_kernel_and_by_the_look_counts_once(
    rig: Rig, pool: tuple[Process, Process], client: Pod, server: Pod
) -> None:
    del pool
    rig.pipeline.look()
    rows = [row for row in rig.rows(client, server) if row.port == PORT]
    assert {(row.pod, row.outcome, row.count) for row in rows} == {
        ("client", "OPEN", 0),
        ("server", "OPEN", 0),
        ("client", "ESTABLISHED", 1),
        ("server", "ESTABLISHED", 1),
    }


def test_close_of_a_connection_older_than_the_agent_is_no_new_one(
    rig: Rig, pool: tuple[Process, Process], client: Pod, server: Pod, config: AgentConfig
) -> None:
    rig.rows()
    late = open_rig(config)

    def closed() -> int:
        return late.node.capture.counters()[Counter.UNKNOWN_CLOSE]

    try:
        before = closed()
        for process in pool:
            process.kill()
        rows = late.rows_until(lambda _rows: closed() >= before + 2, client, server)
        assert closed() >= before + 2, "both ends were seen to close, and said to be unknown"
    finally:
        late.close()
    assert [row for row in rows if row.port == PORT] == []
