"""What is decided on a page: rows, general rules, CIDRs, aliases; undo; and who one is.

A decision answers with the parts of the page that it changes, out of band, or, without a script, with the page itself.
"""

from dataclasses import replace
from ipaddress import ip_network
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from aggregator.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from aggregator.model.address import IPNetwork
from aggregator.model.decision import Alias, Choice, GeneralRule, TypedCIDR
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.workload import Workload
from aggregator.services.question import WorkloadRef
from aggregator.services.views import LinkRow
from aggregator.web.frame import Visit, VisitDep
from aggregator.web.pages import RefDep
from aggregator.web.security import Fields, forget_token, keep_token, said
from aggregator.web.workload import ROWS_SHOWN, Tab, workload_values

routes = APIRouter()
FieldsDep = Annotated[Fields, Depends(said)]
_TABS: tuple[Tab, ...] = ("ingress", "egress", "topology", "policy", "applied", "history")
_REFUSED = (ConflictError, ForbiddenError, InputError, NotFoundError)


@routes.post("/workloads/{namespace}/{kind}/{name}/say")
def say(visit: VisitDep, ref: RefDep, fields: FieldsDep) -> Response:
    tab: Tab = next((known for known in _TABS if known == fields.get("tab")), "egress")
    visit = replace(visit, fields=fields)
    done, problem, code = "", "", 200
    try:
        done = _decide(visit, ref, fields)
    except _REFUSED as exc:
        problem, code = str(exc), 409 if isinstance(exc, ConflictError) else 422
    if not visit.htmx and not problem:
        kept = {name: visit.asked(name) for name in ("q", "show", "under")}
        kept["show"] = "" if kept["show"] == str(ROWS_SHOWN) else kept["show"]
        return RedirectResponse(f"{visit.path_of(ref)}/{tab}{visit.query(**kept)}", status_code=303)
    values = workload_values(visit, ref, tab) | {"problem": problem, "done": done}
    if not visit.htmx:
        back = f"{visit.path_of(ref)}/{tab}{visit.query()}"
        return visit.page("refused.html", status_code=code, nav="", back=back, where=ref.name, **values)
    return visit.part("said.html", status_code=code, **values)


def _decide(visit: Visit, ref: WorkloadRef, fields: Fields) -> str:
    """What was said, in words. Raises what the services raise, and InputError."""
    verb, _, rest = fields.get("say", "").partition(":")
    reason, tag = fields.get("reason", ""), fields.get("etag", "")
    caller, deciding = visit.caller, visit.deciding
    match verb:
        case "include" | "exclude" | "forget":
            choice = None if verb == "forget" else Choice(verb)
            deciding.decide_links(caller, ref, [rest], choice, reason=reason, if_match=tag)
            words = {"include": "Included", "exclude": "Left out", "forget": "Taken back"}
            return words[verb]
        case "rule":
            direction, _, rule = rest.partition(":")
            deciding.decide_direction(caller, ref, _direction(direction), _rule(rule), reason=reason, if_match=tag)
            return "General rule changed"
        case "cidr" | "no-cidr":
            direction, cidr, protocol, port = (
                fields.get(name, "") for name in ("direction", "cidr", "protocol", "port")
            )
            if verb == "no-cidr":
                direction, cidr, protocol, port = (*rest.split(","), "", "", "", "")[:4]
            said_choice = Choice.INCLUDE if verb == "cidr" else Choice.EXCLUDE
            network, known_protocol, known_port = network_of(cidr), _protocol(protocol), _port(port)
            deciding.type_cidr(
                caller,
                ref,
                lambda workload: TypedCIDR(
                    workload=workload,
                    direction=_direction(direction),
                    cidr=network,
                    protocol=known_protocol,
                    port=known_port,
                    end_port=None,
                ),
                said_choice,
                reason=reason,
                if_match=tag,
            )
            return f"{network} {'added' if verb == 'cidr' else 'removed'}"
        case "address":
            return _decide_address(visit, ref, rest, fields)
        case "freeze" | "release":
            frozen = verb == "freeze"
            deciding.freeze(caller, ref, frozen=frozen, reason=reason, if_match="*")
            return "Baseline frozen" if frozen else "Baseline released"
        case "undo":
            deciding.undo(caller, rest, reason=reason)
            return "Taken back"
        case _:
            raise InputError("this page does not know that decision: load it again", field="say")


