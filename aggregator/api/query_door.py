"""The gRPC door: wattle.v1 Query over the same services as REST, with health and reflection.

Enters: requests with a bearer token in their metadata. Leaves: views as messages. Invariant: as in REST, nothing is
masked, decided or computed here; services run in threads, so that the event loop never waits for the database.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from aggregator.api.asking import Answering, Authenticator
from aggregator.api.query_clusters import DoorsByCluster
from aggregator.api.query_messages import message_of
from aggregator.errors import (
    ClusterError,
    ForbiddenError,
    InputError,
    NotFoundError,
    StoreError,
    UnauthenticatedError,
    WattleError,
)
from aggregator.model.protocol import Direction
from aggregator.services.authority.caller import Caller
from aggregator.services.keeping.events import WantedEvents
from aggregator.services.paging import DEFAULT_LIMIT, MAX_LIMIT, Wanted, page_of_links
from aggregator.services.policies.policy_views import AppliedPoliciesView
from aggregator.services.question import WorkloadRef
from aggregator.services.review import PolicyScope, Review
from aggregator.services.spans import ALL
from aggregator.services.views import LinkRow
from wattle.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from aggregator.services.keeping.event_views import EventView

log = logging.getLogger(__name__)
SERVICE = query_pb2.DESCRIPTOR.services_by_name["Query"].full_name
WATCH_SECONDS = 2.0

Context = grpc.aio.ServicerContext[object, object]
Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class ScopedQuestion(Protocol[Answer_co]):
    def __call__(self, caller: Caller, scope: PolicyScope, *, span: str) -> Answer_co: ...


_STATUSES: tuple[tuple[type[WattleError], grpc.StatusCode], ...] = (
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (ForbiddenError, grpc.StatusCode.PERMISSION_DENIED),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (ClusterError, grpc.StatusCode.UNAVAILABLE),
)


async def add_queries(
    server: grpc.aio.Server,
    review: Review,
    authenticator: Authenticator,
    *,
    others: Mapping[str, Answering] | None = None,
    watch_seconds: float = WATCH_SECONDS,
) -> None:
    """Query, health and reflection on a server that has not been started yet. `others`: further clusters, by name."""
    doors = {name: QueryDoor(one.review, one.authenticator, watch_seconds) for name, one in (others or {}).items()}
    door = QueryDoor(review, authenticator, watch_seconds)
    if doors:
        server.add_generic_rpc_handlers((DoorsByCluster(SERVICE, {"": door, review.cluster: door, **doors}),))
    else:
        query_pb2_grpc.add_QueryServicer_to_server(door, server)  # type: ignore[no-untyped-call]  # generated
    serving = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(serving, server)
    await serving.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


class QueryDoor(query_pb2_grpc.QueryServicer):
    def __init__(self, review: Review, authenticator: Authenticator, watch_seconds: float) -> None:
        self._review = review
        self._authenticator = authenticator
        self._watch_seconds = watch_seconds

    async def ListNamespaces(  # noqa: N802  # gRPC's own spelling
        self, _request: query_pb2.ListNamespacesRequest, context: Context
    ) -> query_pb2.ListNamespacesResponse:
        rows = await self._ask(context, self._review.namespaces)
        return query_pb2.ListNamespacesResponse(items=[message_of(row, query_pb2.NamespaceRow()) for row in rows])

    async def ListWorkloads(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.ListWorkloadsRequest, context: Context
    ) -> query_pb2.ListWorkloadsResponse:
        wanted = Wanted(search=request.search, cursor=request.cursor, limit=_limit(request.limit))
        page = await self._ask(
            context,
            lambda caller: self._review.workloads_page(caller, wanted, request.namespace, request.span or ALL),
        )
        return query_pb2.ListWorkloadsResponse(
            items=[message_of(row, query_pb2.WorkloadRow()) for row in page.items],
            total=page.total,
            next_cursor=page.next_cursor or "",
        )

    async def ListLinks(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.ListLinksRequest, context: Context
    ) -> query_pb2.ListLinksResponse:
        wanted = Wanted(search=request.search, sort=request.sort, cursor=request.cursor, limit=_limit(request.limit))
        page = await self._ask(
            context,
            lambda caller: page_of_links(self._links(caller, request.scope, request.direction, request.span), wanted),
        )
        return query_pb2.ListLinksResponse(
            items=[message_of(row, query_pb2.LinkRow()) for row in page.items],
            total=page.total,
            next_cursor=page.next_cursor or "",
        )

    async def WatchLinks(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.WatchLinksRequest, context: Context
    ) -> AsyncIterator[query_pb2.LinkRow]:
        shown: dict[str, LinkRow] = {}
        while True:
            rows = await self._ask(
                context, lambda caller: self._links(caller, request.scope, request.direction, request.span)
            )
            for row in rows:
                if shown.get(row.id) != row:
                    shown[row.id] = row
                    yield message_of(row, query_pb2.LinkRow())
            await asyncio.sleep(self._watch_seconds)

    async def GetProposal(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.GetProposalRequest, context: Context
    ) -> query_pb2.Proposal:
        found = await self._ask(
            context,
            lambda caller: self._review.proposal(caller, _scope(request.scope), span=request.span or ALL),
        )
        return message_of(found, query_pb2.Proposal())

    async def GetSimulation(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.GetProposalRequest, context: Context
    ) -> query_pb2.Simulation:
        return message_of(await self._scoped(context, request, self._review.simulation), query_pb2.Simulation())

    async def GetDiff(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.GetProposalRequest, context: Context
    ) -> query_pb2.ProposalDiff:
        return message_of(await self._scoped(context, request, self._review.diff), query_pb2.ProposalDiff())

    async def GetPlan(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.GetProposalRequest, context: Context
    ) -> query_pb2.Plan:
        return message_of(await self._scoped(context, request, self._review.plan), query_pb2.Plan())

    async def GetDryRun(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.GetProposalRequest, context: Context
    ) -> query_pb2.DryRun:
        return message_of(await self._scoped(context, request, self._review.dry_run), query_pb2.DryRun())

    async def GetTopology(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.GetProposalRequest, context: Context
    ) -> query_pb2.Topology:
        return message_of(await self._scoped(context, request, self._review.topology), query_pb2.Topology())

    async def ListPolicies(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.ListPoliciesRequest, context: Context
    ) -> query_pb2.AppliedPolicies:
        scope = request.scope

        def question(caller: Caller) -> AppliedPoliciesView:
            named = scope.namespace or scope.kind or scope.name
            where: PolicyScope = _scope(scope) if named else ""
            return self._review.applied(caller, where, span=request.span or ALL, unused=request.unused)

        return message_of(await self._ask(context, question), query_pb2.AppliedPolicies())

    async def ExplainLink(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.ExplainLinkRequest, context: Context
    ) -> query_pb2.ExplainedLink:
        found = await self._ask(
            context, lambda caller: self._review.explain_link(caller, _ref(request.scope), request.id)
        )
        return message_of(found, query_pb2.ExplainedLink())

    async def GetCaller(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.GetCallerRequest, context: Context
    ) -> query_pb2.QueryCaller:
        found = await self._ask(context, lambda caller: self._review.me(caller, request.namespace))
        return message_of(found, query_pb2.QueryCaller())

    async def GetBaseline(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.GetBaselineRequest, context: Context
    ) -> query_pb2.Baseline:
        found = await self._ask(context, lambda caller: self._review.baseline(caller, _ref(request.scope)))
        return message_of(found, query_pb2.Baseline())

    async def ListEvents(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.ListEventsRequest, context: Context
    ) -> query_pb2.ListEventsResponse:
        wanted = _wanted_events(request.namespace, request.kind, request.subject, request.state or "holding")
        rows = await self._ask(context, lambda caller: self._review.events.events(caller, wanted))
        return query_pb2.ListEventsResponse(items=[message_of(row, query_pb2.Event()) for row in rows])

    async def WatchEvents(  # noqa: N802  # gRPC's own spelling
        self, request: query_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[query_pb2.Event]:
        wanted = _wanted_events(request.namespace, request.kind, request.subject, "all")
        shown: dict[str, EventView] = {}
        first = True
        while True:
            rows = await self._ask(context, lambda caller: self._review.events.events(caller, wanted))
            for row in reversed(rows):
                before = shown.get(row.id)
                shown[row.id] = row
                if before != row and not (first and (row.ended or request.only_new)):
                    yield message_of(row, query_pb2.Event())
            first = False
            await asyncio.sleep(self._watch_seconds)

    async def ListAgents(  # noqa: N802  # gRPC's own spelling
        self, _request: query_pb2.ListAgentsRequest, context: Context
    ) -> query_pb2.ListAgentsResponse:
        rows = await self._ask(context, self._review.agents)
        return query_pb2.ListAgentsResponse(items=[message_of(row, query_pb2.Agent()) for row in rows])

    async def GetStatus(  # noqa: N802  # gRPC's own spelling
        self, _request: query_pb2.GetStatusRequest, context: Context
    ) -> query_pb2.Status:
        return message_of(await self._ask(context, self._review.status), query_pb2.Status())

    def _links(self, caller: Caller, scope: query_pb2.QueryScope, direction: str, span: str) -> list[LinkRow]:
        where = _scope(scope)
        if isinstance(where, WorkloadRef):
            return self._review.workload_links(caller, where, direction=_direction(direction), span=span or ALL)
        return self._review.namespace_links(caller, where, direction=_direction(direction), span=span or ALL)

    async def _scoped(
        self, context: Context, request: query_pb2.GetProposalRequest, question: ScopedQuestion[Answer]
    ) -> Answer:
        return await self._ask(
            context, lambda caller: question(caller, _scope(request.scope), span=request.span or ALL)
        )

    async def _ask(self, context: Context, question: Callable[[Caller], Answer]) -> Answer:
        token = _token(context)
        try:
            return await asyncio.to_thread(lambda: question(self._authenticator.caller(token)))
        except WattleError as error:
            for kind, status in _STATUSES:
                if isinstance(error, kind):
                    inside = isinstance(error, StoreError | ClusterError)
                    if inside:
                        log.warning("a query could not be answered: %s", error)
                    await context.abort(status, "not there now: try again in some seconds" if inside else str(error))
            raise


def _wanted_events(namespace: str, kind: str, subject: str, which: str) -> WantedEvents:
    return WantedEvents(namespace=namespace, kinds=(kind,) if kind else (), which=which, subject=subject)


def _limit(asked: int) -> int:
    return min(asked or DEFAULT_LIMIT, MAX_LIMIT)


def _token(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            text = value if isinstance(value, str) else value.decode(errors="replace")
            return text[7:] if text[:7].lower() == "bearer " else ""
    return ""


def _ref(scope: query_pb2.QueryScope) -> WorkloadRef:
    if not (scope.namespace and scope.kind and scope.name):
        raise InputError("a workload is a namespace, a kind and a name", field="scope")
    return WorkloadRef(namespace=scope.namespace, kind=scope.kind, name=scope.name)


def _scope(scope: query_pb2.QueryScope) -> PolicyScope:
    if not scope.namespace:
        raise InputError("name a namespace", field="scope.namespace")
    return _ref(scope) if scope.kind or scope.name else scope.namespace


def _direction(word: str) -> Direction | None:
    if not word:
        return None
    try:
        return Direction(word)
    except ValueError as exc:
        raise InputError(f"{word[:20]!r} is no direction: write Ingress or Egress", field="direction") from exc
