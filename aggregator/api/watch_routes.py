"""Policies on watch: begun, listed, stopped. What they find are events with the watch as their subject."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from aggregator.api.asking import CallerDep, ReviewDep
from aggregator.api.bodies import WatchBody
from aggregator.api.problems import documented
from aggregator.services.keeping.watching import Watching, WatchView
from aggregator.services.question import WorkloadRef

routes = APIRouter(tags=["events"])


def _watching(review: ReviewDep) -> Watching:
    return review.watching


WatchingDep = Annotated[Watching, Depends(_watching)]
WatchPath = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="`id` of a watch")]


@routes.get("/watches", summary="Policies on watch, newest first", responses=documented(401, 403, 404, 422, 429, 503))
def watches(watching: WatchingDep, caller: CallerDep) -> list[WatchView]:
    return watching.watches(caller)


@routes.post(
    "/watches",
    summary="Put a proposal, or policies of your own, on watch",
    responses=documented(401, 403, 404, 413, 422, 429, 503),
)
def begin_watch(watching: WatchingDep, caller: CallerDep, body: WatchBody) -> WatchView:
    scope: WorkloadRef | str = body.namespace
    if body.kind or body.name:
        scope = WorkloadRef(namespace=body.namespace, kind=body.kind, name=body.name)
    return watching.begin(caller, yaml=body.yaml, scope=scope, name=body.title, days=body.days, reason=body.reason)


@routes.delete("/watches/{watch}", summary="Stop a watch", responses=documented(401, 403, 404, 422, 429, 503))
def stop_watch(watching: WatchingDep, caller: CallerDep, watch: WatchPath) -> WatchView:
    return watching.stop(caller, watch)
