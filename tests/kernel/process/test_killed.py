"""An agent that is killed loses nothing that the kernel had counted, and counts nothing twice, whenever it was killed.

Real maps, real pins, a real spool on the disk, and SIGKILL before one line after another of the way from the map to the
spool. No program is attached: what matters here are the maps, and a capture takes seconds to open. What programs would
go on counting while no agent runs, the test writes into the map that they would find.
"""

import os
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from agent.errors import SelfTestError
from agent.flow import FlowKey, FlowStats
from agent.kernel import bpf, stage
from agent.kernel.backends import TRACEPOINT, BackendName
from agent.kernel.capture import Capture, CaptureRequest
from agent.kernel.headers import CgroupSource
from agent.kernel.loader import Loaded
from agent.kernel.maps import Counter, possible_cpus
from agent.kernel.pins import Pins
from agent.pipeline import Pipeline
from agent.spool import Spool
from agent.spool.queue import SpoolLimits
from tests.kernel.rig import DEADLINE_SECONDS, decode, sh
from tests.property.agent.test_columns import resolver
from wattle.v1 import flowlink_pb2

FLOWS, ROWS = 503, 211  # three parts of a drain
LATER = range(1001, 1101)  # ports of what happens while no agent runs
ROOM = 2048
BOOT = "00000000-0000-4000-8000-000000000000"
ON_THE_WAY = tuple(
    f"/agent/{name}.py" for name in ("kernel/stage", "kernel/maps", "kernel/pins", "pipeline", "spool/queue")
)
RUNS = 60 if DEADLINE_SECONDS <= 60 else 7  # a process takes seconds to be born where the machine is emulated
REQUEST = CaptureRequest(
    backend=BackendName.AUTO, cgroups=CgroupSource(hierarchy_id=0), cgroup_v2_root=None, flow_entries=ROOM
)
ANOTHER_REQUEST = replace(REQUEST, flow_entries=2 * ROOM)


def maps() -> dict[str, int]:
    """As a loader would make them (enum bpf_map_type)."""
    shape = (1, FlowKey.itemsize, FlowStats.itemsize, ROOM)
    inner = {"flows_0": create_map(*shape), "flows_1": create_map(*shape)}
    return {
        **inner,
        "flows": create_map(12, 4, 4, 1, inner=inner["flows_0"]),
        "counters": create_map(6, 4, 8, len(Counter)),
        "announcements": create_map(27, 0, 0, 4096),
        "sightings": create_map(9, 16, 8, 16),
    }


def count(outer_fd: int, ports: range) -> None:
    """As the kernel would, into the map that is in use: each flow as many times as its port says."""
    keys, stats = np.zeros(len(ports), FlowKey), np.zeros(len(ports), FlowStats)
    keys["cgroup_id"], keys["protocol"], keys["direction"], keys["confidence"] = 3, 6, 2, 1
    keys["remote"][:, 0] = 9
    keys["port"] = stats["count"] = ports
    stats["first_ns"] = stats["last_ns"] = 10**9
    inner, _ = bpf._call(14, bpf._attr("<I", bpf.inner_map_id(outer_fd) or 0), "BPF_MAP_GET_FD_BY_ID")
    attr = bytearray(128)
    struct.pack_into("<QQQQII", attr, 0, 0, 0, keys.ctypes.data, stats.ctypes.data, len(ports), inner)
    bpf._call(26, attr, "BPF_MAP_UPDATE_BATCH")
    os.close(inner)


def create_map(kind: int, key_bytes: int, value_bytes: int, entries: int, *, inner: int = 0) -> int:
    made, _ = bpf._call(0, bpf._attr("<IIIIII", kind, key_bytes, value_bytes, entries, 0, inner), "BPF_MAP_CREATE")
    return made


class Life:
    """One agent from the map to the spool, as it composes them."""

    def __init__(self, directory: Path, request: CaptureRequest = REQUEST) -> None:
        self.pins = Pins(directory / "bpf" / "wattle")
        found = self.pins.take_over(request, lambda _capture: None)
        if found is None:
            self.pins.silence()
            found = Capture(TRACEPOINT, Loaded(maps=maps(), programs={}, links=(), skipped=()), ())
            self.pins.pin(found, request)
        self.capture = found
        self.spool = Spool(directory / "spool", boot_id=BOOT, limits=SpoolLimits())
        self.pipeline = Pipeline(source=self.capture, resolver=resolver(), sink=self.spool)
        self.pipeline.begin_with(self.pins.leftovers)


