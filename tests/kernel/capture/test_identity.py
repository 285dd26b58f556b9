"""Whose flow it is: pods that live a second, hostNetwork, cgroup v1, processes outside any pod, hops inside a pod."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.identity.cgroups import Hierarchy, find_hierarchy
from agent.kernel.capture import CgroupCreatedEvent, FirstSightEvent
from tests.kernel.conftest import PodMaker
from tests.kernel.rig import DEADLINE_SECONDS, Groups, Network, Pod, Ready, Rig, open_rig, tcp_client, tcp_server, total


def test_names_come_from_the_log_folders(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    listening = server.start("backend", tcp_server((network.server_address, 8201), connections=1))
    client.run("caller", tcp_client((network.server_address, 8201)))
    listening.wait()
    (row,) = {row for row in rig.rows(client) if row.count}
    assert (row.namespace, row.pod, row.container, row.container_id) == ("shop", "client", "main", client.container_id)
    assert row.own == network.client_address
    assert not row.host_network


def test_pod_that_is_gone_before_the_drain_is_named(
    rig: Rig, network: Network, server: Pod, make_pod: PodMaker
) -> None:
    """A CronJob's pod: its control group and its log folder are removed before anybody drains."""
    listening = server.start("backend", tcp_server((network.server_address, 8202), connections=1))
    job = make_pod("report-1", network.client, container="job")
    job.run("report", tcp_client((network.server_address, 8202)))
    listening.wait()
    rig.pipeline.hear()  # what the event loop does as soon as the ring is readable
    job.remove()
    (job.logs / "job").rmdir()
    job.logs.rmdir()
    rows = [row for row in rig.rows() if row.port == 8202 and row.direction == "EGRESS"]
    assert {(row.pod, row.namespace, row.container) for row in rows} == {("report-1", "shop", "job")}
    assert rig.loss.unresolved == 0


def test_storm_of_short_pods_names_every_one(rig: Rig, network: Network, server: Pod, make_pod: PodMaker) -> None:
    """Nobody listens to the ring until the drain: the control group's creation told its path already."""
    storm = 53
    listening = server.start("backend", tcp_server((network.server_address, 8203), connections=storm))
    for number in range(storm):
        pod = make_pod(f"job-{number}", network.client)
        pod.run("burst", tcp_client((network.server_address, 8203)))
        pod.remove()
    listening.wait()
    rows = [row for row in rig.rows() if row.port == 8203 and row.direction == "EGRESS" and row.count]
    assert {row.pod for row in rows} == {f"job-{number}" for number in range(storm)}
    assert [row.count for row in rows] == [1] * storm
    assert rig.loss.ring_lost == 0


