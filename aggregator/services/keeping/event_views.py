"""Views of events.

Invariant: as of services/views.py, plain values only. An event is shown to who sees both ends of its link, or not at
all.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aggregator.model.event import EventKind
from aggregator.model.link import link_id
from aggregator.model.workload import Address
from aggregator.services.question import Question
from aggregator.services.views import AddressView, ProtocolWord
from aggregator.services.wording import peer_view
from aggregator.store.events import StoredEvent

KindWord = Literal["new-link", "gone-link", "would-be-denied", "not-enforced", "held-open"]
AnswerWord = Literal["accept", "leave-out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """`id` is what an answer names; `link_id` is the row's. `ended` is empty while it holds."""

    id: str
    kind: KindWord
    subject: str
    link_id: str
    src: str
    dst: str
    protocol: ProtocolWord
    port: int
    text: str
    address: AddressView | None  # of the end that nobody in the cluster owns
    processes: list[str]
    src_pods: list[str]
    dst_pods: list[str]
    services: list[str]
    nodes: list[str]
    connections: int
    first_seen: datetime | None
    last_seen: datetime | None
    explanation: str
    cause: str
    command: str
    found_at: datetime
    ended: str
    ended_at: datetime | None
    answers: list[AnswerWord]


def event_view(question: Question, stored: StoredEvent) -> EventView:
    event, seen = stored.event, stored.event.evidence
    outside = next((end for end in (event.link.src, event.link.dst) if isinstance(end, Address)), None)
    return EventView(
        id=str(stored.event_id),
        kind=event.kind.value,
        subject=event.subject,
        link_id=str(link_id(event.link)),
        src=str(event.link.src),
        dst=str(event.link.dst),
        protocol=event.link.protocol.value,
        port=event.link.port,
        text=event.text,
        address=peer_view(question, outside).address if outside is not None else None,
        processes=list(seen.processes),
        src_pods=list(seen.src_pods),
        dst_pods=list(seen.dst_pods),
        services=list(seen.services),
        nodes=list(seen.nodes),
        connections=seen.connections,
        first_seen=seen.first_seen,
        last_seen=seen.last_seen,
        explanation=event.explanation,
        cause=event.cause,
        command=event.command,
        found_at=event.found_at,
        ended=event.ended.value if event.ended is not None else "",
        ended_at=event.ended_at,
        answers=_answers(event.kind) if event.ended is None else [],
    )


def _answers(kind: EventKind) -> list[AnswerWord]:
    match kind:
        case EventKind.NEW_LINK:
            return ["accept", "leave-out"]
        case EventKind.GONE_LINK:
            return ["accept"]
        case _:
            return []
