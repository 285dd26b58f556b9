"""Nothing is lost at the boundary; what must be refused is counted."""

import contextlib
import ctypes
import os
import signal
import socket
import struct
from dataclasses import replace

import numpy as np

from agent.config import AgentConfig
from agent.flow import Direction, FlowKey
from agent.kernel import bpf
from agent.kernel.maps import Counter
from tests.kernel.rig import DEADLINE_SECONDS, Network, Pod, Ready, Rig, open_rig, tcp_client, tcp_server, total


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


def test_event_that_passed_the_first_program_by_is_counted_by_the_second_and_once(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    """Which happens when a softirq interrupts the first one: here its memory of the connection is taken away."""
    address = (network.server_address, 8402)

    def hold(ready: Ready) -> None:
        with socket.create_connection(address, timeout=DEADLINE_SECONDS):
            ready()
            signal.pause()

    def serve(ready: Ready) -> None:
        with socket.create_server(address) as listener:
            ready()
            listener.accept()
            signal.pause()

    serving, holding = server.start("backend", serve), client.start("caller", hold)
    try:
        assert total(rig.rows(client), port=8402)[0] == 1
        sk = socket_of(rig, port=8402, direction=Direction.EGRESS)
        bpf.delete(rig.node.capture.loaded.maps["connections"], sk)
        run_again(rig, sk)
        assert total(rig.rows(client), direction="EGRESS", port=8402)[0] == 1
        run_again(rig, sk)
        assert total(rig.rows(client), port=8402)[0] == 0
    finally:
        holding.kill()
        serving.kill()


def test_connection_that_is_over_is_not_taken_for_an_open_one(
    rig: Rig, network: Network, client: Pod, server: Pod
) -> None:
    """Its socket's address is given to another one, a listener's perhaps."""
    address, made = (network.server_address, 8403), 5
    listening = server.start("backend", tcp_server(address, connections=made))
    client.run("caller", tcp_client(address, connections=made, request=b"x"))
    listening.wait()
    sides = ({"pod": "client", "port": 8403}, {"pod": "server", "port": 8403})
    rows = rig.rows_until(lambda rows: sum(sum(total(rows, **side)[1:]) for side in sides) == 2 * made, client, server)
    assert [total(rows, **side) for side in sides] == [(made, made, 0), (made, 0, made)], "not closed yet"
    assert not any(state for _sk, flow, state in connections(rig) if flow["port"] == 8403)


def connections(rig: Rig) -> list[tuple[bytes, np.void, int]]:
    """The map `connections`: (the socket's address, its flow, enum connection_state)."""
    map_fd = rig.node.capture.loaded.maps["connections"]
    info = bpf.map_info(map_fd)
    layout = [("since_ns", "<u8"), ("flow", FlowKey), ("pid", "<u4"), ("error", "<u2"), ("state", "u1")]
    size = sum(np.dtype(kind).itemsize for _name, kind in layout)
    layout.append(("rest", f"V{info.value_bytes - size}"))
    keys, values = np.empty(info.max_entries, "<u8"), np.empty(info.max_entries, np.dtype(layout))
    filled = bpf.BatchCursor(map_fd).read(keys.ctypes.data, values.ctypes.data, info.max_entries)
    return [(keys[i].tobytes(), values["flow"][i], int(values["state"][i])) for i in range(filled)]


def socket_of(rig: Rig, *, port: int, direction: Direction) -> bytes:
    (found,) = (sk for sk, flow, _state in connections(rig) if (flow["port"], flow["direction"]) == (port, direction))
    return found


def run_again(rig: Rig, sk: bytes) -> None:
    """BPF_PROG_TEST_RUN of the second program, with the tracepoint's arguments: SYN_SENT to ESTABLISHED."""
    arguments = ctypes.create_string_buffer(sk + struct.pack("<QQ", 2, 1))
    program, size = rig.node.capture.loaded.programs["inet_sock_set_state_again"], len(arguments.raw) - 1
    attr = bytearray(128)
    struct.pack_into("<IIIIQQIIIIQQ", attr, 0, program, 0, 0, 0, 0, 0, 0, 0, size, 0, ctypes.addressof(arguments), 0)
    bpf._call(10, attr, "running a program")


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
