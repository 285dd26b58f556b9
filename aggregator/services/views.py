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
class AddressRow:
    """An address that nobody in the cluster owns, and who speaks with it."""

    ip: str
    address_class: Literal["internal", "external", "aliased", "unknown"]
    reason: str
    alias: str
    workloads: list[str]
    ports: list[str]
    directions: list[DirectionWord]
    connections: int
    failed_attempts: int
    first_seen: datetime | None
    last_seen: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerView:
    """Who asks, and what they may do: each right as "VERB RESOURCE"."""

    name: str
    cluster: str
    development: bool  # nobody is asked for a token
    namespace: str  # the one that was asked about; empty = none
    rights: list[str]  # in the whole cluster
    rights_in_namespace: list[str]  # those, and what is granted there
