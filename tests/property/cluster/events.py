"""Events on their way to a view: in the order of the API server's commits, each some time later."""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

E = TypeVar("E")


def delivered(rng: random.Random, events: Iterable[tuple[float, E]]) -> list[tuple[float, E]]:
    """From (committed, event) to (arrival, event): each up to a second later, none before an earlier one."""
    last, found = 0.0, []
    for committed, event in sorted(events, key=lambda e: e[0]):
        last = max(last, committed + rng.uniform(0, 1))
        found.append((last, event))
    return found


def arrived(events: deque[tuple[float, E]], now: float) -> Iterator[tuple[float, E]]:
    """Takes out of `events` what has arrived by `now`."""
    while events and events[0][0] <= now:
        yield events.popleft()
