"""What is sent: events as plain JSON, and as Alertmanager's alerts.

Enters: stored events. Leaves: JSON values. Invariant: the same event gives the same labels for as long as it lives, so
that Alertmanager knows it again; nothing of a payload depends on when it is sent but `endsAt`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from aggregator.model.event import Event, EventKind
from aggregator.model.link import link_id
from aggregator.model.workload import Workload
from aggregator.store.events import StoredEvent

VERSION = "1"
ALERT_LASTS = timedelta(minutes=5)
"""An alert that is not sent again ends by itself after this time: what became of Wattle is then for another alert."""

_ALERT_NAMES = {
    EventKind.NEW_LINK: "WattleNewLink",
    EventKind.GONE_LINK: "WattleGoneLink",
    EventKind.WOULD_BE_DENIED: "WattleWouldBeDenied",
    EventKind.NOT_ENFORCED: "WattlePolicyNotEnforced",
    EventKind.HELD_OPEN: "WattleConnectionHeldOpen",
}
_SEVERITIES = {
    EventKind.NEW_LINK: "warning",
    EventKind.GONE_LINK: "info",
    EventKind.WOULD_BE_DENIED: "info",
    EventKind.NOT_ENFORCED: "critical",
    EventKind.HELD_OPEN: "info",
}


def webhook_body(cluster: str, events: Sequence[StoredEvent]) -> dict[str, Any]:
    return {"version": VERSION, "cluster": cluster, "events": [_plain(stored) for stored in events]}


def _plain(stored: StoredEvent) -> dict[str, Any]:
    event, seen = stored.event, stored.event.evidence
    return {
        "id": str(stored.event_id),
        "kind": event.kind.value,
        "severity": _SEVERITIES[event.kind],
        "subject": event.subject,
        "text": event.text,
        "link": {
            "id": str(link_id(event.link)),
            "src": str(event.link.src),
            "dst": str(event.link.dst),
            "protocol": event.link.protocol.value,
            "port": event.link.port,
        },
        "processes": list(seen.processes),
        "src_pods": list(seen.src_pods),
        "dst_pods": list(seen.dst_pods),
        "nodes": list(seen.nodes),
        "explanation": event.explanation,
        "cause": event.cause,
        "command": event.command,
        "found_at": event.found_at.isoformat(),
        "ended": event.ended.value if event.ended is not None else "",
    }


def alerts(cluster: str, events: Sequence[StoredEvent], now: datetime) -> list[dict[str, Any]]:
    """For POST /api/v2/alerts: those that hold end by themselves unless they are sent again, those that ended did."""
    return [
        {
            "labels": _labels(cluster, stored),
            "annotations": _annotations(stored.event),
            "startsAt": stored.event.found_at.isoformat(),
            "endsAt": (stored.event.ended_at or now + ALERT_LASTS).isoformat(),
        }
        for stored in events
    ]


def _labels(cluster: str, stored: StoredEvent) -> dict[str, str]:
    event = stored.event
    namespaces = [end.namespace for end in (event.link.dst, event.link.src) if isinstance(end, Workload)]
    return {
        "alertname": _ALERT_NAMES[event.kind],
        "severity": _SEVERITIES[event.kind],
        "cluster": cluster,
        "namespace": namespaces[0] if namespaces else "",
        "subject": event.subject,
        "wattle_event": str(stored.event_id),
    }


def _annotations(event: Event) -> dict[str, str]:
    seen = event.evidence
    said = {
        "summary": event.text,
        "processes": ", ".join(seen.processes),
        "pods": ", ".join((*seen.src_pods, *seen.dst_pods)),
        "nodes": ", ".join(seen.nodes),
        "explanation": event.explanation,
        "cause": event.cause,
        "command": event.command,
    }
    return {name: text for name, text in said.items() if text}
