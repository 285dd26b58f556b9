"""An agent that is killed loses nothing that the kernel had counted, and counts nothing twice, whenever it was killed.

Real maps, real pins, a real spool on the disk, and SIGKILL before one line after another of the way from the map to the
spool. No program is attached: what matters here are the maps, and a capture takes seconds to open.
"""

import os
import signal
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from agent.flow import FlowKey, FlowStats
from agent.kernel import bpf, stage
from agent.kernel.capture import Announcement
from agent.kernel.maps import Counter, Drained, FlowMaps, Interval
from agent.kernel.pins import Pins
from agent.kernel.stage import Stage
from agent.pipeline import Pipeline
from agent.spool import Spool
from agent.spool.queue import SpoolLimits
from tests.kernel.rig import DEADLINE_SECONDS, decode, sh
from tests.property.agent.test_columns import resolver
from wattle.v1 import flowlink_pb2

FLOWS, ROWS = 503, 211  # three parts of a drain
ROOM = 1024
BOOT = "00000000-0000-4000-8000-000000000000"
ON_THE_WAY = tuple(
    f"/agent/{name}.py" for name in ("kernel/stage", "kernel/maps", "kernel/pins", "pipeline", "spool/queue")
)
RUNS = 60 if DEADLINE_SECONDS <= 60 else 7  # a process takes seconds to be born where the machine is emulated


class Maps:
    """What a Capture is to the pipeline, without its programs."""

    flow_entries = ROOM

    def __init__(self) -> None:
        shape = (1, FlowKey.itemsize, FlowStats.itemsize, ROOM)  # BPF_MAP_TYPE_HASH
        self.inner_fds = (create_map(*shape), create_map(*shape))
        self.outer_fd = create_map(12, 4, 4, 1, inner=self.inner_fds[0])  # BPF_MAP_TYPE_ARRAY_OF_MAPS
        self.stage = Stage.create()
        self._flows = FlowMaps(outer_fd=self.outer_fd, inner_fds=self.inner_fds, stage=self.stage)

    def count(self) -> None:
        """As the kernel would: each flow as many times as its port says."""
        keys, stats = np.zeros(FLOWS, FlowKey), np.zeros(FLOWS, FlowStats)
        keys["cgroup_id"], keys["protocol"], keys["direction"], keys["confidence"] = 3, 6, 2, 1
        keys["remote"][:, 0] = 9
        keys["port"] = stats["count"] = np.arange(1, FLOWS + 1)
        stats["first_ns"] = stats["last_ns"] = 10**9
        attr = bytearray(128)
        struct.pack_into("<QQQQII", attr, 0, 0, 0, keys.ctypes.data, stats.ctypes.data, FLOWS, self.inner_fds[0])
        bpf._call(26, attr, "BPF_MAP_UPDATE_BATCH")

    def swap(self) -> Interval:
        return self._flows.swap()

    def drain(self, interval: Interval) -> Iterator[Drained]:
        return self._flows.drain(interval)

    def counters(self) -> Mapping[Counter, int]:
        return dict.fromkeys(Counter, 0)

    def missed(self) -> int:
        return 0

    def announcements(self) -> Iterator[Announcement]:
        return iter(())


def create_map(kind: int, key_bytes: int, value_bytes: int, entries: int, *, inner: int = 0) -> int:
    made, _ = bpf._call(0, bpf._attr("<IIIIII", kind, key_bytes, value_bytes, entries, 0, inner), "BPF_MAP_CREATE")
    return made


class Life:
    """One agent from the map to the spool, as it composes them."""

    def __init__(self, directory: Path) -> None:
        self.pins = Pins(directory / "bpf" / "wattle")
        self.maps = Maps()
        self.pins.pin(self.maps)  # type: ignore[arg-type]
        self.spool = Spool(directory / "spool", boot_id=BOOT, limits=SpoolLimits())
        self.pipeline = Pipeline(source=self.maps, resolver=resolver(), sink=self.spool)
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


def live_and_die(directory: Path, *, at_line: int, counts: bool) -> int:
    """A life in a process of its own; the lines that it ran, or 0 when it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            life = Life(directory)
            if counts:
                life.maps.count()
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


def delivered(directory: Path) -> dict[int, int]:
    """What the last agent finds in the spool after its first turn: port -> count."""
    life = Life(directory)
    life.pipeline.turn()
    found: dict[int, int] = {}
    seq = 0
    while (pending := life.spool.next_after(seq)) is not None:
        for row in decode(flowlink_pb2.AgentMessage.FromString(pending.message).batch):
            found[row.port] = found.get(row.port, 0) + row.count
        seq = pending.to_seq
    folders = len(list((directory / "bpf" / "wattle").iterdir()))
    life.pipeline.close()
    life.pins.close()
    life.maps.stage.close()
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


def test_killed_before_any_line_loses_nothing_and_doubles_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "ROWS", ROWS)
    monkeypatch.setattr(stage, "BYTES", 8 * 32 + ROWS * (FlowKey.itemsize + FlowStats.itemsize))
    expected = {port: port for port in range(1, FLOWS + 1)}
    whole = directory / "whole"
    whole.mkdir()
    (whole / "bpf").symlink_to(directory / "bpf")
    lines = live_and_die(whole, at_line=0, counts=True)
    assert lines > 100
    assert delivered(whole) == expected, "appended, but its pins are still there"
    for run, line in enumerate(range(1, lines, max(1, lines // RUNS))):
        one = directory / f"at-{line}"
        one.mkdir()
        (one / "bpf").symlink_to(directory / "bpf")
        assert live_and_die(one, at_line=line, counts=True) == 0
        # Every other time the one that clears up after it is killed, too.
        if run % 2:
            live_and_die(one, at_line=1 + line * 7 % lines, counts=False)
        assert delivered(one) == expected, f"killed before line {line} of {lines}"