def _decide_address(visit: Visit, ref: WorkloadRef, identity: str, fields: Fields) -> str:
    """No, this address, or a range of it; and a name for it, here and on every map."""
    caller, deciding, tag = visit.caller, visit.deciding, fields.get("etag", "")
    rows = visit.review.workload_links(caller, ref, span=visit.span)
    row = next((row for row in rows if row.id == identity and row.peer.address), None)
    if row is None or row.peer.address is None:
        raise NotFoundError(f"{ref} has no such address")
    network = ip_network(row.peer.address.ip)
    done = []
    match fields.get(f"choice-{identity}", ""):
        case "no":
            deciding.decide_links(caller, ref, [identity], Choice.EXCLUDE, reason="", if_match=tag)
            done.append("Left out")
        case "yes":
            deciding.decide_links(caller, ref, [identity], Choice.INCLUDE, reason="", if_match=tag)
            done.append("Included")
        case "range":
            network = network_of(fields.get(f"range-{identity}", ""))
            _type_cidr(visit, ref, row, network, tag)
            done.append(f"{network} allowed")
        case _:
            pass
    name = fields.get(f"alias-{identity}", "").strip()
    if name:
        everyone = fields.get(f"everyone-{identity}") == "1"
        named = Alias(name=name, networks=(network,), domains=(), allowed=everyone)
        deciding.set_alias(caller, named, extend=True, reason="", if_match="*")
        done.append(f"named {name}")
    if not done:
        raise InputError("choose what becomes of the address, or give it a name", field="choice")
    return ", ".join(done)


def _type_cidr(visit: Visit, ref: WorkloadRef, row: LinkRow, network: IPNetwork, tag: str) -> None:
    def typed(workload: Workload) -> TypedCIDR:
        return TypedCIDR(
            workload=workload,
            direction=_direction(row.direction),
            cidr=network,
            protocol=Protocol(row.protocol),
            port=row.port,
            end_port=None,
        )

    visit.deciding.type_cidr(visit.caller, ref, typed, Choice.INCLUDE, reason="", if_match=tag)


@routes.post("/login")
def login(request: Request, visit: VisitDep, fields: FieldsDep) -> Response:
    """Raises UnauthenticatedError, which shows the form again."""
    token = fields.get("token", "").strip()
    visit.site.authenticator.caller(token)
    answer = RedirectResponse(f"{visit.base}/", status_code=303)
    keep_token(request, answer, visit.token_cookie, token)
    return answer


@routes.post("/logout")
def logout(visit: VisitDep, fields: FieldsDep) -> Response:  # noqa: ARG001  # they prove that a page of ours asked
    answer = RedirectResponse(f"{visit.base}/", status_code=303)
    forget_token(answer, visit.token_cookie)
    return answer


def _direction(word: str) -> Direction:
    for direction in (Direction.INGRESS, Direction.EGRESS):
        if direction.value.lower() == word.lower():
            return direction
    raise InputError("a direction is ingress or egress", field="direction")


def _rule(word: str) -> GeneralRule | None:
    """Observed rows are what holds when nobody has said anything: asking for them takes the rule back."""
    try:
        return None if word in {"", "observed"} else GeneralRule(word)
    except ValueError as exc:
        raise InputError("there is no such general rule", field="rule") from exc


def network_of(text: str) -> IPNetwork:
    try:
        return ip_network(text.strip())
    except ValueError as exc:
        raise InputError(f"{exc}; write an address, or a CIDR without host bits", field="cidr") from exc


def _protocol(text: str) -> Protocol | None:
    try:
        return Protocol(text) if text else None
    except ValueError as exc:
        raise InputError("a protocol is TCP, UDP or SCTP", field="protocol") from exc


def _port(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal() or not 1 <= int(text) <= 65535:
        raise InputError("a port is a number from 1 to 65535", field="port")
    return int(text)
