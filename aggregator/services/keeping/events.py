"""Events, as callers see and answer them.

Enters: a Caller; which events; what a person says of them. Leaves: views. Invariant: an answer is a decision like any
other, with an author, a reason and an undo; the event ends because of what was decided, never by itself.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from aggregator.errors import ConflictError, InputError, NotFoundError
from aggregator.model.decision import BaselineDecision, Choice, Decision, LinkDecision
from aggregator.model.event import Event, EventKind
from aggregator.model.link import Link
from aggregator.model.workload import Workload
from aggregator.services.authority.caller import Caller, Resource, Verb
from aggregator.services.deciding.decisions import Deciding
from aggregator.services.keeping.event_views import AnswerWord, EventView, event_view
from aggregator.services.question import Question
from aggregator.store.decisions import DecisionState
from aggregator.store.events import EventLog, StoredEvent

_ID_BOUND = 1 << 63
Which = str  # "holding" | "ended" | "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedEvents:
    """`subject`: a workload as "namespace/Kind/name", or a watch; "" is any."""

    namespace: str = ""
    kinds: Collection[str] = ()
    which: Which = "holding"
    subject: str = ""


class Events:
    """Blocking and thread-safe. `step` makes answered events end now, not at the keeper's next step."""

    def __init__(
        self,
        log: EventLog,
        ask: Callable[[Caller], Question],
        deciding: Deciding,
        step: Callable[[datetime], None] | None = None,
    ) -> None:
        self._log = log
        self._ask = ask
        self._deciding = deciding
        self._step = step

    def events(self, caller: Caller, wanted: WantedEvents | None = None) -> list[EventView]:
        """The newest first."""
        wanted = wanted or WantedEvents()
        if wanted.namespace:
            caller.must(Verb.LIST, Resource.LINKS, wanted.namespace)
        question = self._ask(caller)
        stored = (
            self._log.holding(question.cluster.name)
            if wanted.which == "holding"
            else self._log.events(question.cluster.name)
        )
        found = [s for s in stored if question.sight.link(s.event.link) and _matches(s.event, wanted)]
        found.sort(key=lambda s: (s.event.found_at, s.event_id), reverse=True)
        return [event_view(question, one) for one in found]

    def event(self, caller: Caller, event_id: str) -> EventView:
        question = self._ask(caller)
        (stored,) = self._seen(question, [event_id])
        return event_view(question, stored)

    def answer(self, caller: Caller, ids: Sequence[str], answer: AnswerWord, *, reason: str = "") -> list[EventView]:
        """All of them or none. Raises ConflictError for one that has ended, ForbiddenError where a right lacks."""
        question = self._ask(caller)
        asked = self._seen(question, ids)
        for stored in asked:
            if stored.event.kind not in {EventKind.NEW_LINK, EventKind.GONE_LINK}:
                raise InputError(f"{stored.event_id} is no drift: there is nothing to {answer}", field="ids")
            if stored.event.ended is not None:
                raise ConflictError(f"{stored.event_id} has ended already ({stored.event.ended.value})")
            namespace = stored.event.subject.partition("/")[0]
            caller.must(Verb.UPDATE, Resource.DECISIONS, namespace)
            if answer == "accept":
                caller.must(Verb.UPDATE, Resource.BASELINES, namespace)
            elif stored.event.kind is EventKind.GONE_LINK:
                raise InputError(
                    "a link that is gone can only be accepted: the baseline forgets it then", field="answer"
                )
        events = [stored.event for stored in asked]

        def decisions(state: DecisionState) -> list[Decision]:
            if answer == "leave-out":
                return [LinkDecision(link=event.link, choice=Choice.EXCLUDE) for event in events]
            return [*_included(events), *_moved_on(state, events, caller)]

        self._deciding.say(caller, decisions, reason)
        if self._step is not None:
            self._step(question.now)
        return [event_view(question, stored) for stored in self._seen(question, ids)]

    def _seen(self, question: Question, ids: Sequence[str]) -> list[StoredEvent]:
        kept = (int(asked) for asked in ids if -_ID_BOUND <= int(asked) < _ID_BOUND)
        found = {str(s.event_id): s for s in self._log.known(question.cluster.name, kept)}
        for asked in ids:
            if asked not in found or not question.sight.link(found[asked].event.link):
                raise NotFoundError(f"there is no event {asked[:24]!r}")
        return [found[asked] for asked in dict.fromkeys(ids)]


def _matches(event: Event, wanted: WantedEvents) -> bool:
    if wanted.kinds and event.kind.value not in wanted.kinds:
        return False
    if wanted.subject and wanted.subject != event.subject and wanted.subject not in _ends(event.link):
        return False
    if wanted.which != "all" and (event.ended is None) != (wanted.which == "holding"):
        return False
    namespaces = {end.namespace for end in (event.link.src, event.link.dst) if isinstance(end, Workload)}
    return not wanted.namespace or wanted.namespace in namespaces


def _ends(link: Link) -> tuple[str, str]:
    return (str(link.src), str(link.dst))


def _included(events: Iterable[Event]) -> list[Decision]:
    """An outside address is in a proposal only when a person said so; saying it of any link does no harm."""
    new = (event.link for event in events if event.kind is EventKind.NEW_LINK)
    return [LinkDecision(link=link, choice=Choice.INCLUDE) for link in new]


def _moved_on(state: DecisionState, events: Sequence[Event], caller: Caller) -> list[Decision]:
    """The frozen baselines of both ends, as far as the caller may move them."""
    said: list[Decision] = []
    new = {event.link for event in events if event.kind is EventKind.NEW_LINK}
    gone = {event.link for event in events if event.kind is EventKind.GONE_LINK}
    for workload, links in state.decisions.frozen_baselines:
        if not caller.may(Verb.UPDATE, Resource.BASELINES, workload.namespace):
            continue
        own = {link for link in new if workload in {link.src, link.dst}}
        moved = (set(links) | own) - gone
        if moved != set(links):
            said.append(BaselineDecision(workload=workload, links=tuple(sorted(moved, key=Link.sort_key))))
    return said
