"""Nothing is lost at the boundary; what must be refused is counted."""

import contextlib
import os
import socket
import struct
from dataclasses import replace

from agent.config import AgentConfig
from agent.kernel.maps import Counter
from tests.kernel.rig import DEADLINE_SECONDS, Network, Pod, Ready, Rig, open_rig, total


def test_swapping_while_connections_come_loses_none(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    """BCC's items() then clear() lost 36,000 to 56,000 ppm here."""
    address, swaps = (network.server_address, 8401), 13
    ours, theirs = socket.socketpair()

    def serve(ready: Ready) -> None:
        with socket.create_server(address, backlog=64) as listener:
            ready()
            while True:
                listener.accept()[0].close()

    def call(ready: Ready) -> None:
        made = 0
        theirs.setblocking(False)
        ready()
        while True:
            with contextlib.suppress(BlockingIOError):
                theirs.recv(4)
                break
            socket.create_connection(address, timeout=DEADLINE_SECONDS).close()
            made += 1
        theirs.send(struct.pack("<Q", made))

    with ours, theirs:
        server.start("backend", serve)
        caller = client.start("caller", call)
        rows, refused = [], 0
        for _ in range(swaps):
            rows += rig.rows(client, server)
            refused += rig.loss.map_full + rig.loss.program_missed
        ours.send(b"stop")
        (made,) = struct.unpack("<Q", ours.recv(8))
        caller.wait()
    rows += rig.rows(client, server)
    refused += rig.loss.map_full + rig.loss.program_missed
    assert made > swaps
    # The kernel skips a program that an event of its own interrupts: on a busy machine that happens, and is counted.
    for pod, direction in (("client", "EGRESS"), ("server", "INGRESS")):
        counted = total(rows, pod=pod, direction=direction, port=8401)[0]
        assert counted <= made <= counted + refused


def test_full_map_refuses_new_flows_and_counts_them(
    rig: Rig, network: Network, client: Pod, config: AgentConfig
) -> None:
    """A plain hash map refuses; an LRU map would evict others' counts without a trace."""
    del rig
    room, flows = 16, 101
    small = open_rig(replace(config, flow_entries=room))

    def fan_out() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            for port in range(20_000, 20_000 + flows):
                caller.sendto(b"x", (network.server_address, port))

    try:
        client.run("fan-out", fan_out)
        rows = small.rows(client)
        counted = sum(row.count for row in rows)
        assert counted <= room
        assert counted + small.loss.map_full >= flows
        after = small.rows()
        assert small.loss.map_full == 0, "losses are told once"
        assert not [row for row in after if row.pod == "client"]
        client.run("fan-out", lambda: fan_in(network))
        assert total(small.rows(client), port=20_999)[0] == 1, "the next interval has room again"
    finally:
        small.close()


def fan_in(network: Network) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"x", (network.server_address, 20_999))


def test_announcements_that_find_no_room_are_counted(rig: Rig) -> None:
    """64 pages hold some 770 new control groups; what comes beyond is lost, and said so."""
    root = rig.node.cgroups
    before = rig.node.capture.counters()[Counter.RING_LOST]
    folders = [root.hierarchy_root / f"wattle-ring-{os.getpid()}-{number}" for number in range(900)]
    try:
        for folder in folders:
            folder.mkdir()
        assert rig.node.capture.counters()[Counter.RING_LOST] > before
    finally:
        for folder in folders:
            if folder.exists():
                folder.rmdir()
    rig.rows()
    assert rig.loss.ring_lost > 0