class Killer:
    """Counts the lines that run on the way from map to spool, and dies before one of them."""

    def __init__(self, line: int) -> None:
        self.lines = 0
        self._line = line

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(ON_THE_WAY):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self._line:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def live_and_die(directory: Path, *, at_line: int, counts: bool, request: CaptureRequest = REQUEST) -> int:
    """A life in a process of its own; the lines that it ran, or 0 when it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            life = Life(directory, request)
            if counts:
                count(life.capture.loaded.maps["flows"], range(1, FLOWS + 1))
            killer = Killer(at_line)
            sys.settrace(killer)
            life.pipeline.turn()
            sys.settrace(None)
            os.write(writing, str(killer.lines).encode())
        finally:
            os._exit(1)  # without a word to the spool or the pins: dead, in any case
    os.close(writing)
    os.waitpid(pid, 0)
    said = os.read(reading, 16)
    os.close(reading)
    return int(said or b"0")


def batches(spool: Spool) -> Iterator[flowlink_pb2.Batch]:
    seq = 0
    while (pending := spool.next_after(seq)) is not None:
        yield flowlink_pb2.AgentMessage.FromString(pending.message).batch
        seq = pending.to_seq


def count_without_an_agent(directory: Path) -> None:
    """As the programs of a dead agent do."""
    [folder] = (directory / "bpf" / "wattle").iterdir()
    outer = bpf.get_pinned(str(folder / "flows"))
    count(outer, LATER)
    os.close(outer)


def delivered(directory: Path, request: CaptureRequest, *, taken_over: bool) -> dict[int, int]:
    """What the last agent finds in the spool after its first turn: port -> count."""
    life = Life(directory, request)
    assert life.capture.taken_over is taken_over
    life.pipeline.turn()
    found: dict[int, int] = {}
    for batch in batches(life.spool):
        for row in decode(batch):
            found[row.port] = found.get(row.port, 0) + row.count
    folders = len(list((directory / "bpf" / "wattle").iterdir()))
    life.pipeline.close()
    life.pins.close(orderly=True)
    life.capture.close()
    life.spool.close()
    assert folders == 1, "what earlier agents pinned is gone"
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("making and pinning BPF maps needs root; run `make test-kernel`")
    (tmp_path / "bpf").mkdir()
    sh(f"mount -t bpf bpf {tmp_path / 'bpf'}")
    yield tmp_path
    sh(f"umount {tmp_path / 'bpf'}")


@pytest.mark.parametrize("request_after", [REQUEST, ANOTHER_REQUEST], ids=["taken-over", "emptied"])
def test_killed_before_any_line_loses_nothing_and_doubles_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, request_after: CaptureRequest
) -> None:
    """Whether the next agent takes over, or has other settings and empties what it finds."""
    monkeypatch.setattr(stage, "ROWS", ROWS)
    monkeypatch.setattr(stage, "BYTES", 8 * 32 + ROWS * (FlowKey.itemsize + FlowStats.itemsize))
    expected = {port: port for port in (*range(1, FLOWS + 1), *LATER)}
    whole = directory / "whole"
    whole.mkdir()
    (whole / "bpf").symlink_to(directory / "bpf")
    lines = live_and_die(whole, at_line=0, counts=True)
    assert lines > 100
    count_without_an_agent(whole)
    same = request_after == REQUEST
    assert delivered(whole, request_after, taken_over=same) == expected, "appended, but its pins are still there"
    for run, line in enumerate(range(1, lines, max(1, lines // RUNS))):
        one = directory / f"at-{line}"
        one.mkdir()
        (one / "bpf").symlink_to(directory / "bpf")
        assert live_and_die(one, at_line=line, counts=True) == 0
        count_without_an_agent(one)
        # Every other time the one that clears up after it is killed, too.
        if run % 2:
            live_and_die(one, at_line=1 + line * 7 % lines, counts=False, request=request_after)
        found = delivered(one, request_after, taken_over=same or run % 2 == 1)
        assert found == expected, f"killed before line {line} of {lines}"


def test_what_will_be_emptied_is_silenced_first(directory: Path) -> None:
    """Its programs may run a while yet: the end of a pinned link is not synchronous."""
    live_and_die(directory, at_line=0, counts=False)
    pins = Pins(directory / "bpf" / "wattle")
    assert pins.take_over(ANOTHER_REQUEST, lambda _capture: None) is None
    [folder] = (directory / "bpf" / "wattle").iterdir()
    outer = bpf.get_pinned(str(folder / "flows"))
    assert bpf.inner_map_id(outer) is not None
    pins.silence()
    assert bpf.inner_map_id(outer) is None
    os.close(outer)
    pins.close(orderly=True)


def test_a_capture_that_does_not_work_is_not_taken_over(directory: Path) -> None:
    """What it had counted is delivered all the same."""
    live_and_die(directory, at_line=1, counts=True)
    pins = Pins(directory / "bpf" / "wattle")

    def fail(_capture: Capture) -> None:
        raise SelfTestError("a known connection was not seen")

    assert pins.take_over(REQUEST, fail) is None
    pins.silence()
    found = sum(len(drained) for drained, _stage in pins.leftovers(lambda _place: False))
    pins.close(orderly=True)
    assert found == FLOWS


def test_losses_that_were_told_are_not_told_again(directory: Path) -> None:
    """They are the kernel's, cumulative, and outlive the agent with its programs."""
    told: list[int] = []
    for lost in (7, 7, 9):
        life = Life(directory)
        cell = struct.pack("<Q", lost) + bytes(8 * (possible_cpus() - 1))
        bpf.update(life.capture.loaded.maps["counters"], struct.pack("<I", Counter.MAP_FULL), cell)
        life.pipeline.turn()
        told.append(sum(batch.loss.map_full for batch in batches(life.spool)) - sum(told))
        life.pipeline.close()
        life.capture.close()
        life.spool.close()
        os.close(life.pins._lock)
    assert told == [7, 0, 2]
