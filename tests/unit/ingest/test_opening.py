"""Opening: agents that come together share a transaction, and nobody pays for another's refusal."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from aggregator.errors import StoreError, StoreRefusedError, StoreUnavailableError
from aggregator.ingest.opening import Opening
from aggregator.store.deltas import CursorKey
from aggregator.store.sink import Cloned, CursorOpening, Opened


class FakeSink:
    """Answers with first_seq - 1; `refused` and `broken` are agents."""

    def __init__(self, *, refused: str = "", error: StoreError | None = None) -> None:
        self.calls: list[int] = []
        self._refused = refused
        self._error = error
        self.go = threading.Event()
        self.go.set()

    def open_cursors(self, openings: Sequence[CursorOpening]) -> list[Opened | Cloned]:
        self.calls.append(len(openings))
        assert self.go.wait(5)
        if self._error is not None:
            raise self._error
        if any(opening.key.agent_id == self._refused for opening in openings):
            raise StoreRefusedError("no")
        return [Opened(committed_seq=opening.first_seq - 1) for opening in openings]

    def merge(self, merge: Any) -> None:
        raise NotImplementedError


def of(number: int) -> CursorOpening:
    key = CursorKey(cluster="c", agent_id=f"node-{number}", epoch=1)
    return CursorOpening(key=key, instance=1, lineage=(1,), first_seq=number + 1, now_ms=0)


async def test_those_that_come_meanwhile_share_the_next_transaction() -> None:
    sink = FakeSink()
    sink.go.clear()
    opening = Opening(sink)
    asking = [asyncio.create_task(opening.open(of(number))) for number in range(250)]
    await asyncio.sleep(0.05)
    late = asyncio.create_task(opening.open(of(250)))
    await asyncio.sleep(0.05)
    sink.go.set()
    answers = await asyncio.gather(*asking, late)
    assert answers == [Opened(committed_seq=number) for number in range(251)]
    assert sum(sink.calls) == 251
    assert len(sink.calls) <= 3


async def test_a_refusal_is_for_the_one_it_is_meant_for() -> None:
    opening = Opening(FakeSink(refused="node-2"))
    answers = await asyncio.gather(*(opening.open(of(number)) for number in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Opened, Opened, StoreRefusedError, Opened]


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), StoreError("odd")])
async def test_when_the_database_is_away_everyone_hears_of_it_and_may_ask_again(error: StoreError) -> None:
    sink = FakeSink(error=error)
    opening = Opening(sink)
    answers = await asyncio.gather(*(opening.open(of(number)) for number in range(3)), return_exceptions=True)
    assert answers == [error] * 3
    sink._error = None
    assert await opening.open(of(7)) == Opened(committed_seq=7)
