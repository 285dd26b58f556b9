"""The scenario's schema: what a person may write on the one page that describes a cluster.

Enters: parsed JSON or YAML. Leaves: checked pages, for `scenario` to build values from. Unknown keys are errors.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from aggregator.model.protocol import Protocol


class Page(BaseModel):
    """Strict: no key that is not known, no string where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=False)


def _null_is_empty(value: object) -> object:
    return {} if value is None else value


def _null_is_no_items(value: object) -> object:
    return [] if value is None else value


Port = Annotated[int, Field(ge=0, le=65535)]
ProtocolName = Annotated[Protocol, Field(strict=False)]
Labels = Annotated[dict[str, str], BeforeValidator(_null_is_empty)]
Texts = Annotated[list[str], BeforeValidator(_null_is_no_items)]
Seconds = float | int


class NamespacePage(Page):
    name: str
    labels: Labels = {}


class NodePage(Page):
    name: str
    labels: Labels = {}
    ip: str | None = None
    ips: Texts = []
    pod_cidrs: Texts = []


class OwnerPage(Page):
    kind: str
    name: str


class ContainerPortPage(Page):
    name: str = ""
    port: Port
    protocol: ProtocolName = Protocol.TCP


class PodPage(Page):
    namespace: str = "default"
    name: str
    labels: Labels = {}
    ip: str | None = None
    ips: Texts = []
    ports: Annotated[list[ContainerPortPage], BeforeValidator(_null_is_no_items)] = []
    host_network: bool = Field(default=False, alias="hostNetwork")
    node_ip: str | None = Field(default=None, alias="nodeIP")
    workload: OwnerPage | None = None
    owner: OwnerPage | None = None
    start: Seconds | None = Field(default=None, alias="from")
    end: Seconds | None = Field(default=None, alias="to")
    future: bool = False


class ServicePortPage(Page):
    name: str = ""
    port: Port
    target_port: int | str | None = Field(default=None, alias="targetPort")
    node_port: Port | None = Field(default=None, alias="nodePort")
    protocol: ProtocolName = Protocol.TCP


class ServicePage(Page):
    namespace: str = "default"
    name: str
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: str | None = Field(default=None, alias="clusterIP")
    cluster_ips: Texts = Field(default=[], alias="clusterIPs")
    external_ips: Texts = Field(default=[], alias="externalIPs")
    external_name: str = Field(default="", alias="externalName")
    external_traffic_policy: Literal["Cluster", "Local"] = Field(default="Cluster", alias="externalTrafficPolicy")
    selector: Labels = {}
    labels: Labels = {}
    annotations: Labels = {}
    ports: Annotated[list[ServicePortPage], BeforeValidator(_null_is_no_items)] = []


class TrafficPage(Page):
    """A connection: `ns/pod` or `ip:ADDRESS` at each end."""

    src: str = Field(alias="from")
    dst: str = Field(alias="to")
    port: Port
    protocol: ProtocolName = Protocol.TCP
    note: str = ""


class ExpectationPage(TrafficPage):
    allowed: bool
    ipblock_pod: bool = False


class PolicySayPage(Page):
    policy: str
    reason: str
    rules: list[int] | None = None


class SidePage(Page):
    outcome: str
    policies: list[PolicySayPage] | None = None
    cause: str | None = None


class ExplanationPage(TrafficPage):
    allowed: bool | None = None
    ipblock_pod: bool = False
    egress: SidePage | None = None
    ingress: SidePage | None = None


class FlowPage(TrafficPage):
    """A flow as it was seen. The keys from `resolved` on say what the truth is; nothing may need them."""

    ts: Seconds | None = None
    origin: str = ""
    result: Literal["established", "refused", "syn-only"] = "established"
    verdict: Literal["forwarded", "dropped-by-policy"] = "forwarded"
    count: int = 1
    process: str = ""
    node: str = ""
    resolved: Any = None
    attributed_to: Any = None
    reply_of: Any = None
    first_packet: Any = None
    connection: Any = None
    owner_at_ts: Any = None
    netns: Any = None
    hairpin_src: Any = None
    observed_as: Any = None


class AddressSpanPage(Page):
    ip: str
    pod: str | None = None
    start: Seconds | None = Field(default=None, alias="from")
    end: Seconds | None = Field(default=None, alias="to")


class OptionsPage(Page):
    mode: Literal["ingress+egress", "ingress", "egress"] = "ingress+egress"
    scope: Texts | None = None


class ScenarioPage(Page):
    name: str
    title: str = ""
    suite: str = ""
    source: str = ""
    origin: str = ""
    note: str = ""
    pitfalls: Texts = []
    rules: Texts = []
    namespaces: Annotated[list[NamespacePage], BeforeValidator(_null_is_no_items)] = []
    nodes: Annotated[list[NodePage], BeforeValidator(_null_is_no_items)] = []
    pods: Annotated[list[PodPage], BeforeValidator(_null_is_no_items)] = []
    services: Annotated[list[ServicePage], BeforeValidator(_null_is_no_items)] = []
    endpoints: dict[str, list[str]] = {}
    pod_cidrs: Texts = []
    service_cidrs: Texts = []
    ip_history: list[AddressSpanPage] = []
    policies: Annotated[list[dict[str, Any]], BeforeValidator(_null_is_no_items)] = []
    objects: Annotated[list[dict[str, Any]], BeforeValidator(_null_is_no_items)] = []
    flows: Annotated[list[FlowPage], BeforeValidator(_null_is_no_items)] = []
    options: OptionsPage = OptionsPage()
    expectations: Annotated[list[ExpectationPage], BeforeValidator(_null_is_no_items)] = []
    explanations: Annotated[list[ExplanationPage], BeforeValidator(_null_is_no_items)] = []
    order: Texts = []
    matrix: dict[str, list[str | list[str | int]]] = {}
    must_allow: Annotated[list[TrafficPage], BeforeValidator(_null_is_no_items)] = []
    must_deny: Annotated[list[TrafficPage], BeforeValidator(_null_is_no_items)] = []
    extra_must_allow: Annotated[list[TrafficPage], BeforeValidator(_null_is_no_items)] = []
    forbidden_label_keys: Texts = []
    forbid_peers: Texts = []
    forbid_selectors: list[Labels] = []
    must_not_isolate: Any = None
    expect_findings: Texts = []
    expect_policies: int | None = None
    max_rules: dict[str, int] = {}
    properties: list[Any] = []
    expected: dict[str, Any] = {}
