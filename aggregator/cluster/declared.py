"""Callers that the cluster's own objects announce: webhooks, aggregated APIs, scrapers, gateways (NP-42, NP-43, NP-45).

Enters: raw objects by kind, and the Services and pod templates that their selectors pick from. Leaves: DeclaredCallers,
each once, in order. Invariant: a caller is only announced where the object itself names what is called; an object that
makes no sense announces nobody.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aggregator.cluster.owners import LOOKED_UP
from aggregator.cluster.reduce import Raw, ServiceFacts, WorkloadFacts
from aggregator.errors import InputError
from aggregator.model.cluster import Labels
from aggregator.model.declared import CallerKind, DeclaredCaller
from aggregator.policy.manifest.field import Field
from aggregator.policy.manifest.parse import parse_selector

DECLARING_KINDS = frozenset(
    {
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "APIService",
        "CustomResourceDefinition",
        "ServiceMonitor",
        "PodMonitor",
        "Ingress",
        "HTTPRoute",
    }
)
WEBHOOK_PORT = 443  # of a service reference that names none
# https://gateway-api.sigs.k8s.io/geps/gep-1762/: what a controller puts on the pods that it starts for a Gateway.
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
SCRAPE, SCRAPE_PORT = "prometheus.io/scrape", "prometheus.io/port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectable:
    """A Service, or the pods of a template, as a monitor may select it."""

    namespace: str
    name: str  # "" = pods
    labels: Labels
    selector: Labels = ()  # of a Service
    annotations: Labels = ()


def declared_callers(
    objects: Iterable[tuple[str, Raw]], services: Iterable[Selectable], templates: Iterable[Selectable]
) -> tuple[DeclaredCaller, ...]:
    """Everything that is announced. `objects`: (kind, object)."""
    offered, made = _by_namespace(services), _by_namespace(templates)
    found: dict[DeclaredCaller, None] = {}
    for kind, raw in objects:
        try:
            found.update(dict.fromkeys(_announced(kind, raw, offered, made)))
        except (KeyError, TypeError, ValueError, AttributeError, InputError):
            continue
    for candidates in (*offered.values(), *made.values()):
        for candidate in candidates:
            found.update(dict.fromkeys(_annotated(candidate)))
    return tuple(sorted(found, key=_order))


def declared_in(
    objects: Mapping[tuple[str, str, str], Raw],
    services: Mapping[tuple[str, str], ServiceFacts],
    workloads: Mapping[tuple[str, str, str], WorkloadFacts],
) -> tuple[DeclaredCaller, ...]:
    """Of a view's own tables: objects and workloads by (kind, namespace, name), Services by (namespace, name)."""
    declaring = ((name[0], objects[name]) for name in sorted(objects) if name[0] in DECLARING_KINDS)
    offered = (
        Selectable(
            namespace=facts.namespace,
            name=facts.name,
            labels=facts.labels,
            selector=facts.selector,
            annotations=facts.annotations,
        )
        for _, facts in sorted(services.items())
    )
    templates = (
        Selectable(namespace=facts.namespace, name="", labels=facts.template_labels, annotations=facts.scraped)
        for _, facts in sorted(workloads.items())
        if facts.template_labels and not (facts.kind in LOOKED_UP and facts.owner is not None)
    )
    return declared_callers(declaring, offered, templates)


_Candidates = Mapping[str, list[Selectable]]


def _by_namespace(found: Iterable[Selectable]) -> _Candidates:
    by_namespace: dict[str, list[Selectable]] = {}
    for one in found:
        by_namespace.setdefault(one.namespace, []).append(one)
    return by_namespace


def _order(caller: DeclaredCaller) -> tuple[str, ...]:
    called = (caller.service, repr(caller.selector), repr(caller.port))
    return (caller.source, caller.namespace, *called, caller.caller_namespace, repr(caller.caller_labels))


def _announced(kind: str, raw: Raw, services: _Candidates, templates: _Candidates) -> Iterator[DeclaredCaller]:
    spec: Raw = raw.get("spec") or {}
    source = f"{kind}/{raw['metadata']['name']}"
    match kind:
        case "ServiceMonitor":
            for service in _selected(raw, spec, services):
                yield from (_scraped_service(service, endpoint, source) for endpoint in spec.get("endpoints") or ())
        case "PodMonitor":
            for pods in _selected(raw, spec, templates):
                yield from _scraped_by_monitor(pods, spec, source)
        case "Ingress":
            yield from _behind_ingress(raw, spec, source)
        case "HTTPRoute":
            yield from _behind_route(raw, spec, source)
        case _:
            for service in _named_services(kind, raw, spec):
                yield from _called_by_api_server(service, source)


def _named_services(kind: str, raw: Raw, spec: Raw) -> Iterator[Any]:
    """The service references of what the API server itself calls."""
    match kind:
        case "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration":
            yield from ((webhook.get("clientConfig") or {}).get("service") for webhook in raw.get("webhooks") or ())
        case "APIService":
            yield spec.get("service")
        case "CustomResourceDefinition":
            webhook = (spec.get("conversion") or {}).get("webhook") or {}
            yield (webhook.get("clientConfig") or {}).get("service")


