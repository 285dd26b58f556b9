"""Keeper: the background work that keeps policies right, step by step, while this process leads.

Enters: parts that make a step each. Leaves: their events, and the numbers of those that hold. Invariant: the steps
together never take more than a small share of one processor, however large the cluster: the next one waits longer when
the last one cost more. A part that fails says so, is counted, and stops no other.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from aggregator.errors import StoreError, WattleError
from aggregator.metrics import EVENTS_HOLDING, KEEPING_FAILED, KEEPING_STEP_SECONDS
from aggregator.model.event import EventKind
from aggregator.store import Store
from aggregator.store.events import EventLog

log = logging.getLogger(__name__)

MOST_SHARE = 0.02
KEPT = timedelta(days=90)
_FORGET_SECONDS = 3600.0

Step = Callable[[datetime], None]


class Keeper:
    """`leading` are the steps that only one process of many may do; `always` are those that each does for itself."""

    def __init__(
        self,
        *,
        store: Store,
        events: EventLog,
        cluster: str,
        leading: Mapping[str, Step],
        always: Mapping[str, Step] | None = None,
        interval_seconds: float = 5.0,
        clock: Callable[[], datetime] = lambda: datetime.now(tz=UTC),
    ) -> None:
        self._store = store
        self._events = events
        self._cluster = cluster
        self._leading = leading
        self._always = always or {}
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._forgot_at = -_FORGET_SECONDS

    async def run(self) -> None:
        """Keep for ever."""
        while True:
            spent = await asyncio.to_thread(self._spent)
            await asyncio.sleep(max(self._interval_seconds, spent / MOST_SHARE))

    def _spent(self) -> float:
        """Processor seconds of one step: on a busy machine it takes longer, costs no more, and must not fall silent."""
        began = time.thread_time()
        self.step()
        return time.thread_time() - began

    def step(self) -> None:
        for name, step in self._always.items():
            self._try(name, step)
        if not self._store.leadership.lead():
            return
        for name, step in self._leading.items():
            self._try(name, step)
        self._try("upkeep", self._upkeep)

    def _try(self, name: str, step: Step) -> None:
        with KEEPING_STEP_SECONDS.labels(name).time():
            try:
                step(self._clock())
            except StoreError as error:
                KEEPING_FAILED.labels(name, "store").inc()
                log.warning("%s waits: %s", name, error)
            except WattleError as error:
                KEEPING_FAILED.labels(name, "error").inc()
                log.warning("%s: %s", name, error)
            except Exception:
                KEEPING_FAILED.labels(name, "unexpected").inc()
                log.exception("%s failed; it is tried again", name)

    def _upkeep(self, now: datetime) -> None:
        counts = self._events.counts(self._cluster)
        for kind in EventKind:
            EVENTS_HOLDING.labels(self._cluster, kind.value).set(counts.get(kind, 0))
        if time.monotonic() - self._forgot_at >= _FORGET_SECONDS:
            self._events.forget(ended_before=now - KEPT)
            self._forgot_at = time.monotonic()
