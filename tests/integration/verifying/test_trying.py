"""What a trial's client does, as a process on loopback: rules that come late, and one family that is not guarded."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from aggregator.model.verdict import Verdict
from aggregator.model.workload import Workload
from aggregator.policy.trial import Pair
from aggregator.services.verifying import objects
from aggregator.services.verifying.objects import Target, trying
from aggregator.services.verifying.verify import compared
from tests.unit.policy_gen.town import pod

V4, V6 = "127.0.0.1", "::1"
PATIENCE_SECONDS = 8.0


def free_port() -> int:
    with socket.create_server((V4, 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def server(address: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as listening:
        yield listening


def said(folder: Path, *targets: Target) -> list[str]:
    log = folder / "log"
    command = [sys.executable, *trying(targets, 0.0, PATIENCE_SECONDS, str(log))[1:]]
    subprocess.run(command, check=True, timeout=60)
    found: list[str] = json.loads(log.read_text())
    return found


def test_each_address_has_a_letter(tmp_path: Path) -> None:
    port, closed = free_port(), free_port()
    with server(V4, port), server(V6, port):
        targets = (
            Target(addresses=(V4, V6), port=port, open=True),
            Target(addresses=(V4, V6), port=closed, open=False),
        )
        started = time.monotonic()
        assert said(tmp_path, *targets) == ["oo", "rr"]
        assert time.monotonic() - started < PATIENCE_SECONDS, "what is as expected is tried once"


def test_one_family_that_is_not_guarded_is_told(tmp_path: Path) -> None:
    port = free_port()
    with server(V6, port):
        assert said(tmp_path, Target(addresses=(V4, V6), port=port, open=False)) == ["ro"]


def test_a_server_that_may_be_called_a_little_later_is_open(tmp_path: Path) -> None:
    port, opened = free_port(), threading.Event()

    def later() -> None:
        time.sleep(2)
        with server(V4, port):
            opened.wait(30)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert said(tmp_path, Target(addresses=(V4,), port=port, open=True)) == ["o"]
    finally:
        opened.set()
        thread.join()


def test_a_server_that_may_not_be_called_a_little_later_is_refused(tmp_path: Path) -> None:
    port = free_port()
    with server(V4, port) as listening:
        threading.Timer(2, lambda: listening.shutdown(socket.SHUT_RDWR)).start()
        assert said(tmp_path, Target(addresses=(V4,), port=port, open=False)) == ["r"]


def test_two_hundred_pairs_fit_into_a_termination_message() -> None:
    assert len(json.dumps(["oo"] * 200)) < 4096
    assert {objects.WORDS[letter] for letter in "orn"} == {"open", "refused", "no-answer"}


def test_what_differs_at_one_address_is_told_with_it() -> None:
    owner = Workload(cluster="c", namespace="shop", kind="Deployment", name="web")
    denied = Pair(src=pod(owner, V4), dst=pod(owner, V4), port=80, expected=Verdict.DENIED, because="")
    allowed = replace(denied, expected=Verdict.ALLOWED)
    for pair, letters, told in (
        (denied, "rn", ("refused", "", True)),
        (denied, "ro", ("open", V6, False)),
        (denied, "oo", ("open", "", False)),
        (allowed, "oo", ("open", "", True)),
        (allowed, "on", ("no-answer", V6, False)),
        (allowed, "", ("", "", None)),
    ):
        found = compared(pair, (V4, V6), letters)
        assert (found.outcome, found.address, found.agrees) == told, letters
