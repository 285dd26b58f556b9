"""What every route asks for alike: who calls, which scope, which page.

Enters: an HTTP request. Leaves: a Caller, a WorkloadRef, a Wanted. Nothing is decided here.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from fastapi import Depends, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from aggregator.errors import NotFoundError
from aggregator.model.protocol import Direction
from aggregator.services.authority.caller import Caller
from aggregator.services.paging import DEFAULT_LIMIT, MAX_LIMIT, Wanted
from aggregator.services.question import WorkloadRef
from aggregator.services.review import Review


class Authenticator(Protocol):
    """Who is behind a bearer token; blocking."""

    def caller(self, token: str) -> Caller:
        """Raises UnauthenticatedError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """Who answers for one cluster, and who says there who calls: rights in one cluster are none in another."""

    review: Review
    authenticator: Authenticator


ClusterQuery = Annotated[
    str,
    Query(
        max_length=253,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$",
        description="Name of the cluster, where the aggregator knows several; by default its own",
    ),
]


def _answering(request: Request, cluster: ClusterQuery = "") -> Answering:
    clusters: dict[str, Answering] = request.app.state.clusters
    found = clusters.get(cluster)
    if found is not None:
        return found
    if cluster == clusters[""].review.cluster:
        return clusters[""]
    raise NotFoundError("there is no such cluster here")


AnsweringDep = Annotated[Answering, Depends(_answering)]

_bearer = HTTPBearer(
    auto_error=False, description="A Kubernetes token with the audience `wattle`; `wattle login` asks for one."
)


def _review(answering: AnsweringDep) -> Review:
    return answering.review


def _caller(
    answering: AnsweringDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Caller:
    return answering.authenticator.caller(credentials.credentials if credentials else "")


ReviewDep = Annotated[Review, Depends(_review)]
CallerDep = Annotated[Caller, Depends(_caller)]

_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_NAME = r"^[a-z0-9]([-a-z0-9.:_]{0,251}[a-z0-9])?$"

NamespacePath = Annotated[str, Path(pattern=_LABEL, description="Namespace", examples=["example-java-app"])]
NamespaceQuery = Annotated[
    str, Query(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", description="Of this namespace alone")
]
KindPath = Annotated[
    str,
    Path(
        pattern=r"^[A-Z][A-Za-z0-9]{0,62}$",
        description="Kind of the workload, or Service for the union of its backends",
        examples=["Deployment"],
    ),
]
NamePath = Annotated[str, Path(pattern=_NAME, description="Name of the workload or Service", examples=["javaapp"])]


def _ref(namespace: NamespacePath, kind: KindPath, name: NamePath) -> WorkloadRef:
    return WorkloadRef(namespace=namespace, kind=kind, name=name)


RefDep = Annotated[WorkloadRef, Depends(_ref)]

SpanQuery = Annotated[
    str,
    Query(
        max_length=80, description="3h, 12h, 24h, 7d, another number of m, h or d, FROM..TO, or all", examples=["7d"]
    ),
]


def _direction(
    direction: Annotated[Literal["ingress", "egress"] | None, Query(description="One table, or both")] = None,
) -> Direction | None:
    match direction:
        case "ingress":
            return Direction.INGRESS
        case "egress":
            return Direction.EGRESS
        case None:
            return None


DirectionDep = Annotated[Direction | None, Depends(_direction)]

SearchQuery = Annotated[str, Query(max_length=200, description="Words that a row must have, in any column")]
SortQuery = Annotated[
    str, Query(max_length=40, description="A column; with a leading - descending", examples=["-bytes"])
]
CursorQuery = Annotated[str, Query(max_length=4000, description="`next_cursor` of the page before")]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Rows of one page")]


def _wanted_links(
    q: SearchQuery = "",
    address_class: Annotated[
        Literal["internal", "external", "aliased", "unknown"] | None, Query(alias="class", description="Of the peer")
    ] = None,
    sort: SortQuery = "",
    cursor: CursorQuery = "",
    limit: LimitQuery = DEFAULT_LIMIT,
) -> Wanted:
    return Wanted(search=q, address_class=address_class or "", sort=sort, cursor=cursor, limit=limit)


def _wanted(q: SearchQuery = "", cursor: CursorQuery = "", limit: LimitQuery = DEFAULT_LIMIT) -> Wanted:
    return Wanted(search=q, cursor=cursor, limit=limit)


WantedLinks = Annotated[Wanted, Depends(_wanted_links)]
WantedRows = Annotated[Wanted, Depends(_wanted)]
