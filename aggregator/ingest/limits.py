"""Limits: what one agent may ask of the aggregator, and how many may catch up at once."""

import asyncio
from dataclasses import dataclass

import numpy as np

from aggregator.services.recording.deliveries import U64


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """Defaults fit 250 nodes; each is said to the agent or counted when it bites."""

    window_batches: int = 32
    window_bytes: int = 8 << 20
    max_batch_bytes: int = 1 << 20
    batches_per_second: float = 20.0  # an agent, on average; a window at once
    live_peers: int = 50_000  # remote addresses of one agent within `peer_seconds`
    peer_seconds: float = 300.0
    replaying_agents: int = 32
    replay_batches: int = 64  # an agent that is this far behind is replaying
    streams: int = 5_000


class Pace:
    """A token bucket: how long the next batch has to wait."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._at = asyncio.get_running_loop().time()

    def take(self) -> float:
        """Seconds to wait before the batch is taken."""
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second) - 1
        self._at = now
        return max(0.0, -self._tokens / self._per_second)


class LivePeers:
    """How many remote addresses an agent has reported of late, as the union over two half periods."""

    def __init__(self, *, most: int, period_seconds: float) -> None:
        self._most = most
        self._half_seconds = period_seconds / 2
        self._current: list[U64] = []
        self._before = np.empty((0, 2), np.uint64)
        self._at_most = 0  # an upper bound of the union: repeated addresses count again
        self._since = asyncio.get_running_loop().time()

    def add(self, remotes: U64) -> bool:
        """Whether they still are few enough. Counting distinct addresses costs something, so only near the limit."""
        now = asyncio.get_running_loop().time()
        if now - self._since > self._half_seconds:
            self._before, self._current, self._since = _distinct(self._current), [], now
            self._at_most = len(self._before)
        self._current.append(remotes)
        self._at_most += len(remotes)
        if self._at_most <= self._most:
            return True
        self._current = [_distinct(self._current)]
        self._at_most = len(self._before) + len(self._current[0])
        return self._at_most <= self._most or len(_distinct([self._before, *self._current])) <= self._most


def _distinct(parts: list[U64]) -> U64:
    remotes = np.concatenate([np.empty((0, 2), np.uint64), *parts])
    # One structured number a row: unique(axis=0) sorts as slowly as it reads.
    rows = np.ascontiguousarray(remotes).view([("high", np.uint64), ("low", np.uint64)])
    distinct: U64 = np.unique(rows).view(np.uint64).reshape(-1, 2)
    return distinct
