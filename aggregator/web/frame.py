"""What every page has around it: who looks, at which scope, how old the data is.

Enters: a request. Leaves: a Visit that renders templates. Invariant: a right that the caller lacks hides a part of the
page and says so; it never breaks the page.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from aggregator.errors import ForbiddenError, UnauthenticatedError
from aggregator.services.authority.caller import Caller, Resource, Verb
from aggregator.services.deciding.decisions import Deciding
from aggregator.services.question import SERVICE_KIND, WorkloadRef
from aggregator.services.review import Review
from aggregator.services.spans import ALL
from aggregator.services.views import StatusView
from aggregator.web.rendering import segment
from aggregator.web.security import TOKEN_COOKIE, Fields, csrf_of, keep_csrf

T = TypeVar("T")
BASE = "/ui"
MOST_OPTIONS = 300  # of a choice in the scope picker; past them a part of the name is asked for
SPANS = {"3h": "Last 3 hours", "12h": "Last 12 hours", "24h": "Last 24 hours", "7d": "Last 7 days", ALL: "All recorded"}


class Authenticator(Protocol):
    """Who is behind a bearer token; blocking."""

    def caller(self, token: str) -> Caller:
        """Raises UnauthenticatedError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the pages are made with."""

    review: Review
    authenticator: Authenticator
    templates: Environment
    cluster: str
    base: str  # where its pages are
    clusters: Mapping[str, str]  # where every cluster's are, by its name


@dataclass(frozen=True, kw_only=True)
class Visit:
    request: Request
    site: Site
    span: str = ALL
    fields: Fields = field(default_factory=dict)  # of the form that was sent

    @property
    def base(self) -> str:
        return self.site.base

    @property
    def token_cookie(self) -> str:
        """Of this cluster alone: a token is shown to no other cluster's API server."""
        home = self.site.base == BASE
        return TOKEN_COOKIE if home else f"{TOKEN_COOKIE}.{self.site.cluster}"

    def path_of(self, ref: WorkloadRef) -> str:
        return f"{self.base}/workloads/{segment(ref.namespace)}/{segment(ref.kind)}/{segment(ref.name)}"

    @cached_property
    def review(self) -> Review:
        """Of this request alone: its parts are of one cut."""
        return self.site.review.at_once()

    @property
    def deciding(self) -> Deciding:
        return self.review.deciding

    @cached_property
    def caller(self) -> Caller:
        header = self.request.headers.get("authorization", "")
        scheme, _, bearer = header.partition(" ")
        token = bearer if scheme.lower() == "bearer" else self.request.cookies.get(self.token_cookie, "")
        return self.site.authenticator.caller(token)

    @cached_property
    def status(self) -> StatusView | None:
        """None when the caller may not see the agents."""
        return allowed(lambda: self.review.status(self.caller))

    @property
    def development(self) -> bool:
        """False where nobody knows who calls."""
        try:
            return self.caller.development
        except UnauthenticatedError:
            return False

    def asked(self, name: str) -> str:
        """A parameter of the page's own, cut to a sane length."""
        return (self.fields.get(name) or self.request.query_params.get(name, ""))[:100]

    @property
    def htmx(self) -> bool:
        return "hx-request" in self.request.headers

    def page(self, template: str, *, status_code: int = 200, **values: Any) -> Response:
        """A whole page, with the frame around it."""
        framed = {
            "visitor": self.caller.name,
            "development": self.caller.development,
            "may_see_settings": self.caller.may(Verb.GET, Resource.SETTINGS),
            "status": self.status,
            "picker": self._picker(values),
            **values,
        }
        return self.part(template, status_code=status_code, **framed)

    def part(self, template: str, *, status_code: int = 200, **values: Any) -> Response:
        text = self.site.templates.get_template(template).render(
            base=self.base,
            cluster=self.site.cluster,
            clusters=self.site.clusters,
            csrf=csrf_of(self.request),
            span=self.span,
            spans=SPANS,
            query=self.query,
            **values,
        )
        answer = HTMLResponse(text, status_code=status_code)
        keep_csrf(self.request, answer)
        return answer

    def query(self, **extra: str) -> str:
        """The state of the page for a link, as ?span=...&..., without what is the default anyway."""
        known = {"span": self.span, **extra}
        kept = {name: value for name, value in known.items() if value and not (name == "span" and value == ALL)}
        return f"?{urlencode(kept)}" if kept else ""

    def _picker(self, values: dict[str, Any]) -> dict[str, Any]:
        namespace, ref = values.get("namespace", ""), values.get("ref")
        workloads: dict[str, list[str]] = {}
        known = [row.name for row in self.review.namespaces(self.caller)]
        many = False
        if namespace:
            found = values.get("workloads")
            rows = found if found is not None else self.review.workloads(self.caller, namespace)
            many = len(rows) > MOST_OPTIONS
            for row in () if many else rows:
                workloads.setdefault(row.kind, []).append(row.name)
            if not many and (services := self.review.services(self.caller, namespace)):
                workloads[SERVICE_KIND] = services[:MOST_OPTIONS]
        return {
            "namespaces": known if len(known) <= MOST_OPTIONS else [namespace] * bool(namespace),
            "many_namespaces": len(known) > MOST_OPTIONS,
            "many_workloads": many,
            "name": ref.name if ref is not None else "",
            "namespace": namespace,
            "workloads": workloads,
            "entity": f"{ref.kind}/{ref.name}" if ref is not None else "",
            "tab": values.get("tab", ""),
        }


def allowed(ask: Callable[[], T]) -> T | None:
    """The answer, or None where the caller lacks the right."""
    try:
        return ask()
    except ForbiddenError:
        return None


def _visit(request: Request, span: Annotated[str, Query(max_length=80)] = ALL) -> Visit:
    site: Site = request.app.state.site
    return Visit(request=request, site=site, span=span or ALL)


VisitDep = Annotated[Visit, Depends(_visit)]
