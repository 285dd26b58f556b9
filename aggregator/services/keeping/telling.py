"""Telling: events go to an operator's webhook once, and to Alertmanager for as long as they hold.

Enters: events of the log. Leaves: requests. Invariant: an event counts as told only after the other side has said so,
so a restart repeats at most what was in flight; what waits is bounded, and what is given up is counted.
"""

from datetime import datetime, timedelta
from typing import Any, Protocol

from aggregator.alerting.payloads import alerts, webhook_body
from aggregator.alerting.sending import NotTakenError
from aggregator.metrics import ALERTS_GIVEN_UP, ALERTS_RETRIED, ALERTS_SENT
from aggregator.store.events import EventLog

MOST_WAITING = 1_000
AT_ONCE = 50
SETTLES = timedelta(seconds=10)
"""So long an event waits for what the other end's node has to add."""
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=5), timedelta(minutes=5)
REPEATED = timedelta(minutes=1)
RESOLVED_FOR = timedelta(minutes=10)
MOST_ALERTS = 500


class Outlet(Protocol):
    def send(self, value: Any) -> None:
        """Raises NotTakenError."""
        ...


class _Patience:
    """When the next try is due: twice as late after each that failed."""

    def __init__(self) -> None:
        self._wait = FIRST_WAIT
        self._due: datetime | None = None

    def due(self, now: datetime) -> bool:
        return self._due is None or now >= self._due

    def tried(self, now: datetime, *, taken: bool) -> None:
        self._due = None if taken else now + self._wait
        self._wait = FIRST_WAIT if taken else min(self._wait * 2, LONGEST_WAIT)


class Telling:
    """One cluster's; only the leader steps. Without a webhook events count as told, so that one set up later is not
    told of the past.
    """

    def __init__(
        self, events: EventLog, cluster: str, *, webhook: Outlet | None = None, alertmanager: Outlet | None = None
    ) -> None:
        self._events = events
        self._cluster = cluster
        self._webhook = webhook
        self._alertmanager = alertmanager
        self._patience = {"webhook": _Patience(), "alertmanager": _Patience()}
        self._repeated_at: datetime | None = None

    def step(self, now: datetime) -> None:
        """Raises NotTakenError when one of them was not taken, after the other has been tried."""
        failed: NotTakenError | None = None
        for tell in (self._tell_webhook, self._tell_alertmanager):
            try:
                tell(now)
            except NotTakenError as error:
                failed = error
        if failed is not None:
            raise failed

    def _tell_webhook(self, now: datetime) -> None:
        waiting, count = self._events.untold(self._cluster, limit=MOST_WAITING)
        if self._webhook is None:
            self._events.told(self._cluster, [stored.event_id for stored in waiting], at=now)
            return
        if count > MOST_WAITING:
            given_up, waiting = waiting[: count - MOST_WAITING], waiting[count - MOST_WAITING :]
            self._events.told(self._cluster, [stored.event_id for stored in given_up], at=now)
            ALERTS_GIVEN_UP.labels("webhook", "queue-full").inc(len(given_up))
        settled = [stored for stored in waiting if now - stored.event.found_at >= SETTLES]
        for start in range(0, len(settled), AT_ONCE):
            part = settled[start : start + AT_ONCE]
            if not self._send("webhook", self._webhook, webhook_body(self._cluster, part), now):
                return
            self._events.told(self._cluster, [stored.event_id for stored in part], at=now)
            ALERTS_SENT.labels("webhook").inc(len(part))

    def _tell_alertmanager(self, now: datetime) -> None:
        if self._alertmanager is None or (self._repeated_at is not None and now - self._repeated_at < REPEATED):
            return
        holding = self._events.holding(self._cluster)
        if len(holding) > MOST_ALERTS:
            ALERTS_GIVEN_UP.labels("alertmanager", "too-many").inc(len(holding) - MOST_ALERTS)
            holding = holding[-MOST_ALERTS:]
        found = [*holding, *self._events.ended_since(self._cluster, now - RESOLVED_FOR)[-MOST_ALERTS:]]
        if found and not self._send("alertmanager", self._alertmanager, alerts(self._cluster, found, now), now):
            return
        self._repeated_at = now
        ALERTS_SENT.labels("alertmanager").inc(len(found))

    def _send(self, name: str, outlet: Outlet, value: Any, now: datetime) -> bool:
        """False: it is not time yet to try again."""
        patience = self._patience[name]
        if not patience.due(now):
            return False
        try:
            outlet.send(value)
        except NotTakenError as error:
            patience.tried(now, taken=False)
            ALERTS_RETRIED.labels(name, error.reason).inc()
            raise
        patience.tried(now, taken=True)
        return True
