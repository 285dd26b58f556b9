"""Deciding: rows, general rules, CIDRs, aliases, settings; undo. Every change asks for the tag that was read."""

from ipaddress import ip_network
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from aggregator.api.asking import AnsweringDep, CallerDep, NamespacePath, NamespaceQuery, RefDep, WantedRows
from aggregator.api.bodies import (
    AliasBody,
    AliasName,
    CidrBody,
    CidrsBody,
    DefaultDenyBody,
    FreezeBody,
    LabelsBody,
    LinksBody,
    ProcessesBody,
    RuleBody,
    UndoBody,
    direction_of,
    networks_of,
)
from aggregator.api.problems import Responses, documented
from aggregator.model.decision import (
    Alias,
    Choice,
    ClusterCIDRs,
    GeneralRule,
    LabelDecision,
    LabelLists,
    ProcessNames,
    TypedCIDR,
)
from aggregator.model.protocol import Protocol
from aggregator.services.deciding.decisions import Deciding
from aggregator.services.deciding.said_views import (
    AliasesView,
    DecisionView,
    NamespaceDecisionsView,
    SettingsView,
    WorkloadDecisionsView,
)
from aggregator.services.paging import Page, page_of_decisions

routes = APIRouter(tags=["decisions"])

_READ: Responses = documented(401, 403, 404, 422, 429, 503)
_WRITE: Responses = documented(401, 403, 404, 409, 413, 422, 429, 503)


def _deciding(answering: AnsweringDep) -> Deciding:
    return answering.review.deciding


DecidingDep = Annotated[Deciding, Depends(_deciding)]
IfMatch = Annotated[
    str,
    Header(
        alias="if-match",
        max_length=200,
        description="The etag that was read, or * to decide whatever holds now",
        examples=['"3f0a2c"'],
    ),
]
ReasonQuery = Annotated[str, Query(max_length=1000, description="Why, in words; kept with the decision")]
NamePath = Annotated[str, Path(pattern=AliasName, description="Name of the alias", examples=["partner-api"])]
RecordPath = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$", description="`record` of a decision")]


def _tagged(response: Response, etag: str) -> None:
    response.headers["ETag"] = f'"{etag}"'


@routes.get("/workloads/{namespace}/{kind}/{name}/decisions", summary="What was decided about it", responses=_READ)
def workload_decisions(
    deciding: DecidingDep, caller: CallerDep, ref: RefDep, response: Response
) -> WorkloadDecisionsView:
    found = deciding.of_workload(caller, ref)
    _tagged(response, found.etag)
    return found


@routes.post(
    "/workloads/{namespace}/{kind}/{name}/decisions/links", summary="Include or leave out rows", responses=_WRITE
)
def decide_links(
    deciding: DecidingDep, caller: CallerDep, ref: RefDep, body: LinksBody, if_match: IfMatch, response: Response
) -> WorkloadDecisionsView:
    found = deciding.decide_links(caller, ref, body.ids, body.chosen, reason=body.reason, if_match=if_match)
    _tagged(response, found.etag)
    return found


@routes.put(
    "/workloads/{namespace}/{kind}/{name}/decisions/rules/{direction}",
    summary="The general rule of one direction",
    responses=_WRITE,
)
def decide_rule(
    deciding: DecidingDep,
    caller: CallerDep,
    ref: RefDep,
    direction: Literal["ingress", "egress"],
    body: RuleBody,
    if_match: IfMatch,
    response: Response,
) -> WorkloadDecisionsView:
    rule = GeneralRule(body.rule) if body.rule else None
    found = deciding.decide_direction(caller, ref, direction_of(direction), rule, reason=body.reason, if_match=if_match)
    _tagged(response, found.etag)
    return found


@routes.post(
    "/workloads/{namespace}/{kind}/{name}/decisions/cidrs", summary="Add or remove a CIDR and port", responses=_WRITE
)
def decide_cidr(
    deciding: DecidingDep, caller: CallerDep, ref: RefDep, body: CidrBody, if_match: IfMatch, response: Response
) -> WorkloadDecisionsView:
    found = deciding.type_cidr(
        caller,
        ref,
        lambda workload: TypedCIDR(
            workload=workload,
            direction=direction_of(body.direction),
            cidr=ip_network(body.cidr),
            protocol=Protocol(body.protocol) if body.protocol else None,
            port=body.port,
            end_port=body.end_port,
        ),
        Choice(body.choice),
        reason=body.reason,
        if_match=if_match,
    )
    _tagged(response, found.etag)
    return found


@routes.put(
    "/workloads/{namespace}/{kind}/{name}/baseline", summary="Freeze the baseline, or let it learn", responses=_WRITE
)
def freeze(
    deciding: DecidingDep, caller: CallerDep, ref: RefDep, body: FreezeBody, if_match: IfMatch, response: Response
) -> WorkloadDecisionsView:
    found = deciding.freeze(caller, ref, frozen=body.frozen, reason=body.reason, if_match=if_match)
    _tagged(response, found.etag)
    return found


