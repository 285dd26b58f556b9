"""Views of what people said: decisions, aliases, settings.

Invariant: as of services/views.py, plain values only.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aggregator.services.views import DirectionWord, ProtocolWord


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
    address_class: Literal["internal", "external", "aliased", "unknown"]  # by the cluster's ranges of now
    explained: str  # why: one that touches the cluster's own ranges would speak of pods, Services or nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadDecisionsView:
    """What holds for one workload. `etag` is what If-Match asks for."""

    scope: str
    etag: str
    rules: list[DirectionRuleView]
    cidrs: list[TypedCidrView]
    decisions: list[DecisionView]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceDecisionsView:
    """What holds for a namespace as a whole. `etag` is what If-Match asks for."""

    scope: str
    etag: str
    default_deny: list[DirectionWord]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionView:
    """One reason of readiness. `share` is how far it is met, 0 to 1."""

    criterion: Literal["age", "new-links", "unseen", "cron-jobs", "rollouts", "loss"]
    met: bool
    share: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftView:
    """A link that is not in the frozen baseline, or one of it that has not been seen for long."""

    kind: Literal["new", "gone"]
    id: str
    link: str
    first_seen: datetime | None
    last_seen: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineView:
    """How much of a workload's communication has probably been seen. It informs, it never withholds a proposal."""

    scope: str
    etag: str
    state: Literal["learning", "ready", "frozen"]
    score: float
    text: str
    criteria: list[CriterionView]
    frozen_links: int | None
    drift: list[DriftView]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOffView:
    """Whether the proposal of a scope is submitted and approved. `changed`: it is not what was submitted any more."""

    scope: str
    state: Literal["none", "submitted", "approved", "changed"]
    current_digest: str
    digest: str = ""
    submitted_by: str = ""
    submitted_at: datetime | None = None
    reason: str = ""
    approved_by: str = ""
    approved_at: datetime | None = None