def test_process_outside_any_pod_is_counted_and_not_reported(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for _ in range(5):
            socket.create_connection(listener.getsockname()).close()
        rows = rig.rows()
    assert not [row for row in rows if row.port == port]
    assert rig.loss.not_a_pod >= 10


def test_loopback_and_mesh_hops_stay_inside_the_pod(rig: Rig, network: Network, client: Pod, server: Pod) -> None:
    """127.0.0.1, a proxy's 127.0.0.6, the pod's own address, and the redirect port 15006 are no links."""

    def within(address: str, port: int, source: str | None = None) -> None:
        def body() -> None:
            with socket.create_server((address, port)) as listener:
                own = (source, 0) if source else None
                caller = socket.create_connection((address, port), timeout=DEADLINE_SECONDS, source_address=own)
                listener.accept()[0].close()
                caller.close()

        client.run("inside", body)

    within("127.0.0.1", 8204)
    within("127.0.0.1", 8205, source="127.0.0.6")
    within(network.client_address, 8206)
    listening = server.start("envoy", tcp_server((network.server_address, 15006), connections=1))
    client.run("caller", tcp_client((network.server_address, 15006)))
    listening.wait()
    rows = [row for row in rig.rows(client, server) if row.count]
    assert [(row.pod, row.direction, row.port) for row in rows] == [("client", "EGRESS", 15006)]
    assert rig.loss.mesh_loopback >= 7


def test_host_network_pods_are_told_apart_by_cgroup(
    rig: Rig, network: Network, make_pod: PodMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pods in one namespace, which is taken for the node's: the cookie names neither of them."""
    inode = Path(f"/run/netns/{network.router.name}").stat().st_ino
    monkeypatch.setattr(rig.node.resolver, "_host_netns_inode", inode)
    monkeypatch.setattr(rig.node.resolver, "_host_cookie", 0)
    first, second = make_pod("agent-a", network.router), make_pod("agent-b", network.router)
    peer = make_pod("peer", network.client)
    listening = peer.start("backend", tcp_server((network.client_address, 8207), connections=2))
    first.run("a", tcp_client((network.client_address, 8207)))
    second.run("b", tcp_client((network.client_address, 8207)))
    listening.wait()
    rows = rig.rows(first, second)
    assert {(row.pod, row.process, row.count, row.host_network) for row in rows if row.count} == {
        ("agent-a", "a", 1, True),
        ("agent-b", "b", 1, True),
    }
    assert total(rows, port=8207)[0] == 2


def test_a_pod_is_announced_once_however_many_flows_it_has(rig: Rig, network: Network, make_pod: PodMaker) -> None:
    """The ring has room for pods, not for flows."""
    pod = make_pod("talkative", network.client)
    rig.pipeline.hear()

    def fan_out() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            for port in range(8220, 8240):
                caller.sendto(b"x", (network.server_address, port))

    pod.run("fan-out", fan_out)
    sights = [each for each in rig.node.capture.announcements() if isinstance(each, FirstSightEvent)]
    pairs = [(each.cgroup_id, each.netns_cookie) for each in sights]
    assert pairs
    assert len(pairs) == len(set(pairs))
    assert total(rig.rows(pod))[0] == 20


def test_groups_of_another_hierarchy_are_not_heard(rig: Rig, config: AgentConfig) -> None:
    """Ids are each hierarchy's own: a group of another one would lend its path to a pod's id."""
    if rig.node.cgroups.hierarchy_root == config.cgroup_root:
        pytest.skip("this kernel has no cgroup v1 hierarchy of pids mounted")
    rig.pipeline.hear()
    own = rig.node.cgroups.hierarchy_root / f"wattle-own-{os.getpid()}"
    other = v1_hierarchy().root / f"wattle-other-{os.getpid()}"
    own.mkdir()
    other.mkdir()
    try:
        heard = [each.path for each in rig.node.capture.announcements() if isinstance(each, CgroupCreatedEvent)]
    finally:
        own.rmdir()
        other.rmdir()
    assert f"/{own.name}" in heard
    assert f"/{other.name}" not in heard


def v1_hierarchy() -> Hierarchy:
    config = AgentConfig()
    found = find_hierarchy(config.cgroup_root, proc=config.proc_root)
    if found.subsystem is None:
        pids = config.cgroup_root / "pids"
        if not pids.is_dir():
            pytest.skip("this kernel has no cgroup v1 hierarchy of pids mounted")
        fields = [line.split() for line in Path("/proc/cgroups").read_text(encoding="ascii").splitlines()]
        hierarchy_id = next(int(field[1]) for field in fields if field[0] == "pids")
        return replace(found, root=pids, subsystem="pids", hierarchy_id=hierarchy_id)
    return found


def test_cgroup_v1_gives_the_same_answers(
    network: Network, logs: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingress needs the listener's owner here: a socket carries no v1 group."""
    hierarchy = v1_hierarchy()
    monkeypatch.setattr("agent.node.find_hierarchy", lambda *_args, **_kwargs: hierarchy)
    groups = Groups(hierarchy, "v1")
    old = Pod("old-v1", number=901, namespace=network.server, groups=groups, logs=logs)
    before = old.start("before", tcp_server((network.server_address, 8208), connections=1))
    rig = open_rig(config)
    pods = [old]
    try:
        rig.pipeline.look()  # names who listened before the agent came
        client = Pod("client-v1", number=902, namespace=network.client, groups=groups, logs=logs)
        server = Pod("server-v1", number=903, namespace=network.server, groups=groups, logs=logs)
        pods += [client, server]
        after = server.start("after", tcp_server((network.server_address, 8209), connections=1))
        client.run("caller", tcp_client((network.server_address, 8208)))
        client.run("caller", tcp_client((network.server_address, 8209)))
        before.wait()
        after.wait()
        rows = [row for row in rig.rows(*pods) if row.count]
        assert {(row.pod, row.direction, row.port, row.process) for row in rows} == {
            ("client-v1", "EGRESS", 8208, "caller"),
            ("client-v1", "EGRESS", 8209, "caller"),
            ("old-v1", "INGRESS", 8208, "before"),
            ("server-v1", "INGRESS", 8209, "after"),
        }
    finally:
        rig.close()
        for pod in pods:
            pod.remove()
        groups.remove_all()


def test_agent_that_comes_while_a_server_listens_names_it(
    network: Network, make_pod: PodMaker, rig: Rig, config: AgentConfig
) -> None:
    """Row 3: no restart of anything is needed."""
    del rig
    server, client = make_pod("early", network.server), make_pod("late-caller", network.client)
    done = socket.socketpair()

    def serve(ready: Ready) -> None:
        listener = socket.create_server((network.server_address, 8210))
        ready()
        for _ in range(2):
            connection, _peer = listener.accept()
            connection.recv(1)
            done[1].send(b"x")
        os.read(done[1].fileno(), 1)

    with done[0], done[1]:
        listening = server.start("early-bird", serve)

        def hold() -> None:
            with socket.create_connection((network.server_address, 8210), timeout=DEADLINE_SECONDS) as caller:
                caller.send(b"1")

        client.run("first", hold)
        done[0].recv(1)
        late = open_rig(config)
        try:
            client.run("second", hold)
            done[0].recv(1)
            rows = [row for row in late.rows(server, client) if row.count]
        finally:
            late.close()
        done[0].send(b"x")
        listening.wait()
    assert {(row.pod, row.direction, row.port, row.count) for row in rows} == {
        ("early", "INGRESS", 8210, 1),
        ("late-caller", "EGRESS", 8210, 1),
    }
