"""Decisions as canonical JSON, and back: what the decision log keeps.

Invariant: decode(encode(d)) == d, and equal decisions have equal text. The words are part of the stored form: a new
kind may be added, none may change its meaning.
"""

import json
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any, assert_never

from aggregator.model.address import IPNetwork
from aggregator.model.decision import (
    Alias,
    AliasDecision,
    BaselineDecision,
    Choice,
    ClusterCIDRs,
    Decision,
    DefaultDeny,
    DirectionDecision,
    GeneralRule,
    LabelDecision,
    LabelLists,
    LinkDecision,
    PolicyRemoval,
    PortRangeConsent,
    ProcessNames,
    TypedCIDR,
    TypedCIDRDecision,
)
from aggregator.model.link import end_key, link_key
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.workload import Workload
from aggregator.store.keys import parse_end, parse_link_key


def encode(decision: Decision) -> str:
    kind, body = _encoded(decision)
    return json.dumps({"kind": kind, **body}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def decode(text: str) -> Decision:
    """Raises ValueError or KeyError on a text that `encode` did not write."""
    return _decoded(json.loads(text))


def _encoded(decision: Decision) -> tuple[str, dict[str, Any]]:  # noqa: C901, PLR0911  # one for each kind
    match decision:
        case LinkDecision(link=link, choice=choice):
            return "link", {"link": json.loads(link_key(link)), "choice": choice.value if choice else None}
        case DirectionDecision(workload=workload, direction=direction, rule=rule):
            body = {"workload": end_key(workload), "direction": direction.value, "rule": rule.value if rule else None}
            return "direction", body
        case TypedCIDRDecision(cidr=cidr, choice=choice):
            return "typed-cidr", {"choice": choice.value, **_typed(cidr)}
        case AliasDecision(name=name, alias=alias):
            return "alias", {"name": name, "alias": _alias(alias) if alias else None}
        case LabelDecision(workload_labels=workloads, namespace_labels=namespaces):
            return "labels", {"workload_labels": _lists(workloads), "namespace_labels": _lists(namespaces)}
        case ClusterCIDRs(pod_cidrs=pods, service_cidrs=services, node_cidrs=nodes):
            return "cluster-cidrs", {"pods": _texts(pods), "services": _texts(services), "nodes": _texts(nodes)}
        case DefaultDeny(namespace=namespace, direction=direction, choice=choice):
            return "default-deny", {"namespace": namespace, "direction": direction.value, "choice": choice.value}
        case PortRangeConsent():
            return "port-range", {
                "src": end_key(decision.src),
                "dst": end_key(decision.dst),
                "protocol": decision.protocol.value,
                "first": decision.first,
                "last": decision.last,
                "choice": decision.choice.value,
            }
        case PolicyRemoval(namespace=namespace, name=name, choice=choice):
            return "policy-removal", {"namespace": namespace, "name": name, "choice": choice.value}
        case BaselineDecision(workload=workload, links=links):
            kept = None if links is None else [json.loads(link_key(link)) for link in links]
            return "baseline", {"workload": end_key(workload), "links": kept}
        case ProcessNames(names=names):
            return "process-names", {"names": list(names)}
        case _:
            assert_never(decision)


def _typed(typed: TypedCIDR) -> dict[str, Any]:
    return {
        "workload": end_key(typed.workload),
        "direction": typed.direction.value,
        "cidr": str(typed.cidr),
        "protocol": typed.protocol.value if typed.protocol else None,
        "port": typed.port,
        "end_port": typed.end_port,
    }


def _alias(alias: Alias) -> dict[str, Any]:
    return {
        "name": alias.name,
        "networks": _texts(alias.networks),
        "domains": list(alias.domains),
        "allowed": alias.allowed,
    }


def _lists(lists: LabelLists) -> dict[str, Any]:
    return {"include": list(lists.include), "exclude": list(lists.exclude)}


def _texts(networks: Sequence[IPNetwork]) -> list[str]:
    return [str(network) for network in networks]


def _decoded(body: Mapping[str, Any]) -> Decision:  # noqa: C901, PLR0911  # one for each kind
    match body["kind"]:
        case "link":
            choice = Choice(body["choice"]) if body["choice"] else None
            return LinkDecision(link=parse_link_key(json.dumps(body["link"])), choice=choice)
        case "direction":
            rule = GeneralRule(body["rule"]) if body["rule"] else None
            return DirectionDecision(
                workload=_workload(body["workload"]), direction=Direction(body["direction"]), rule=rule
            )
        case "typed-cidr":
            return TypedCIDRDecision(cidr=_typed_from(body), choice=Choice(body["choice"]))
        case "alias":
            return AliasDecision(name=body["name"], alias=_alias_from(body["alias"]) if body["alias"] else None)
        case "labels":
            return LabelDecision(
                workload_labels=_lists_from(body["workload_labels"]),
                namespace_labels=_lists_from(body["namespace_labels"]),
            )
        case "cluster-cidrs":
            return ClusterCIDRs(
                pod_cidrs=_networks(body["pods"]),
                service_cidrs=_networks(body["services"]),
                node_cidrs=_networks(body["nodes"]),
            )
        case "default-deny":
            return DefaultDeny(
                namespace=body["namespace"], direction=Direction(body["direction"]), choice=Choice(body["choice"])
            )
        case "port-range":
            return PortRangeConsent(
                src=parse_end(body["src"]),
                dst=parse_end(body["dst"]),
                protocol=Protocol(body["protocol"]),
                first=body["first"],
                last=body["last"],
                choice=Choice(body["choice"]),
            )
        case "policy-removal":
            return PolicyRemoval(namespace=body["namespace"], name=body["name"], choice=Choice(body["choice"]))
        case "baseline":
            links = body["links"]
            kept = None if links is None else tuple(parse_link_key(json.dumps(link)) for link in links)
            return BaselineDecision(workload=_workload(body["workload"]), links=kept)
        case "process-names":
            return ProcessNames(names=tuple(body["names"]))
        case other:
            raise ValueError(f"the decision log speaks of a decision of kind {other!r}")


def _workload(fields: list[str]) -> Workload:
    end = parse_end(fields)
    if not isinstance(end, Workload):
        raise ValueError(f"{end} is no workload")  # noqa: TRY004  # the text is wrong, not its type
    return end


def _typed_from(body: Mapping[str, Any]) -> TypedCIDR:
    return TypedCIDR(
        workload=_workload(body["workload"]),
        direction=Direction(body["direction"]),
        cidr=ip_network(body["cidr"]),
        protocol=Protocol(body["protocol"]) if body["protocol"] else None,
        port=body["port"],
        end_port=body["end_port"],
    )


def _alias_from(body: Mapping[str, Any]) -> Alias:
    return Alias(
        name=body["name"],
        networks=_networks(body["networks"]),
        domains=tuple(body["domains"]),
        allowed=body["allowed"],
    )


def _lists_from(body: Mapping[str, Any]) -> LabelLists:
    return LabelLists(include=tuple(body["include"]), exclude=tuple(body["exclude"]))


def _networks(texts: Sequence[str]) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)