def _called_by_api_server(service: Any, source: str) -> Iterator[DeclaredCaller]:
    if service:
        yield DeclaredCaller(
            kind=CallerKind.API_SERVER,
            source=source,
            namespace=str(service["namespace"]),
            service=str(service["name"]),
            port=int(service.get("port") or WEBHOOK_PORT),
        )


# ---- monitors -------------------------------------------------------------------------------------------------------


def _selected(raw: Raw, spec: Raw, candidates: _Candidates) -> Iterator[Selectable]:
    """What a monitor's selector picks, in its own namespace unless it names others."""
    selector = parse_selector(Field(spec.get("selector") or {}))
    wanted = spec.get("namespaceSelector") or {}
    if wanted.get("any"):
        namespaces: Iterable[str] = candidates.keys()
    else:
        namespaces = wanted.get("matchNames") or (_namespace(raw),)
    for namespace in namespaces:
        for candidate in candidates.get(str(namespace), ()):
            if selector.matches(dict(candidate.labels)):
                yield candidate


def _scraped_service(service: Selectable, endpoint: Raw, source: str) -> DeclaredCaller:
    """`port` is a Service's port by name; `targetPort` is the pods' own."""
    if endpoint.get("port"):
        return DeclaredCaller(
            kind=CallerKind.MONITORING,
            source=source,
            namespace=service.namespace,
            service=service.name,
            port=str(endpoint["port"]),
        )
    target = endpoint.get("targetPort")
    if target is None:
        return DeclaredCaller(
            kind=CallerKind.MONITORING, source=source, namespace=service.namespace, service=service.name
        )
    return _scraped_pods(service.namespace, service.selector, target, source)


def _scraped_by_monitor(pods: Selectable, spec: Raw, source: str) -> Iterator[DeclaredCaller]:
    for endpoint in spec.get("podMetricsEndpoints") or ():
        port = endpoint.get("port") or endpoint.get("portNumber") or endpoint.get("targetPort")
        yield _scraped_pods(pods.namespace, pods.labels, port, source)


def _scraped_pods(namespace: str, selector: Labels, port: int | str | None, source: str) -> DeclaredCaller:
    return DeclaredCaller(
        kind=CallerKind.MONITORING, source=source, namespace=namespace, selector=selector, port=_port(port)
    )


def _port(port: int | str | None) -> int | str | None:
    return int(port) if isinstance(port, str) and port.isdecimal() else port


def _annotated(candidate: Selectable) -> Iterator[DeclaredCaller]:
    """`prometheus.io/scrape: "true"`, as the usual scrape configurations read it."""
    said = dict(candidate.annotations)
    if said.get(SCRAPE) == "true":
        labels = candidate.selector if candidate.name else candidate.labels
        what = f"Service/{candidate.namespace}/{candidate.name}" if candidate.name else f"pods of {candidate.namespace}"
        yield _scraped_pods(candidate.namespace, labels, said.get(SCRAPE_PORT), f"{SCRAPE} of {what}")


# ---- gateways -------------------------------------------------------------------------------------------------------


def _behind_ingress(raw: Raw, spec: Raw, source: str) -> Iterator[DeclaredCaller]:
    backends = [spec.get("defaultBackend")]
    for rule in spec.get("rules") or ():
        backends += [path.get("backend") for path in (rule.get("http") or {}).get("paths") or ()]
    for backend in backends:
        service = (backend or {}).get("service")
        if service:
            port = service.get("port") or {}
            yield DeclaredCaller(
                kind=CallerKind.GATEWAY,
                source=source,
                namespace=_namespace(raw),
                service=str(service["name"]),
                port=port.get("name") or port.get("number"),
            )


def _behind_route(raw: Raw, spec: Raw, source: str) -> Iterator[DeclaredCaller]:
    """The pods of the Gateways that a route hangs on, and the usual ones: some controllers label theirs otherwise."""
    gateways = [("", ())] + [
        (str(parent.get("namespace") or _namespace(raw)), ((GATEWAY_NAME, str(parent["name"])),))
        for parent in spec.get("parentRefs") or ()
        if parent.get("kind", "Gateway") == "Gateway"
    ]
    for rule in spec.get("rules") or ():
        mirrors = [(f.get("requestMirror") or {}).get("backendRef") for f in rule.get("filters") or ()]
        for backend in (*(rule.get("backendRefs") or ()), *mirrors):
            if not backend or backend.get("kind", "Service") != "Service":
                continue
            for caller_namespace, caller_labels in gateways:
                yield DeclaredCaller(
                    kind=CallerKind.GATEWAY,
                    source=source,
                    namespace=str(backend.get("namespace") or _namespace(raw)),
                    service=str(backend["name"]),
                    port=backend.get("port"),
                    caller_namespace=caller_namespace,
                    caller_labels=caller_labels,
                )


def _namespace(raw: Raw) -> str:
    return str(raw["metadata"].get("namespace") or "default")
