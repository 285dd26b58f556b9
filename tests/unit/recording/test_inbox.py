"""Inbox: in order, in groups, and never heavier than its bound."""

import asyncio

import pytest

from aggregator.services.recording.deliveries import Delivery, Poison
from aggregator.services.recording.inbox import MOST_BATCHES, Inbox, weight
from aggregator.store.deltas import CursorKey


def delivery(seq: int, *, size: int = 0) -> Delivery:
    return Delivery(
        key=CursorKey(cluster="c", agent_id="n", epoch=1),
        instance=1,
        from_seq=seq,
        to_seq=seq,
        content=Poison(reason="", message=bytes(size)),
        on_recorded=lambda *_: None,
    )


def numbers(group: list[Delivery]) -> list[int]:
    return [each.to_seq for each in group]


async def test_what_comes_within_the_linger_is_one_group() -> None:
    inbox = Inbox(most_bytes=1 << 20)
    taking = asyncio.create_task(inbox.take(linger_seconds=0.05))
    for seq in (1, 2, 3):
        await inbox.put(delivery(seq))
        await asyncio.sleep(0)
    assert numbers(await taking) == [1, 2, 3]


async def test_a_full_group_does_not_linger() -> None:
    inbox = Inbox(most_bytes=1 << 20, group_batches=2)
    for seq in (1, 2, 3):
        await inbox.put(delivery(seq))
    async with asyncio.timeout(5):
        assert numbers(await inbox.take(linger_seconds=60)) == [1, 2]
    assert numbers(await inbox.take(linger_seconds=0)) == [3]


async def test_who_finds_no_room_waits_and_keeps_the_order() -> None:
    size = 10_000
    inbox = Inbox(most_bytes=3 * weight(delivery(0, size=size)))
    putting = [asyncio.create_task(inbox.put(delivery(seq, size=size))) for seq in range(1, 9)]
    taken = []
    while len(taken) < 8:
        await asyncio.sleep(0)
        group = await inbox.take(linger_seconds=0)
        assert len(group) <= 3
        taken += numbers(group)
    await asyncio.gather(*putting)
    assert taken == list(range(1, 9))


async def test_nothing_is_lost_when_taking_is_given_up() -> None:
    inbox = Inbox(most_bytes=1 << 20)
    await inbox.put(delivery(1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await inbox.take(linger_seconds=60)
    assert numbers(await inbox.take(linger_seconds=0)) == [1]


def test_a_group_s_sums_fit_64_bits() -> None:
    assert MOST_BATCHES * 2**53 < 2**63
    assert Inbox(most_bytes=1, group_batches=10**9)._group_batches == MOST_BATCHES
