"""The spool: every number exactly once, as a batch or inside a Gap, whatever happens to the disk."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import SpoolError
from agent.spool import Spool, SpoolLimits
from agent.spool.records import RECORD_HEADER_BYTES
from tests.flowlink import batch_of, flows
from wattle.v1 import flowlink_pb2

SMALL = SpoolLimits(memory_bytes=20_000, disk_bytes=60_000, segment_bytes=6_000)
OpenSpool = Callable[..., Spool]


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[OpenSpool]:
    opened: list[Spool] = []

    def make(directory: Path | None = tmp_path / "spool", **options: object) -> Spool:
        spool = Spool(directory, **{"boot_id": "boot", "limits": SMALL} | options)  # type: ignore[arg-type]
        opened.append(spool)
        return spool

    yield make
    for spool in opened:
        spool.close()


def fill(spool: Spool, count: int, *, rows: int = 10) -> None:
    for _ in range(count):
        spool.append(batch_of(flows(rows)))


def drain(spool: Spool, after: int = 0) -> tuple[list[int], list[flowlink_pb2.Gap]]:
    """Everything that a stream would send: numbers of batches, and gaps."""
    batches: list[int] = []
    gaps: list[flowlink_pb2.Gap] = []
    while (pending := spool.next_after(after)) is not None:
        message = flowlink_pb2.AgentMessage.FromString(pending.message)
        assert pending.from_seq == after + 1
        if message.WhichOneof("message") == "batch":
            assert message.batch.seq == pending.from_seq == pending.to_seq
            batches.append(message.batch.seq)
        else:
            assert (message.gap.from_seq, message.gap.to_seq) == (pending.from_seq, pending.to_seq)
            gaps.append(message.gap)
        after = pending.to_seq
    assert after == spool.next_seq - 1
    return batches, gaps


def crash(spool: Spool) -> None:
    """What kill -9 leaves: the files as they are, the lock let go."""
    journal = spool._journal
    assert journal is not None
    spool._stop.set()
    for fd in (journal._fd, journal._state_fd, journal._lock_fd):
        os.close(fd)
    spool._journal = None


@pytest.mark.parametrize("on_disk", [True, False])
def test_batches_come_out_in_order_and_only_after_an_acknowledgement_leave(
    open_spool: OpenSpool, on_disk: bool
) -> None:
    spool = open_spool() if on_disk else open_spool(None)
    fill(spool, 5)
    assert drain(spool) == ([1, 2, 3, 4, 5], [])
    spool.acknowledge(3)
    assert (spool.first_seq, spool.waiting_batches) == (4, 2)
    assert drain(spool, 3)[0] == [4, 5]
    spool.acknowledge(5)
    assert (spool.first_seq, spool.next_seq, spool.waiting_bytes) == (6, 6, 0)


def test_memory_alone_evicts_the_oldest_into_one_gap(open_spool: OpenSpool) -> None:
    spool = open_spool(None)
    fill(spool, 200)
    batches, gaps = drain(spool)
    assert spool.waiting_bytes <= SMALL.memory_bytes
    assert batches == list(range(batches[0], 201))
    (gap,) = gaps
    assert (gap.from_seq, gap.to_seq, gap.reason) == (1, batches[0] - 1, flowlink_pb2.GAP_REASON_EVICTED)
    assert gap.records == 10 * (batches[0] - 1)


def test_what_was_evicted_is_told_in_a_later_batch_s_loss(open_spool: OpenSpool) -> None:
    spool = open_spool(None)
    fill(spool, 200)
    told = 0
    after = drain(spool)[1][0].to_seq
    while (pending := spool.next_after(after)) is not None:
        told += flowlink_pb2.AgentMessage.FromString(pending.message).batch.loss.spool_evicted
        after = pending.to_seq
    assert told > 0


def test_the_disk_stays_within_its_bound(open_spool: OpenSpool, tmp_path: Path) -> None:
    spool = open_spool()
    fill(spool, 500)
    used = sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.seg"))
    assert used <= SMALL.disk_bytes + SMALL.segment_bytes
    batches, gaps = drain(spool)
    assert len(batches) + sum(gap.to_seq - gap.from_seq + 1 for gap in gaps) == 500
    assert gaps
    assert sum(gap.records for gap in gaps) == 10 * (500 - len(batches))


def test_kill_9_loses_nothing(open_spool: OpenSpool) -> None:
    spool = open_spool()
    fill(spool, 20)
    spool.acknowledge(7)
    epoch = spool.epoch
    crash(spool)
    again = open_spool()
    assert (again.epoch, again.next_seq) == (epoch, 21)
    again.acknowledge(7)
    assert drain(again, 7) == (list(range(8, 21)), [])


def test_numbers_go_on_after_everything_was_acknowledged(open_spool: OpenSpool) -> None:
    spool = open_spool()
    fill(spool, 20)
    spool.acknowledge(20)
    crash(spool)
    assert open_spool().next_seq == 21


def test_a_reboot_never_gives_a_number_again(open_spool: OpenSpool) -> None:
    """The last second before a power loss may have been sent, committed, and never reached the disk."""
    spool = open_spool()
    fill(spool, 20)
    crash(spool)
    again = open_spool(boot_id="another boot")
    assert again.next_seq > 1_000
    batches, (gap,) = drain(again)
    assert batches == list(range(1, 21))
    assert (gap.from_seq, gap.reason) == (21, flowlink_pb2.GAP_REASON_TORN)


def test_a_torn_record_is_a_gap(open_spool: OpenSpool, tmp_path: Path) -> None:
    spool = open_spool()
    fill(spool, 3, rows=1)
    crash(spool)
    (segment,) = (tmp_path / "spool").glob("*.seg")
    os.truncate(segment, segment.stat().st_size - 5)
    again = open_spool()
    again.append(batch_of(flows(1)))
    batches, (gap,) = drain(again)
    assert batches[:2] == [1, 2]
    assert gap.from_seq == 3
    assert batches[2] == gap.to_seq + 1


def test_flipped_bits_cost_only_the_records_they_touch(open_spool: OpenSpool, tmp_path: Path) -> None:
    rng = random.Random(7)
    spool = open_spool(limits=SpoolLimits())
    fill(spool, 50, rows=3)
    crash(spool)
    (segment,) = (tmp_path / "spool").glob("*.seg")
    good = segment.read_bytes()
    for _ in range(200):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(28, len(data))] ^= 1 << rng.randrange(8)
        for path in (tmp_path / "spool").glob("*.seg"):
            path.unlink()
        segment.write_bytes(data)
        again = open_spool(limits=SpoolLimits())
        batches, gaps = drain(again)
        assert len(batches) >= 46
        assert gaps
        assert not set(batches) - set(range(1, 51))
        crash(again)


def test_a_bit_that_flips_while_the_agent_runs_is_a_gap(open_spool: OpenSpool, tmp_path: Path) -> None:
    spool = open_spool(limits=SpoolLimits(memory_bytes=0))
    fill(spool, 3)
    (segment,) = (tmp_path / "spool").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[28 + RECORD_HEADER_BYTES + 30] ^= 4
    segment.write_bytes(data)
    batches, (gap,) = drain(spool)
    assert batches == [2, 3]
    assert (gap.from_seq, gap.to_seq, gap.reason, gap.records) == (1, 1, flowlink_pb2.GAP_REASON_CORRUPT, 10)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_damaged_journal_does_not_cost_the_epoch(open_spool: OpenSpool, tmp_path: Path, copies: int) -> None:
    spool = open_spool()
    fill(spool, 5)
    epoch = spool.epoch
    crash(spool)
    journal = tmp_path / "spool" / "journal"
    data = bytearray(journal.read_bytes())
    for copy in range(copies):
        data[copy * 4096 + 10] ^= 1
    journal.write_bytes(data)
    again = open_spool()
    assert again.epoch == epoch
    assert again.next_seq >= 6
    assert drain(again)[0] == [1, 2, 3, 4, 5]


def test_a_second_agent_cannot_use_the_directory(open_spool: OpenSpool) -> None:
    open_spool()
    with pytest.raises(SpoolError, match="another agent"):
        open_spool()


def test_a_new_epoch_gives_up_what_was_held_and_says_so(open_spool: OpenSpool) -> None:
    spool = open_spool()
    fill(spool, 4)
    epoch = spool.epoch
    spool.start_new_epoch()
    fill(spool, 1)
    assert spool.epoch != epoch
    batches, (gap,) = drain(spool)
    assert (gap.from_seq, gap.to_seq, gap.reason, gap.records) == (1, 1, flowlink_pb2.GAP_REASON_CLONED, 40)
    assert batches == [2]
    new_epoch = spool.epoch
    crash(spool)
    again = open_spool()
    assert (again.epoch, again.next_seq) == (new_epoch, 3)


def test_lineage_remembers_who_has_used_the_spool(open_spool: OpenSpool) -> None:
    first = open_spool()
    first.welcomed()
    crash(first)
    second = open_spool()
    crash(second)
    third = open_spool()
    assert third.lineage == [first.instance, second.instance, third.instance]
    third.welcomed()
    crash(third)
    fourth = open_spool()
    assert fourth.lineage == [third.instance, fourth.instance]


def test_a_directory_that_cannot_be_used_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="cannot use"):
        Spool(tmp_path / "file" / "spool", boot_id="boot")


def test_a_killed_writer_leaves_what_append_returned_for(tmp_path: Path) -> None:
    """A real process, really killed."""
    script = (
        "import sys, os; sys.path[:0] = ['.', 'proto']\n"
        "from pathlib import Path\n"
        "from agent.spool import Spool\n"
        "from tests.flowlink import batch_of, flows\n"
        f"spool = Spool(Path({str(tmp_path / 'spool')!r}), boot_id='boot')\n"
        "for _ in range(25): spool.append(batch_of(flows(3)))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    spool = Spool(tmp_path / "spool", boot_id="boot")
    try:
        assert drain(spool) == (list(range(1, 26)), [])
    finally:
        spool.close()
