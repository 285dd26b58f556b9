"""Events: drift of frozen baselines, and links that policies deny although they live; what a person says of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query

from aggregator.api.asking import CallerDep, NamespaceQuery, ReviewDep, WantedRows
from aggregator.api.bodies import AnswerBody
from aggregator.api.examples import EVENTS
from aggregator.api.problems import documented
from aggregator.services.keeping.event_views import EventView, KindWord
from aggregator.services.keeping.events import Events, WantedEvents
from aggregator.services.paging import Page, page_of_events

routes = APIRouter(tags=["events"])


def _events(review: ReviewDep) -> Events:
    return review.events


EventsDep = Annotated[Events, Depends(_events)]
EventPath = Annotated[str, Path(pattern=r"^-?[0-9]{1,20}$", description="`id` of an event")]
KindQuery = Annotated[KindWord | None, Query(description="Of this kind alone")]
StateQuery = Annotated[Literal["holding", "ended", "all"], Query(description="Those that hold, that ended, or both")]
SubjectQuery = Annotated[
    str, Query(max_length=400, description="A workload as namespace/Kind/name, or the id of a watch", examples=[""])
]


@routes.get(
    "/events",
    summary="What people should hear of, newest first",
    responses={**documented(401, 403, 404, 422, 429, 503), 200: EVENTS},
)
def events(
    asked: EventsDep,
    caller: CallerDep,
    wanted: WantedRows,
    namespace: NamespaceQuery = "",
    kind: KindQuery = None,
    state: StateQuery = "holding",
    subject: SubjectQuery = "",
) -> Page[EventView]:
    which = WantedEvents(namespace=namespace, kinds=(kind,) if kind else (), which=state, subject=subject)
    return page_of_events(asked.events(caller, which), wanted)


@routes.get("/events/{event}", summary="One of them", responses=documented(401, 403, 404, 422, 429, 503))
def event(asked: EventsDep, caller: CallerDep, event: EventPath) -> EventView:
    return asked.event(caller, event)


@routes.post(
    "/events/answers",
    summary="Take drift into the baseline, or leave it out",
    responses=documented(401, 403, 404, 409, 413, 422, 429, 503),
)
def answer(asked: EventsDep, caller: CallerDep, body: AnswerBody) -> list[EventView]:
    return asked.answer(caller, body.ids, body.answer, reason=body.reason)
