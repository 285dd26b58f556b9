"""A spool on a disk that fills up, really."""

import os
import subprocess
from pathlib import Path

from agent.spool import Spool, SpoolLimits
from tests.flowlink import batch_of, flows
from wattle.v1 import flowlink_pb2


def fill(spool: Spool, count: int) -> None:
    for _ in range(count):
        spool.append(batch_of(flows(10)))


def drain(spool: Spool, after: int = 0) -> tuple[list[int], list[flowlink_pb2.Gap]]:
    batches: list[int] = []
    gaps: list[flowlink_pb2.Gap] = []
    while (pending := spool.next_after(after)) is not None:
        message = flowlink_pb2.AgentMessage.FromString(pending.message)
        if message.WhichOneof("message") == "batch":
            batches.append(message.batch.seq)
        else:
            gaps.append(message.gap)
        after = pending.to_seq
    return batches, gaps


def crash(spool: Spool) -> None:
    journal = spool._journal
    assert journal is not None
    spool._stop.set()
    for fd in (journal._fd, journal._state_fd, journal._lock_fd):
        if fd >= 0:
            os.close(fd)
    spool._journal = None


def test_a_full_disk_degrades_to_memory_and_recovers(tmp_path: Path) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)], check=True)
    now = [0.0]
    limits = SpoolLimits(memory_bytes=50_000, disk_bytes=1 << 20, segment_bytes=8_000)
    spool = Spool(directory / "spool", boot_id="boot", limits=limits, monotonic=lambda: now[0])
    try:
        fill(spool, 400)
        batches, gaps = drain(spool)
        assert len(batches) + sum(gap.to_seq - gap.from_seq + 1 for gap in gaps) == 400
        spool.acknowledge(400)
        now[0] = 100.0
        fill(spool, 5)
        assert drain(spool, 400) == ([401, 402, 403, 404, 405], [])
        crash(spool)
        again = Spool(directory / "spool", boot_id="boot", limits=limits)
        # Some numbers were given while nothing could be written: none of them may be given again.
        assert again.next_seq > 405
        again.close()
    finally:
        spool.close()
        subprocess.run(["umount", str(directory)], check=True)
