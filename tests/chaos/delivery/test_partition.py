"""A bad network and a cut one, in network namespaces of the test's own: late is allowed, lost and double are not."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aggregator.store import migrate, open_store
from tests.certificates import Authority
from tests.chaos.ledger import Producer, compare, read_ledger
from tests.chaos.peer import ADDRESS
from tests.flowlink import CLUSTER

AGENT = f"wattle-chaos-a{os.getpid()}"
AGGREGATOR = f"wattle-chaos-b{os.getpid()}"


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@pytest.fixture
def network() -> Iterator[None]:
    try:
        for namespace in (AGENT, AGGREGATOR):
            run("ip", "netns", "add", namespace)
        run("ip", "-n", AGENT, "link", "add", "side", "type", "veth", "peer", "name", "side", "netns", AGGREGATOR)
        for namespace, address in ((AGENT, "10.203.7.1/24"), (AGGREGATOR, f"{ADDRESS}/24")):
            run("ip", "-n", namespace, "address", "add", address, "dev", "side")
            for link in ("side", "lo"):
                run("ip", "-n", namespace, "link", "set", link, "up")
        yield
    finally:
        for namespace in (AGENT, AGGREGATOR):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)


@contextlib.contextmanager
def peer(namespace: str, role: str, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "tests.chaos.peer", role, str(directory)]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def cut(*, on: bool) -> None:
    """Drop everything that comes in to the aggregator, without telling anybody."""
    if on:
        run("ip", "netns", "exec", AGGREGATOR, "nft", "add table inet cut")
        run(
            "ip", "netns", "exec", AGGREGATOR, "nft",
            "add chain inet cut input { type filter hook input priority 0; policy drop; }",
        )  # fmt: skip
    else:
        run("ip", "netns", "exec", AGGREGATOR, "nft", "delete table inet cut")


def bad_line() -> None:
    """Every twentieth packet is lost in both directions; late, too, where this kernel has netem."""
    for namespace in (AGENT, AGGREGATOR):
        nft = ("ip", "netns", "exec", namespace, "nft")
        run(*nft, "add table inet lossy")
        run(*nft, "add chain inet lossy input { type filter hook input priority -1; policy accept; }")
        run(*nft, 'add rule inet lossy input iifname "side" numgen random mod 100 < 5 counter drop')
    netem = ["tc", "-n", AGENT, "qdisc", "add", "dev", "side", "root", "netem", "delay", "60ms", "20ms"]
    done = subprocess.run(netem, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"no netem on this kernel ({done.stderr.strip()}): the line is lossy and cut, but not slow")


def dropped() -> int:
    """Packets that the bad line has lost."""
    lost = 0
    for namespace in (AGENT, AGGREGATOR):
        command = ["ip", "netns", "exec", namespace, "nft", "-j", "list", "table", "inet", "lossy"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lost += sum(int(packets) for packets in re.findall(r'"packets": (\d+)', listed))
    return lost


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("network")
def test_what_a_partition_holds_back_arrives_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server", "DNS:localhost")
    authority.issue("agent", f"URI:spiffe://wattle/{CLUSTER}/agent/node-0")
    ledger = tmp_path / "ledger"
    url = f"sqlite:///{tmp_path}/wattle.db"
    migrate(url)  # the test looks into it before the aggregator may have come that far

    def appended() -> int:
        return len(read_ledger(ledger))

    with peer(AGGREGATOR, "aggregator", tmp_path), peer(AGENT, "producer", tmp_path):
        store = open_store(url)
        try:
            wait(lambda: appended() > 20)

            def committed() -> int:
                return max((agent.committed_seq for agent in store.agents(CLUSTER)), default=0)

            wait(lambda: committed() > 20)
            bad_line()
            before = committed()
            wait(lambda: committed() > before + 50)
            assert dropped() > 0
            cut(on=True)
            held = committed()
            wait(lambda: appended() > held + 150)
            cut(on=False)
            wait(lambda: committed() > held + 150)
            (tmp_path / "stop").touch()
            wait((tmp_path / "done").exists)
            epoch, next_seq = map(int, (tmp_path / "done").read_text().split())
            producer = Producer(number=0, agent_id="node-0", epoch=epoch, next_seq=next_seq, ledger=read_ledger(ledger))
            verdict = compare(store, [producer])
        finally:
            store.close()
    assert (verdict.lost, verdict.double, verdict.remarks) == (0, 0, ())
    assert verdict.records > 1_000
