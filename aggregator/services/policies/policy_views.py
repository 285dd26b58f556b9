"""Views of policies: proposals and their proof, what they would do, and what is applied.

Invariant: as of services/views.py, plain values only.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aggregator.services.views import AppliedVerdictView, DirectionWord, FindingView, ProtocolWord, VerdictWord


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
class DeclaredLinkView:
    """A caller that the cluster's own objects announce and nobody has seen: a row to decide, in no policy before."""

    id: str  # include it by this id, as any row
    src: str
    dst: str
    protocol: ProtocolWord
    port: int
    source: str  # the object that announces it
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalView:
    """The policies of a scope, what they rest on, and what they leave out and why."""

    scope: str
    span: str
    yaml: str
    digest: str  # SHA-256 of `yaml`
    policies: list[str]  # "namespace/name", in the order in which they may be applied
    overwrites: list[str]  # those of them that would replace one that Wattle did not make
    included: list[ChosenLinkView]
    left_out: list[ChosenLinkView]
    declared: list[DeclaredLinkView]
    synthesised: list[SynthesisedView]
    widenings: list[WideningView]
    open_directions: list[OpenDirectionView]
    findings: list[FindingView]
    certificate: CertificateView
    masked_links: int  # rows whose other end is hidden from the caller: they are not in the YAML
    decisions_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftView:
    """A proposal before its proof, or with it: `proved` False says that nothing was checked yet, either way."""

    proposal: ProposalView
    proved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayView:
    """One link of history under other policies."""

    id: str
    link: str
    now: VerdictWord
    then: VerdictWord
    bucket: Literal["would-be-cut", "newly-allowed", "unchanged", "unknown"]
    connections: int
    last_seen: datetime | None
    example: str
    because: str
    synthetic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationView:
    """What the recorded links would have met, had the proposals been applied beside what remains."""

    scope: str
    span: str
    profile: str
    counts: dict[str, int]
    replays: list[ReplayView]  # all but the unchanged ones
    masked_links: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeView:
    src: str
    dst: str
    protocol: ProtocolWord
    first_port: int
    last_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffView:
    """The proposals against what is applied under the same names."""

    scope: str
    added: list[str]
    removed: list[str]
    changed: list[str]
    overwrites: list[str]  # policies of these names that Wattle did not make
    opened: list[ChangeView]
    closed: list[ChangeView]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    action: Literal["apply", "delete"]
    policy: str
    temporary: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartView:
    """A workload whose old connections would hide a mistake, and the command that renews them."""

    workload: str
    command: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """The order in which the proposals may be applied."""

    scope: str
    steps: list[StepView]
    restarts: list[RestartView]


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedPolicyView:
    """What the API server would say to one policy. `message` is its refusal, or its warnings."""

    policy: str
    outcome: Literal["created", "accepted", "refused", "not-asked"]
    message: str
    overwrites: bool  # there is one of this name, which Wattle did not make


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunView:
    """The proposals as the API server would take them; nothing is kept. `available`: it may be asked at all."""

    scope: str
    digest: str
    available: bool
    text: str
    policies: list[TriedPolicyView]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileView:
    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportView:
    """The proposals in another form, certified by evaluating its own parsed text, or labelled not certified."""

    scope: str
    kind: Literal["kustomize", "cilium", "calico", "admin"]
    certified: bool
    label: str
    files: list[FileView]
    differences: list[str]
    notes: list[str]
    refused: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleView:
    """The proposals of every namespace that the caller sees, as one folder with the order of application."""

    kind: Literal["kustomize", "cilium", "calico", "admin"]
    certified: bool
    namespaces: list[str]  # those that have a proposal
    files: list[FileView]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyUseView:
    """What an applied policy did over the span."""

    allowed_links: int
    allowed_connections: int
    denied_links: int  # links and attempts that it selects an end of and does not allow
    denied_attempts: int
    rules: list[int]  # connections allowed by each rule: ingress rules first, then egress rules


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPolicyView:
    """A NetworkPolicy of the cluster."""

    namespace: str
    name: str
    yaml: str
    words: str
    selects: list[str]  # workloads
    directions: list[DirectionWord]
    made_by_wattle: bool
    unused: bool  # selects nothing that runs
    use: PolicyUseView


@dataclass(frozen=True, slots=True, kw_only=True)
class UncoveredView:
    """A workload that no policy isolates in a direction."""

    workload: str
    direction: DirectionWord


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPolicyView:
    """A policy that is no NetworkPolicy: an admin policy, or a plug-in's own. `standing` says what counts of it."""

    kind: str
    namespace: str  # "" for the whole cluster
    name: str
    directions: list[DirectionWord]
    evaluated: bool  # verdicts and certificates count what it says
    standing: str
    words: str  # "" for who may not see every namespace that it could name


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPoliciesView:
    scope: str
    span: str
    policies: list[AppliedPolicyView]
    others: list[OtherPolicyView]
    uncovered: list[UncoveredView]


@dataclass(frozen=True, slots=True, kw_only=True)
class FixView:
    """The smallest change that would let it through, on the side that blocks it."""

    direction: DirectionWord
    policy: str
    yaml: str  # the rule to add


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedLinkView:
    """Why a link is allowed or blocked now."""

    id: str
    link: str
    applied: AppliedVerdictView
    example: str
    fixes: list[FixView]
