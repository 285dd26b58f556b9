"""Opening: the cursors of agents that come at the same moment are taken in one transaction.

Enters: CursorOpening values, one at a time. Leaves: to each its answer. Invariant: the first one waits for nobody;
those that come while a transaction is under way share the next. So 250 agents that come back together cost a handful
of commits, not 250.
"""

import asyncio

from aggregator.errors import StoreError, StoreRefusedError
from aggregator.store.sink import Cloned, CursorOpening, Opened, Sink


class Opening:
    """In one event loop."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting: list[tuple[CursorOpening, asyncio.Future[Opened | Cloned]]] = []
        self._working: asyncio.Task[None] | None = None

    async def open(self, opening: CursorOpening) -> Opened | Cloned:
        """Raises StoreError."""
        answer: asyncio.Future[Opened | Cloned] = asyncio.get_running_loop().create_future()
        self._waiting.append((opening, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting, []
                answers = await self._ask([opening for opening, _ in together])
                for (_, future), answer in zip(together, answers, strict=True):
                    if future.done():
                        continue
                    if isinstance(answer, StoreError):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._working = None

    async def _ask(self, openings: list[CursorOpening]) -> list[Opened | Cloned | StoreError]:
        try:
            return [*await asyncio.to_thread(self._sink.open_cursors, openings)]
        except StoreRefusedError as error:
            # One of them cannot be; the others have nothing to do with it.
            return [error] if len(openings) == 1 else [(await self._ask([opening]))[0] for opening in openings]
        except StoreError as error:
            return [error for _ in openings]
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            return [StoreError(f"cursors cannot be opened: {type(error).__name__}: {error}") for _ in openings]
