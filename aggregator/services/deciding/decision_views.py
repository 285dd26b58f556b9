"""What holds and who said it, as views.

Invariant: an entry is shown only to who sees all of its subjects; a decision about a link that has not been seen for
long says so, because it may have outlived what it was about.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from aggregator.model.decision import Alias, LabelLists, TypedCIDR
from aggregator.model.link import Link
from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload
from aggregator.services.authority.caller import Resource
from aggregator.services.authority.sight import Sight
from aggregator.services.deciding.said_views import (
    AliasesView,
    AliasView,
    DecisionView,
    DirectionRuleView,
    LabelListsView,
    NamespaceDecisionsView,
    SettingsView,
    TypedCidrView,
    WorkloadDecisionsView,
)
from aggregator.services.deciding.subjects import Subjects, etag_of, record_of, subjects_of_version
from aggregator.services.question import Question, Rows
from aggregator.store.decisions import DecisionState, LoggedDecision, Undo

LONG = timedelta(days=30)
_DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)


def tag_of(
    sight: Sight,
    state: DecisionState,
    *,
    workload: Workload | None = None,
    namespace: str = "",
    resource: Resource = Resource.DECISIONS,
) -> str:
    """What If-Match is compared with: of a workload, of a namespace, or of a resource of the whole cluster."""

    def about(subjects: Subjects) -> bool:
        if workload is not None:
            return workload in subjects.workloads
        if namespace:
            return namespace in subjects.namespaces
        return subjects.cluster_wide and subjects.resource is resource

    scope = str(workload) if workload is not None else f"namespace {namespace}" if namespace else resource.value
    return etag_of(sight, state, scope, about)


def workload_view(question: Question, workload: Workload, rows: Rows) -> WorkloadDecisionsView:
    held = question.decisions
    seen = {row.link: row.evidence.last_seen for row in rows.clear}
    return WorkloadDecisionsView(
        scope=str(workload),
        etag=tag_of(question.sight, question.state, workload=workload),
        rules=[_rule(question, workload, direction) for direction in _DIRECTIONS],
        cidrs=[
            _typed(question, typed) for direction in _DIRECTIONS for typed in held.typed_cidrs_of(workload, direction)
        ],
        decisions=[
            _decision_view(question, logged, seen)
            for logged in reversed(question.state.log)
            if workload in subjects_of_version(question.state, logged.version).workloads
            and subjects_of_version(question.state, logged.version).seen_by(question.sight)
        ],
    )


def namespace_view(question: Question, namespace: str) -> NamespaceDecisionsView:
    """What was said of the namespace itself; of its workloads each says its own."""
    denied = {direction for where, direction in question.decisions.default_denies if where == namespace}
    return NamespaceDecisionsView(
        scope=namespace,
        etag=tag_of(question.sight, question.state, namespace=namespace),
        default_deny=[direction.value for direction in _DIRECTIONS if direction in denied],
        decisions=[
            _decision_view(question, logged, {})
            for logged in reversed(question.state.log)
            if namespace in (subjects := subjects_of_version(question.state, logged.version)).namespaces
            and subjects.seen_by(question.sight)
        ],
    )


def _typed(question: Question, typed: TypedCIDR) -> TypedCidrView:
    known = question.addresses.classify_typed(typed.cidr)
    return TypedCidrView(
        direction=typed.direction.value,
        cidr=str(typed.cidr),
        protocol=typed.protocol.value if typed.protocol else None,
        port=typed.port,
        end_port=typed.end_port,
        address_class=known.address_class.value,
        explained=known.reason,
    )


def _rule(question: Question, workload: Workload, direction: Direction) -> DirectionRuleView:
    rule = question.decisions.rule_by_direction.get((workload, direction))
    return DirectionRuleView(direction=direction.value, rule=rule.value if rule else None)


def decision_views(question: Question, *, namespace: str) -> list[DecisionView]:
    """Newest first."""
    found = []
    for logged in reversed(question.state.log):
        subjects = subjects_of_version(question.state, logged.version)
        if namespace and namespace not in subjects.all_namespaces:
            continue
        allowed = subjects.seen_by(question.sight) and (question.sight.everything or not subjects.cluster_wide)
        if allowed:
            found.append(_decision_view(question, logged, {}))
    return found


def _decision_view(question: Question, logged: LoggedDecision, seen: Mapping[Link, datetime | None]) -> DecisionView:
    entry = logged.entry
    subjects = subjects_of_version(question.state, logged.version)
    last = seen.get(subjects.link) if subjects.link is not None else None
    undoes = record_of(question.sight, entry.said.version) if isinstance(entry.said, Undo) else ""
    return DecisionView(
        record=record_of(question.sight, logged.version),
        kind="undo" if undoes else subjects.kind,
        text=f"taken back: {subjects.text}" if undoes else subjects.text,
        author=entry.author,
        at=entry.at,
        reason=entry.reason,
        in_force=logged.version not in question.state.undone,
        undoes=undoes,
        last_seen=last,
        not_seen_for_long=bool(seen) and subjects.link is not None and (last is None or question.now - last > LONG),
    )


def aliases_view(question: Question) -> AliasesView:
    return AliasesView(
        etag=tag_of(question.sight, question.state, resource=Resource.ADDRESSES),
        aliases=[_alias(alias) for alias in sorted(question.state.decisions.aliases, key=lambda a: a.name)],
    )


def _alias(alias: Alias) -> AliasView:
    return AliasView(
        name=alias.name,
        networks=[str(network) for network in alias.networks],
        domains=list(alias.domains),
        allowed=alias.allowed,
    )


def settings_view(question: Question) -> SettingsView:
    held = question.state.decisions
    cidrs = held.cluster_cidrs
    return SettingsView(
        etag=tag_of(question.sight, question.state, resource=Resource.SETTINGS),
        workload_labels=_lists(held.labels.workload_labels),
        namespace_labels=_lists(held.labels.namespace_labels),
        pod_cidrs=[str(cidr) for cidr in cidrs.pod_cidrs] if cidrs else [],
        service_cidrs=[str(cidr) for cidr in cidrs.service_cidrs] if cidrs else [],
        node_cidrs=[str(cidr) for cidr in cidrs.node_cidrs] if cidrs else [],
        process_names=list(held.process_names),
    )


def _lists(lists: LabelLists) -> LabelListsView:
    return LabelListsView(include=list(lists.include), exclude=list(lists.exclude))
