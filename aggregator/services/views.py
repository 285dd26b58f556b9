"""Views: what a caller is shown of links, workloads and agents, already masked; every door writes them out as they are.

Invariant: plain values only (text, numbers, times), so that no door needs to know what is behind them. The id of a Link
is text: a signed 64-bit number is not safe in every JSON reader.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

DirectionWord = Literal["Ingress", "Egress"]
VerdictWord = Literal["allowed", "denied", "unknown"]
ProtocolWord = Literal["TCP", "UDP", "SCTP"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressView:
    """What is known of an address that no pod, Service or node owned when it was seen."""

    ip: str
    address_class: Literal["internal", "external", "aliased", "unknown"]
    reason: str
    alias: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerView:
    """One end of a link. `kind` is a workload's kind, or Nodes, ApiServer, Address, Masked."""

    kind: str
    namespace: str = ""
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict)  # those that a policy selects it by
    address: AddressView | None = None
    masked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SideVerdictView:
    """What one side's policies say, and which of them."""

    outcome: str
    policies: list[str] = field(default_factory=list)
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedVerdictView:
    """The verdict under the policies that are applied now."""

    verdict: VerdictWord
    text: str
    egress: SideVerdictView | None = None
    ingress: SideVerdictView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InProposalView:
    """Whether the proposal has the row, and why. `denied`: a proposal of the scope will cut it."""

    included: bool
    reason: str
    text: str
    denied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDecisionView:
    """What a person said about the row itself."""

    choice: Literal["include", "exclude"]
    author: str
    at: datetime
    reason: str = ""
    record: str = ""  # what undo asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """One link, aggregated by workload: `workload` is the end that was asked about, `peer` the other one."""

    id: str
    direction: DirectionWord
    workload: PeerView
    peer: PeerView
    protocol: ProtocolWord
    port: int
    processes: list[str]
    services: list[str]
    connections: int
    tx_bytes: int
    rx_bytes: int
    failed_attempts: int
    established: bool
    confidence: Literal["high", "low"]
    first_seen: datetime | None
    last_seen: datetime | None
    workload_pods: list[str]
    peer_pods: list[str]
    seen_by: list[Literal["client", "server"]]
    applied: AppliedVerdictView
    proposal: InProposalView
    decision: RowDecisionView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceRow:
    name: str
    workloads: int
    pods: int
    links: int
    last_seen: datetime | None
    policies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRow:
    """A workload of the cluster, also one that nobody has seen communicate."""

    namespace: str
    kind: str
    name: str
    pods: int
    in_cluster: bool  # False: only recorded links still know it
    observed: bool  # False: no recorded communication
    ingress_links: int
    egress_links: int
    failed_links: int
    first_seen: datetime | None
    last_seen: datetime | None
    policies: list[str]  # applied ones that select it
    isolated: list[DirectionWord]  # directions that an applied policy isolates it in


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    code: str
    severity: Literal["info", "warning", "error"]
    subject: str
    message: str
    way_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenLinkView:
    """A row of a proposal, in or out, and why."""

    id: str
    src: str
    dst: str
    protocol: ProtocolWord
    port: int
    reason: str
    text: str
    denied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisedView:
    """Something allowed that is no observed row."""

    workload: str
    direction: DirectionWord
    origin: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WideningView:
    """Addresses or ports that a rule covers although nobody was seen using them."""

    workload: str
    direction: DirectionWord
    origin: str
    what: str
    extra: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BreachView:
    setting: Literal["alone", "together"]
    link: str
    id: str
    expected: VerdictWord
    found: VerdictWord
    example: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedView:
    """A live pair that a rule opens although it is no included link."""

    src: str
    dst: str
    protocol: ProtocolWord
    first_port: int
    last_port: int
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateView:
    """What was checked, on the rendered YAML with this digest, and what was found."""

    holds: bool
    profile: str
    digest: str
    included: int
    denied: int
    undecided: list[BreachView]
    breaches: list[BreachView]
    opened: list[OpenedView]
    evaluators: list[str]
    connections: int
    disagreements: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDirectionView:
    """Nothing was seen in it, so it stays open until a person blocks it."""

    workload: str
    direction: DirectionWord


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalView:
    """The policies of a scope, what they rest on, and what they leave out and why."""

    scope: str
    span: str
    yaml: str
    digest: str  # SHA-256 of `yaml`
    policies: list[str]  # "namespace/name", in the order in which they may be applied
    included: list[ChosenLinkView]
    left_out: list[ChosenLinkView]
    synthesised: list[SynthesisedView]
    widenings: list[WideningView]
    open_directions: list[OpenDirectionView]
    findings: list[FindingView]
    certificate: CertificateView
    masked_links: int  # rows whose other end is hidden from the caller: they are not in the YAML
    decisions_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """One node's agent: how it feels, how far it was committed, what was lost."""

    name: str
    version: str
    kernel: str
    backend: str
    refused: list[str]
    last_report: datetime | None
    last_batch: datetime | None
    map_fill_permille: int
    spool_bytes: int
    spool_batches: int
    clock_skew_ms: int
    flow_records: int
    clamped_batches: int
    rejected_batches: int
    losses: dict[str, int]
    gap_batches: int
    gap_flow_records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """Does it work: agents, the data's age, what was lost, the cluster view's age."""

    cluster: str
    development: bool
    agents: int
    last_batch: datetime | None
    recording_since: datetime | None
    flow_records: int
    lost: dict[str, int]
    gap_batches: int
    pending_flows: int
    view_age_seconds: float
    view_stale: bool
    findings: list[FindingView]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionView:
    """One thing that a person said. `record` is what undo asks for."""

    record: str
    kind: str
    text: str
    author: str
    at: datetime
    reason: str
    in_force: bool
    undoes: str = ""  # the record that this one takes back
    last_seen: datetime | None = None  # of the link that it is about
    not_seen_for_long: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionRuleView:
    direction: DirectionWord
    rule: Literal["observed", "block-all", "allow-namespace", "allow-all"] | None  # None: nobody has said anything


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCidrView:
    direction: DirectionWord
    cidr: str
    protocol: ProtocolWord | None
    port: int | None
    end_port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadDecisionsView:
    """What holds for one workload. `etag` is what If-Match asks for."""

    scope: str
    etag: str
    rules: list[DirectionRuleView]
    cidrs: list[TypedCidrView]
    decisions: list[DecisionView]


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasView:
    name: str
    networks: list[str]
    domains: list[str]
    allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasesView:
    etag: str
    aliases: list[AliasView]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelListsView:
    """Label keys, exact or with a trailing `*`; an empty include list means every key."""

    include: list[str]
    exclude: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsView:
    """What holds for the whole cluster."""

    etag: str
    workload_labels: LabelListsView
    namespace_labels: LabelListsView
    pod_cidrs: list[str]
    service_cidrs: list[str]
    node_cidrs: list[str]
    process_names: list[str]
