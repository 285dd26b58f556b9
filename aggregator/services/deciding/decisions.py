"""Deciding: what people say about rows, directions, addresses and the cluster, and how they take it back.

Enters: a Caller, what is said, the tag that it was said against. Leaves: what holds now. Invariant: nothing is written
unless the caller may say it of every subject and has seen what holds; every entry has an author, a time and an undo,
and goes to the audit log.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence

from aggregator.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from aggregator.model.decision import (
    Alias,
    AliasDecision,
    BaselineDecision,
    Choice,
    Decision,
    DefaultDeny,
    DirectionDecision,
    GeneralRule,
    LinkDecision,
    TypedCIDR,
    TypedCIDRDecision,
)
from aggregator.model.link import link_id
from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload
from aggregator.services.authority.caller import Caller, Resource, Verb
from aggregator.services.baselines import links_to_freeze
from aggregator.services.deciding.decision_views import (
    aliases_view,
    decision_views,
    namespace_view,
    settings_view,
    tag_of,
    workload_view,
)
from aggregator.services.deciding.said_views import (
    AliasesView,
    DecisionView,
    NamespaceDecisionsView,
    SettingsView,
    WorkloadDecisionsView,
)
from aggregator.services.deciding.subjects import record_of, subjects_of, subjects_of_version
from aggregator.services.question import SERVICE_KIND, Question, Rows, WorkloadRef
from aggregator.services.tables import masked_ids, rows_by_id
from aggregator.store.decisions import DecisionEntry, DecisionLog, DecisionState, Said, Undo

audit = logging.getLogger("wattle.audit")
ANY = "*"
MAX_REASON = 1000


class Deciding:
    """Blocking and thread-safe. `ask` makes a Question for a caller, as Review does."""

    def __init__(self, log: DecisionLog, ask: Callable[[Caller], Question]) -> None:
        self._log = log
        self._ask = ask

    # ---- reading ----------------------------------------------------------------------------------------------------

    def of_workload(self, caller: Caller, ref: WorkloadRef) -> WorkloadDecisionsView:
        caller.must(Verb.GET, Resource.DECISIONS, ref.namespace)
        question = self._ask(caller)
        workload, rows = self._known(question, ref)
        return workload_view(question, workload, rows)

    def history(self, caller: Caller, namespace: str = "") -> list[DecisionView]:
        """Newest first: every entry whose subjects the caller sees; in a namespace, those about it."""
        if namespace:
            caller.must(Verb.LIST, Resource.DECISIONS, namespace)
        question = self._ask(caller)
        return decision_views(question, namespace=namespace)

    def aliases(self, caller: Caller) -> AliasesView:
        caller.must(Verb.LIST, Resource.ADDRESSES)
        return aliases_view(self._ask(caller))

    def settings(self, caller: Caller) -> SettingsView:
        caller.must(Verb.GET, Resource.SETTINGS)
        return settings_view(self._ask(caller))

    # ---- about a workload -------------------------------------------------------------------------------------------

    def decide_links(
        self, caller: Caller, ref: WorkloadRef, ids: Sequence[str], choice: Choice | None, *, reason: str, if_match: str
    ) -> WorkloadDecisionsView:
        caller.must(Verb.UPDATE, Resource.DECISIONS, ref.namespace)
        question = self._ask(caller)
        workload, rows = self._known(question, ref)
        declared = (row.link for row in question.derived.declared if workload in {row.link.src, row.link.dst})
        known = {**{str(link_id(link)): link for link in declared}, **rows_by_id(rows.clear)}
        hidden = masked_ids(question, rows.masked)
        for asked in ids:
            if asked in hidden:
                raise ForbiddenError("the other end of this row is in a namespace that you may not see")
            if asked not in known:
                raise NotFoundError(f"{ref} has no row {asked[:24]!r}")
        links = dict.fromkeys(known[asked] for asked in ids)
        return self._about(caller, ref, [LinkDecision(link=link, choice=choice) for link in links], reason, if_match)

    def decide_direction(
        self,
        caller: Caller,
        ref: WorkloadRef,
        direction: Direction,
        rule: GeneralRule | None,
        *,
        reason: str,
        if_match: str,
    ) -> WorkloadDecisionsView:
        caller.must(Verb.UPDATE, Resource.DECISIONS, ref.namespace)
        workload, _ = self._known(self._ask(caller), ref)
        decision = DirectionDecision(workload=workload, direction=direction, rule=rule)
        return self._about(caller, ref, [decision], reason, if_match)

    def type_cidr(
        self,
        caller: Caller,
        ref: WorkloadRef,
        typed: Callable[[Workload], TypedCIDR],
        choice: Choice,
        *,
        reason: str,
        if_match: str,
    ) -> WorkloadDecisionsView:
        caller.must(Verb.UPDATE, Resource.DECISIONS, ref.namespace)
        workload, _ = self._known(self._ask(caller), ref)
        decision = TypedCIDRDecision(cidr=typed(workload), choice=choice)
        return self._about(caller, ref, [decision], reason, if_match)

    def of_namespace(self, caller: Caller, namespace: str) -> NamespaceDecisionsView:
        caller.must(Verb.GET, Resource.DECISIONS, namespace)
        question = self._ask(caller)
        _must_exist(question, namespace)
        return namespace_view(question, namespace)

    def default_deny(
        self, caller: Caller, namespace: str, direction: Direction, choice: Choice, *, reason: str, if_match: str
    ) -> NamespaceDecisionsView:
        """It selects every pod of a namespace: only where there is one."""
        caller.must(Verb.UPDATE, Resource.DECISIONS, namespace)
        question = self._ask(caller)
        _must_exist(question, namespace)
        said = DefaultDeny(namespace=namespace, direction=direction, choice=choice)

        def unchanged(state: DecisionState) -> None:
            _must_match(tag_of(question.sight, state, namespace=namespace), if_match)

        self._say(caller, [said], reason, unchanged)
        return self.of_namespace(caller, namespace)

    def freeze(
        self, caller: Caller, ref: WorkloadRef, *, frozen: bool, reason: str, if_match: str
    ) -> WorkloadDecisionsView:
        """At what is recorded now, or no longer. The frozen list has every link, also those masked for the caller."""
        caller.must(Verb.UPDATE, Resource.BASELINES, ref.namespace)
        question = self._ask(caller)
        workload, rows = self._known(question, ref)
        links = links_to_freeze([*rows.clear, *rows.masked], question.now) if frozen else None
        return self._about(caller, ref, [BaselineDecision(workload=workload, links=links)], reason, if_match)

    # ---- about the cluster ------------------------------------------------------------------------------------------

    def set_alias(self, caller: Caller, alias: Alias, *, extend: bool, reason: str, if_match: str) -> AliasesView:
        """`extend` keeps what an alias of this name already covers."""
        caller.must(Verb.UPDATE, Resource.ADDRESSES)
        if not (alias.networks or alias.domains):
            raise InputError("an alias names at least one address, CIDR or domain", field="networks")

        def with_known(state: DecisionState) -> list[Decision]:
            known = next((a for a in state.decisions.aliases if a.name == alias.name), None)
            if not extend or known is None:
                return [AliasDecision(name=alias.name, alias=alias)]
            wider = Alias(
                name=alias.name,
                networks=tuple(dict.fromkeys((*known.networks, *alias.networks))),
                domains=tuple(dict.fromkeys((*known.domains, *alias.domains))),
                allowed=alias.allowed,
            )
            return [AliasDecision(name=alias.name, alias=wider)]

        self._cluster_wide(caller, Resource.ADDRESSES, with_known, reason, if_match)
        return self.aliases(caller)

    def remove_alias(self, caller: Caller, name: str, *, reason: str, if_match: str) -> AliasesView:
        caller.must(Verb.UPDATE, Resource.ADDRESSES)

        def removed(state: DecisionState) -> list[Decision]:
            if all(alias.name != name for alias in state.decisions.aliases):
                raise NotFoundError(f"there is no alias {name}")
            return [AliasDecision(name=name, alias=None)]

        self._cluster_wide(caller, Resource.ADDRESSES, removed, reason, if_match)
        return self.aliases(caller)

    def change_settings(
        self, caller: Caller, decisions: Sequence[Decision], *, reason: str, if_match: str
    ) -> SettingsView:
        """Label lists, cluster CIDRs, discovery processes: the whole of each that is given."""
        caller.must(Verb.UPDATE, Resource.SETTINGS)
        self._cluster_wide(caller, Resource.SETTINGS, lambda _state: decisions, reason, if_match)
        return self.settings(caller)

    # ---- taking back ------------------------------------------------------------------------------------------------

    def undo(self, caller: Caller, record: str, *, reason: str) -> DecisionView:
        """The state is then as if the entry had never been made. Raises ConflictError when it is undone already."""
        question = self._ask(caller)
        version = next((v for v in question.state.by_version if record_of(question.sight, v) == record), None)
        subjects = subjects_of_version(question.state, version) if version is not None else None
        if version is None or subjects is None or not subjects.seen_by(question.sight):
            raise NotFoundError("there is no such record")
        self._may_say(caller, subjects.resource, subjects.all_namespaces)

        def not_yet(state: DecisionState) -> None:
            if version in state.undone:
                raise ConflictError("it has been taken back already")

        self._say(caller, [Undo(version=version)], reason, not_yet)
        return decision_views(self._ask(caller), namespace="")[0]

    # ---- saying -----------------------------------------------------------------------------------------------------

    def say(self, caller: Caller, make: Callable[[DecisionState], Sequence[Decision]], reason: str) -> None:
        """For services whose decisions follow from the state that they are written to. They ask for the rights."""
        question = self._ask(caller)
        count = 0

        def entries(state: DecisionState) -> Iterable[DecisionEntry]:
            nonlocal count
            made = self._entries(question, caller, make(state), reason)
            count = len(made)
            return made

        written = self._log.append(question.cluster.name, entries)
        self._written(caller, written, reason, count=count)

    def _about(
        self, caller: Caller, ref: WorkloadRef, decisions: Sequence[Decision], reason: str, if_match: str
    ) -> WorkloadDecisionsView:
        question = self._ask(caller)
        workload, _ = self._known(question, ref)

        def unchanged(state: DecisionState) -> None:
            _must_match(tag_of(question.sight, state, workload=workload), if_match)

        self._say(caller, decisions, reason, unchanged)
        return self.of_workload(caller, ref)

    def _cluster_wide(
        self,
        caller: Caller,
        resource: Resource,
        make: Callable[[DecisionState], Sequence[Decision]],
        reason: str,
        if_match: str,
    ) -> None:
        question = self._ask(caller)

        def entries(state: DecisionState) -> Iterable[DecisionEntry]:
            _must_match(tag_of(question.sight, state, resource=resource), if_match)
            return self._entries(question, caller, make(state), reason)

        self._written(caller, self._log.append(question.cluster.name, entries), reason)

    def _say(self, caller: Caller, said: Sequence[Said], reason: str, check: Callable[[DecisionState], None]) -> None:
        question = self._ask(caller)

        def entries(state: DecisionState) -> Iterable[DecisionEntry]:
            check(state)
            return self._entries(question, caller, said, reason)

        self._written(caller, self._log.append(question.cluster.name, entries), reason, count=len(said))

    def _entries(self, question: Question, caller: Caller, said: Sequence[Said], reason: str) -> list[DecisionEntry]:
        if len(reason) > MAX_REASON:
            raise InputError(f"a reason has at most {MAX_REASON} characters", field="reason")
        for one in said:
            if not isinstance(one, Undo):
                subjects = subjects_of(one)
                if not subjects.seen_by(question.sight):
                    raise ForbiddenError("it is about a namespace that you may not see")
        return [DecisionEntry(said=one, author=caller.name, at=question.now, reason=reason) for one in said]

    def _written(self, caller: Caller, state: DecisionState, reason: str, *, count: int = 1) -> None:
        for logged in state.log[-count:] if count else ():
            said = logged.entry.said
            undone = isinstance(said, Undo)
            text = subjects_of_version(state, logged.version).text
            line = {
                "decision": logged.version,
                "author": caller.name,
                "said": f"undo: {text}" if undone else text,
                "reason": reason,
            }
            audit.info("%s", json.dumps(line, ensure_ascii=True))

    @staticmethod
    def _may_say(caller: Caller, resource: Resource, namespaces: Sequence[str]) -> None:
        """In one of its namespaces, as whoever made it; in the whole cluster for what holds there."""
        if not namespaces:
            caller.must(Verb.UPDATE, resource)
        elif not any(caller.may(Verb.UPDATE, resource, name) for name in namespaces):
            caller.must(Verb.UPDATE, resource, namespaces[0])

    def _known(self, question: Question, ref: WorkloadRef) -> tuple[Workload, Rows]:
        """The workload with all of its recorded rows. Raises NotFoundError."""
        if ref.kind == SERVICE_KIND:
            raise InputError("a Service is a view: decide about one of its workloads", field="kind")
        (workload,) = question.workloads_of(ref)
        rows = question.rows(workloads=[workload], span=None)
        if not (rows.clear or rows.masked or workload in question.known_workloads):
            raise NotFoundError(f"there is no {ref.kind} {ref.name} in the namespace {ref.namespace}")
        return workload, rows


def _must_exist(question: Question, namespace: str) -> None:
    if namespace not in question.cluster.namespace_labels:
        raise NotFoundError(f"there is no namespace {namespace}")


def _must_match(tag: str, if_match: str) -> None:
    tags = [part.strip().removeprefix("W/").strip('"') for part in if_match.split(",")]
    if ANY not in tags and tag not in tags:
        raise ConflictError("somebody has decided here since you read it: read it again, then decide")
