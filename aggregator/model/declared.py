"""DeclaredCaller: somebody whom the cluster's own objects announce as a caller, seen or not.

Enters with the ClusterSnapshot (webhook configurations, APIServices, CRD conversions, ServiceMonitors and PodMonitors,
Ingresses and HTTPRoutes); policy.declared turns it into rows to decide.
"""

from dataclasses import dataclass
from enum import StrEnum

from aggregator.model.cluster import Labels


class CallerKind(StrEnum):
    API_SERVER = "api-server"  # webhooks, aggregated APIs, CRD conversions (NP-42)
    MONITORING = "monitoring"  # ServiceMonitor, PodMonitor, scrape annotations (NP-45)
    GATEWAY = "gateway"  # Ingress and HTTPRoute controllers (NP-43)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredCaller:
    """Who calls (by kind, or by labels where the object names them), and what: a Service, or pods by label."""

    kind: CallerKind
    source: str  # "ValidatingWebhookConfiguration/policy.example.org"
    namespace: str  # of what is called
    service: str = ""  # "" = by selector
    selector: Labels = ()
    port: int | str | None = None  # of the Service, or of the pods; None = every port of the Service
    caller_namespace: str = ""  # "" = any
    caller_labels: Labels = ()  # () = the usual ones of this kind