@routes.get(
    "/namespaces/{namespace}/decisions", summary="What was decided about the namespace as a whole", responses=_READ
)
def namespace_decisions(
    deciding: DecidingDep, caller: CallerDep, namespace: NamespacePath, response: Response
) -> NamespaceDecisionsView:
    found = deciding.of_namespace(caller, namespace)
    _tagged(response, found.etag)
    return found


@routes.put("/namespaces/{namespace}/default-deny", summary="A default deny, applied last", responses=_WRITE)
def decide_default_deny(
    deciding: DecidingDep,
    caller: CallerDep,
    namespace: NamespacePath,
    body: DefaultDenyBody,
    if_match: IfMatch,
    response: Response,
) -> NamespaceDecisionsView:
    found = deciding.default_deny(
        caller,
        namespace,
        direction_of(body.direction),
        Choice(body.choice),
        reason=body.reason,
        if_match=if_match,
    )
    _tagged(response, found.etag)
    return found


@routes.get("/decisions", summary="Everything said, newest first", responses=_READ)
def decisions(
    deciding: DecidingDep,
    caller: CallerDep,
    wanted: WantedRows,
    namespace: NamespaceQuery = "",
) -> Page[DecisionView]:
    return page_of_decisions(deciding.history(caller, namespace), wanted)


@routes.post("/decisions/{record}/undo", summary="Take a decision back", responses=_WRITE)
def undo(deciding: DecidingDep, caller: CallerDep, record: RecordPath, body: UndoBody) -> DecisionView:
    return deciding.undo(caller, record, reason=body.reason)


@routes.get(
    "/aliases", summary="Names for addresses, CIDRs and domains", responses=documented(401, 403, 404, 422, 429, 503)
)
def aliases(deciding: DecidingDep, caller: CallerDep, response: Response) -> AliasesView:
    found = deciding.aliases(caller)
    _tagged(response, found.etag)
    return found


@routes.put("/aliases/{alias}", summary="Set or extend an alias", responses=_WRITE)
def set_alias(
    deciding: DecidingDep,
    caller: CallerDep,
    alias: NamePath,
    body: AliasBody,
    if_match: IfMatch,
    response: Response,
) -> AliasesView:
    wanted = Alias(name=alias, networks=networks_of(body.networks), domains=tuple(body.domains), allowed=body.allowed)
    found = deciding.set_alias(caller, wanted, extend=body.extend, reason=body.reason, if_match=if_match)
    _tagged(response, found.etag)
    return found


@routes.delete("/aliases/{alias}", summary="Remove an alias", responses=_WRITE)
def remove_alias(
    deciding: DecidingDep,
    caller: CallerDep,
    alias: NamePath,
    if_match: IfMatch,
    response: Response,
    reason: ReasonQuery = "",
) -> AliasesView:
    found = deciding.remove_alias(caller, alias, reason=reason, if_match=if_match)
    _tagged(response, found.etag)
    return found


@routes.get("/settings", summary="What holds for the whole cluster", responses=documented(401, 403, 404, 422, 429, 503))
def settings(deciding: DecidingDep, caller: CallerDep, response: Response) -> SettingsView:
    found = deciding.settings(caller)
    _tagged(response, found.etag)
    return found


@routes.put("/settings/labels", summary="Which label keys may be used", responses=_WRITE)
def set_labels(
    deciding: DecidingDep, caller: CallerDep, body: LabelsBody, if_match: IfMatch, response: Response
) -> SettingsView:
    lists = [
        LabelLists(include=tuple(keys.include), exclude=tuple(keys.exclude))
        for keys in (body.workload_labels, body.namespace_labels)
    ]
    said = LabelDecision(workload_labels=lists[0], namespace_labels=lists[1])
    found = deciding.change_settings(caller, [said], reason=body.reason, if_match=if_match)
    _tagged(response, found.etag)
    return found


@routes.put("/settings/cidrs", summary="The cluster's own ranges, by hand", responses=_WRITE)
def set_cidrs(
    deciding: DecidingDep, caller: CallerDep, body: CidrsBody, if_match: IfMatch, response: Response
) -> SettingsView:
    said = ClusterCIDRs(
        pod_cidrs=networks_of(body.pod_cidrs),
        service_cidrs=networks_of(body.service_cidrs),
        node_cidrs=networks_of(body.node_cidrs),
    )
    found = deciding.change_settings(caller, [said], reason=body.reason, if_match=if_match)
    _tagged(response, found.etag)
    return found


@routes.put("/settings/processes", summary="Processes whose arguments tell the cluster's ranges", responses=_WRITE)
def set_processes(
    deciding: DecidingDep, caller: CallerDep, body: ProcessesBody, if_match: IfMatch, response: Response
) -> SettingsView:
    said = ProcessNames(names=tuple(body.names))
    found = deciding.change_settings(caller, [said], reason=body.reason, if_match=if_match)
    _tagged(response, found.etag)
    return found
