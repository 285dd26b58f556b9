"""A copied agent: whatever two processes with one spool do, nothing is counted twice, and what is given up is said."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.spool import Spool
from aggregator.store import Scope, Store, migrate, open_store
from tests.flowlink import CLUSTER, Flow, batch_of, running_aggregator, running_stream, until


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    migrate(sqlite_url)
    opened = open_store(sqlite_url)
    yield opened
    opened.close()


def counted(store: Store) -> dict[int, int]:
    return {observed.link.port: observed.evidence.connections for observed in store.links(Scope(cluster=CLUSTER))}


async def test_two_processes_from_one_spool(store: Store, tmp_path: Path) -> None:
    first = Spool(tmp_path / "first", boot_id="boot")
    for _ in range(20):
        first.append(batch_of([Flow(port=1)]))
    first.close()
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    original, copy = (Spool(tmp_path / name, boot_id="boot") for name in ("first", "copy"))
    async with running_aggregator(store) as aggregator:
        async with running_stream(original, aggregator.port):
            for _ in range(20):
                original.append(batch_of([Flow(port=2)]))
            await until(lambda: original.waiting_batches == 0)
            async with running_stream(copy, aggregator.port) as fenced:
                for _ in range(20):
                    copy.append(batch_of([Flow(port=3)]))
                await asyncio.sleep(0.3)
                assert not fenced.connected, "the first keeps its place while it lives"
        # The first is gone: the copy may speak, but not for what the first has delivered.
        async with running_stream(copy, aggregator.port):
            await until(lambda: copy.waiting_batches == 0)
            copy.append(batch_of([Flow(port=4)]))
            await until(lambda: copy.waiting_batches == 0)
    assert counted(store) == {1: 20, 2: 20, 4: 1}
    (gap,) = store.gaps(CLUSTER)
    assert (gap.reason, gap.flow_records) == ("cloned", 40), "20 copies, and 20 of its own that could not be told apart"
    original.close()
    copy.close()
