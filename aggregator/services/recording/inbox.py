"""Inbox: deliveries of all streams, until the recorder takes them as one group.

Enters: Delivery values, in the order of each spool. Leaves: groups, in the order of arrival.
Invariant: what waits here weighs no more than its bound and one delivery a stream; a stream that finds it full waits,
and so its agent does. While a group is being committed the next one grows: the busier the database, the larger the
groups, and the fewer rows for each flow record.
"""

import asyncio
import contextlib
from collections import deque

from aggregator.services.recording.deliveries import DeclaredGap, Delivery, FlowBatch, Poison

MOST_BATCHES = 1_000  # a column of one batch sums up to less than 2^53, those of 1,000 to less than 2^63
_OBJECT_BYTES = 1_000


class Inbox:
    """In one event loop; one taker."""

    def __init__(self, *, most_bytes: int, group_batches: int = MOST_BATCHES) -> None:
        self._most_bytes = most_bytes
        self._group_batches = min(group_batches, MOST_BATCHES)
        self._waiting: deque[Delivery] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, delivery: Delivery) -> None:
        """Waits while there is no room."""
        while self._bytes >= self._most_bytes:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(delivery)
        self._bytes += weight(delivery)
        self._arrived.set()
        if len(self._waiting) >= self._group_batches or self._bytes >= self._most_bytes:
            self._enough.set()

    async def take(self, *, linger_seconds: float) -> list[Delivery]:
        """Waits for a delivery, then as long as `linger_seconds` for more."""
        await self._arrived.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(linger_seconds):
                await self._enough.wait()
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._group_batches))]
        self._bytes -= sum(map(weight, group))
        if not self._waiting:
            self._arrived.clear()
        if len(self._waiting) < self._group_batches:
            self._enough.clear()
        self._room.set()
        return group


def weight(delivery: Delivery) -> int:
    """Bytes of memory, about."""
    match delivery.content:
        case FlowBatch() as batch:
            return _OBJECT_BYTES + batch.columns.numbers.nbytes + batch.remotes.nbytes + len(batch.message)
        case Poison(message=message):
            return _OBJECT_BYTES + len(message)
        case DeclaredGap():
            return _OBJECT_BYTES
