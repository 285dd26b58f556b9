"""What is decided across namespaces: names of addresses, answers to drift, settings; undo.

Invariant: each answers with the page that it was said on, with what was refused said there.
"""

from collections.abc import Callable
from ipaddress import ip_network

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from aggregator.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from aggregator.model.address import IPNetwork
from aggregator.model.decision import Alias, ClusterCIDRs, Decision, LabelDecision, LabelLists, ProcessNames
from aggregator.web.cluster_pages import Picked, picked_of, settings_page
from aggregator.web.frame import Visit, VisitDep
from aggregator.web.saying import FieldsDep, network_of
from aggregator.web.security import Fields

routes = APIRouter()
_REFUSED = (ConflictError, ForbiddenError, InputError, NotFoundError)


@routes.post("/addresses/say")
def say_addresses(visit: VisitDep, fields: FieldsDep) -> Response:
    """A name for what is picked, allowed for everybody or not; or an alias that is forgotten."""
    verb, _, rest = fields.get("say", "").partition(":")

    def said() -> None:
        if verb == "forget":
            visit.deciding.remove_alias(visit.caller, rest, reason="", if_match="*")
            return
        name = fields.get("name", "").strip()
        if not name:
            raise InputError("give the picked addresses a name first: a rule without one tells nobody what it is for")
        alias = Alias(name=name, networks=_networks(visit, fields), domains=(), allowed=verb == "allow")
        visit.deciding.set_alias(visit.caller, alias, extend=True, reason="", if_match="*")

    if verb not in {"name", "allow", "forget"}:
        raise InputError("this page does not know that decision: load it again", field="say")
    kept = visit.query(q=fields.get("q", ""), kind=fields.get("kind", ""))
    return _done(visit, said, f"{visit.base}/addresses{kept}", "Addresses")


def _networks(visit: Visit, fields: Fields) -> tuple[IPNetwork, ...]:
    """Exactly what was picked, its cover, or the one address whose row was used."""
    if fields.get("network"):
        return (network_of(fields["network"]),)
    pick = [ip for ip in fields.get("pick", "").split(",") if ip]
    found: Picked = picked_of(visit.review.addresses(visit.caller, span=visit.span), pick)
    if not found.ips:
        raise InputError("pick at least one address", field="pick")
    if fields.get("as") == "cover" and found.cover is not None:
        return (found.cover,)
    return tuple(ip_network(network) for network in found.exact)


@routes.post("/drift/say")
def say_drift(visit: VisitDep, fields: FieldsDep) -> Response:
    verb, _, rest = fields.get("say", "").partition(":")

    def said() -> None:
        match verb:
            case "accept" | "leave-out":
                visit.review.events.answer(visit.caller, [rest], verb)
            case _:
                raise InputError("this page does not know that answer: load it again", field="say")

    return _done(visit, said, f"{visit.base}/drift{visit.query(namespace=fields.get('namespace', ''))}", "Drift")


def _done(visit: Visit, say: Callable[[], None], back: str, where: str) -> Response:
    try:
        say()
    except _REFUSED as exc:
        code = 409 if isinstance(exc, ConflictError) else 422
        return visit.page("refused.html", status_code=code, nav="", problem=str(exc), back=back, where=where)
    return RedirectResponse(back, status_code=303)


@routes.post("/settings/say")
def say_settings(visit: VisitDep, fields: FieldsDep) -> Response:
    verb, _, rest = fields.get("say", "").partition(":")
    try:
        if verb == "undo":
            visit.deciding.undo(visit.caller, rest, reason="")
        else:
            decision = _setting(verb, fields)
            tag = fields.get("etag", "")
            visit.deciding.change_settings(visit.caller, [decision], reason=fields.get("reason", ""), if_match=tag)
    except _REFUSED as exc:
        return settings_page(visit, str(exc), 409 if isinstance(exc, ConflictError) else 422)
    return RedirectResponse(f"{visit.base}/settings{visit.query()}#{verb}", status_code=303)


def _setting(verb: str, fields: Fields) -> Decision:
    """The whole of what is set: what is left out of a list is no longer in it."""
    match verb:
        case "labels":
            return LabelDecision(
                workload_labels=LabelLists(
                    include=_words(fields, "workload-include"), exclude=_words(fields, "workload-exclude")
                ),
                namespace_labels=LabelLists(
                    include=_words(fields, "namespace-include"), exclude=_words(fields, "namespace-exclude")
                ),
            )
        case "cidrs":
            return ClusterCIDRs(
                pod_cidrs=_ranges(fields, "pod"),
                service_cidrs=_ranges(fields, "service"),
                node_cidrs=_ranges(fields, "node"),
            )
        case "processes":
            return ProcessNames(names=_words(fields, "processes"))
        case _:
            raise InputError("this page does not know that setting: load it again", field="say")


def _words(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(fields.get(name, "").replace(",", " ").split()))


def _ranges(fields: Fields, name: str) -> tuple[IPNetwork, ...]:
    return tuple(network_of(word) for word in _words(fields, name))
