"""Review: what every door asks. A Caller and plain words in, views out, already masked.

Invariant: authority is asked before anything is looked up, so that what may not be seen and what does not exist give
the same answer; each answer is one consistent cut of links, cluster and decisions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from aggregator.cluster.yamltext import load_documents
from aggregator.errors import InputError, NotFoundError
from aggregator.model.dryrun import DryRun
from aggregator.model.proposal import Generation
from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload
from aggregator.policy.certify import SecondEvaluator
from aggregator.policy.lint import lint
from aggregator.policy.profiles.known import profile_named
from aggregator.services.addresses import address_rows
from aggregator.services.authority.caller import Caller, Resource, Verb
from aggregator.services.authority.sight import Sight
from aggregator.services.baselines import Recorded, baseline_view, states_of
from aggregator.services.deciding.decisions import Deciding
from aggregator.services.deciding.said_views import BaselineView
from aggregator.services.grounds import GroundsView, grounds_view
from aggregator.services.keeping.drifting import Drifting
from aggregator.services.keeping.events import Events
from aggregator.services.keeping.watching import Watching
from aggregator.services.paging import Page, Wanted
from aggregator.services.policies.applied_views import applied_policies, explained
from aggregator.services.policies.bundles import Part, bundle_files
from aggregator.services.policies.other_policies import other_policies
from aggregator.services.policies.policy_views import (
    AppliedPoliciesView,
    BundleView,
    DiffView,
    DraftView,
    DryRunView,
    ExplainedLinkView,
    ExportView,
    FileView,
    PlanView,
    ProposalView,
    SimulationView,
)
from aggregator.services.policies.previews import (
    ExportKind,
    diff_view,
    dry_run_view,
    export_view,
    plan_view,
    simulation_view,
)
from aggregator.services.policies.proofs import Proofs
from aggregator.services.policies.proposals import proposal_view
from aggregator.services.policies.signing import Signing
from aggregator.services.question import SERVICE_KIND, Derived, LinkStore, OneCut, Question, Rows, View, WorkloadRef
from aggregator.services.spans import ALL, parse_span
from aggregator.services.status import agent_views, caller_view, status_view
from aggregator.services.tables import generate_for, link_rows, rows_by_id
from aggregator.services.topology_views import TopologyView, graph_of_namespace, graph_of_workloads, topology_view
from aggregator.services.views import (
    AddressRow,
    AgentView,
    CallerView,
    FindingView,
    LinkRow,
    NamespaceRow,
    StatusView,
    WorkloadRow,
)
from aggregator.services.wording import finding_views
from aggregator.services.workloads import list_namespaces, list_workloads, workloads_page
from aggregator.store.decisions import DecisionLog, DecisionState
from aggregator.store.events import EventLog
from aggregator.store.overview import Overview
from aggregator.store.retention import Retention
from aggregator.store.sign_offs import SignOffs
from aggregator.store.watches import PolicyWatches


def _generated(asked: "_Asked") -> Generation:
    return generate_for(asked.question, asked.rows, namespace=asked.namespace, workloads=asked.workloads)


def _never(_workload: Workload) -> Mapping[int, int]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where answers come from, wired once."""

    store: LinkStore
    view: View
    decisions: DecisionLog
    sign_offs: SignOffs
    overview: Overview
    events: EventLog
    watches: PolicyWatches
    clock: Callable[[], datetime]
    profile: str = "generic"
    second: SecondEvaluator | None = None  # the evaluator that shares no code with the first
    masking_key: bytes = b""
    retention: Retention = field(default_factory=Retention)
    days_seen: Callable[[Workload], Mapping[int, int]] = _never
    dry_run: DryRun | None = None  # an API server that may be asked what it would say
    drifting: Drifting | None = None  # steps when a person has answered; None: the keeper's next step is soon enough


PolicyScope = WorkloadRef | str
"""A workload (or Service), or the name of a namespace; where applied policies are asked for, "" is all that is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    question: Question
    namespace: str
    workloads: Sequence[Workload]
    rows: Rows


@dataclass(slots=True)
class _Kept:
    """What outlives one request."""

    derived: Derived | None = None
    proofs: Proofs = field(default_factory=Proofs)


class Review:
    """Blocking and thread-safe: doors on an event loop use a thread."""

    def __init__(self, sources: Sources, kept: "_Kept | None" = None, cut: OneCut | None = None) -> None:
        self._sources = sources
        self._profile = profile_named(sources.profile)
        self._kept = kept or _Kept()
        self._cut = cut
        self.deciding = Deciding(sources.decisions, self.question)
        step = sources.drifting.step if sources.drifting is not None else None
        self.watching = Watching(
            sources.watches,
            sources.view.cluster,
            self.question,
            lambda caller, scope: self.proposal(caller, scope).yaml,
            load_documents,
        )
        self.events = Events(sources.events, self.question, self.deciding, step)
        self.signing = Signing(sources.sign_offs, sources.view.cluster, self.proposal, sources.clock)

    @property
    def cluster(self) -> str:
        """The cluster that is answered for."""
        return self._sources.view.cluster

    def at_once(self) -> "Review":
        """For one request of many questions: one time, each scope's links read once, each proposal generated once."""
        now = self._sources.clock()
        return Review(replace(self._sources, clock=lambda: now), self._kept, OneCut())

    @property
    def now(self) -> datetime:
        return self._sources.clock()

    def question(self, caller: Caller) -> Question:
        sources = self._sources
        sight = Sight(caller=caller, whole=sources.view.snapshot, key=sources.masking_key)
        state = sources.decisions.state(sources.view.cluster)
        return Question(
            caller=caller,
            sight=sight,
            state=state,
            stale=sources.view.stale,
            derived=self._derived(sight, state),
            now=sources.clock(),
            overview=sources.overview,
            read_links=sources.store.links,
            cut=self._cut or OneCut(),
        )

    def _derived(self, sight: Sight, state: DecisionState) -> Derived:
        """Kept between questions of callers who see everything, while the cluster and the decisions stay the same."""
        if not sight.everything:
            decisions = sight.decisions(state.decisions)
            return Derived(cluster=sight.cluster, decisions=decisions, profile=self._profile)
        kept = self._kept.derived
        if kept is None or kept.cluster is not sight.whole:
            kept = Derived(cluster=sight.whole, decisions=state.decisions, profile=self._profile)
        elif kept.decisions is not state.decisions:
            kept = kept.under(state.decisions)
        self._kept.derived = kept
        return kept

    # ---- who asks ---------------------------------------------------------------------------------------------------

    def me(self, caller: Caller, namespace: str = "") -> CallerView:
        """Never an error: somebody without any right learns just that."""
        return caller_view(caller, self._sources.view.cluster, namespace)

    # ---- what there is ----------------------------------------------------------------------------------------------

    def namespaces(self, caller: Caller) -> list[NamespaceRow]:
        """Those that the caller may see: never an error, perhaps empty."""
        return list_namespaces(self.question(caller))

    def workloads(self, caller: Caller, namespace: str = "", span: str = ALL) -> list[WorkloadRow]:
        if namespace:
            caller.must(Verb.LIST, Resource.LINKS, namespace)
        question = self.question(caller)
        found = list_workloads(question, namespace, parse_span(span, question.now))
        if namespace and not found and namespace not in question.cluster.namespace_labels:
            raise NotFoundError(f"there is no namespace {namespace}")
        return found

    def services(self, caller: Caller, namespace: str) -> list[str]:
        """Names of a namespace's Services: each is asked about as the union of its backends."""
        caller.must(Verb.LIST, Resource.LINKS, namespace)
        cluster = self.question(caller).cluster
        return sorted(service.name for service in cluster.services if service.namespace == namespace)

    def workloads_page(self, caller: Caller, wanted: Wanted, namespace: str = "", span: str = ALL) -> Page[WorkloadRow]:
        """The same, a page of it: what a door asks that shows no more."""
        if namespace:
            caller.must(Verb.LIST, Resource.LINKS, namespace)
        question = self.question(caller)
        found = workloads_page(question, namespace, parse_span(span, question.now), wanted)
        if namespace and not (found.total or wanted.search) and namespace not in question.cluster.namespace_labels:
            raise NotFoundError(f"there is no namespace {namespace}")
        return found

    # ---- tables -----------------------------------------------------------------------------------------------------

    def workload_links(
        self, caller: Caller, ref: WorkloadRef, *, direction: Direction | None = None, span: str = ALL
    ) -> list[LinkRow]:
        caller.must(Verb.LIST, Resource.LINKS, ref.namespace)
        question = self.question(caller)
        workloads, rows = self._workload(question, ref, span)
        return link_rows(question, rows, namespace=ref.namespace, workloads=workloads, direction=direction)

    def namespace_links(
        self, caller: Caller, namespace: str, *, direction: Direction | None = None, span: str = ALL
    ) -> list[LinkRow]:
        caller.must(Verb.LIST, Resource.LINKS, namespace)
        question = self.question(caller)
        rows = self._namespace(question, namespace, span)
        return link_rows(question, rows, namespace=namespace, direction=direction)

    def addresses(self, caller: Caller, namespace: str = "", *, span: str = ALL) -> list[AddressRow]:
        """Those that the caller's workloads speak with."""
        if namespace:
            caller.must(Verb.LIST, Resource.LINKS, namespace)
        question = self.question(caller)
        rows = question.rows(namespace=namespace or None, span=parse_span(span, question.now))
        return address_rows(question, rows, namespace=namespace)

    def topology(self, caller: Caller, scope: PolicyScope, *, span: str = ALL) -> TopologyView:
        """The map of a workload, or of the namespace of this name."""
        if isinstance(scope, WorkloadRef):
            links = self.workload_links(caller, scope, span=span)
            graph = graph_of_workloads([(scope.namespace, scope.kind, scope.name)], links)
        else:
            rows = self.namespace_links(caller, scope, span=span)
            graph = graph_of_namespace(scope, rows, self.workloads(caller, scope, span))
        return topology_view(graph, scope=str(scope), span=span)

    # ---- proposals --------------------------------------------------------------------------------------------------

    def proposal(self, caller: Caller, scope: PolicyScope, *, span: str = ALL) -> ProposalView:
        """Of a workload, or of the namespace of this name."""
        asked = self._asked(caller, scope, span)
        return proposal_view(asked.question, asked.rows, self._proved(asked), scope=str(scope), span=span)

    def draft(self, caller: Caller, scope: PolicyScope, *, span: str = ALL) -> DraftView:
        """What the proposal says, at once; its proof too where it is at hand or quick, else None."""
        asked = self._asked(caller, scope, span)
        made = _generated(asked)
        proof = self._kept.proofs.at_hand(asked.question, made, self._sources.second)
        view = proposal_view(asked.question, asked.rows, proof or made, scope=str(scope), span=span)
        return DraftView(proposal=view, proved=proof is not None)

    def workload_proposal(self, caller: Caller, ref: WorkloadRef, *, span: str = ALL) -> ProposalView:
        return self.proposal(caller, ref, span=span)

    def namespace_proposal(self, caller: Caller, namespace: str, *, span: str = ALL) -> ProposalView:
        return self.proposal(caller, namespace, span=span)

    # ---- what proposals would do ------------------------------------------------------------------------------------

    def simulation(self, caller: Caller, scope: PolicyScope, *, span: str = ALL) -> SimulationView:
        asked = self._asked(caller, scope, span)
        return simulation_view(asked.question, asked.rows, self._proved(asked), scope=str(scope), span=span)

    def diff(self, caller: Caller, scope: PolicyScope, *, span: str = ALL) -> DiffView:
        asked = self._asked(caller, scope, span)
        return diff_view(asked.question, self._proved(asked), scope=str(scope))

    def plan(self, caller: Caller, scope: PolicyScope, *, span: str = ALL) -> PlanView:
        asked = self._asked(caller, scope, span)
        return plan_view(asked.question, self._proved(asked), scope=str(scope))

    def dry_run(self, caller: Caller, scope: PolicyScope, *, span: str = ALL) -> DryRunView:
        """Asks the API server, policy by policy; nothing is kept. The answers tell of what is there: see policies."""
        asked = self._asked(caller, scope, span)
        return dry_run_view(asked.question, self._proved(asked), self._sources.dry_run, scope=str(scope))

    def export(self, caller: Caller, scope: PolicyScope, kind: ExportKind, *, span: str = ALL) -> ExportView:
        asked = self._asked(caller, scope, span)
        return export_view(asked.question, self._proved(asked), kind, scope=str(scope))

    def bundle(self, caller: Caller, kind: ExportKind, *, span: str = ALL) -> BundleView:
        """Of every namespace that the caller sees, each proved for itself."""
        parts = []
        for name in (row.name for row in self.namespaces(caller)):
            asked = self._asked(caller, name, span)
            proved = self._proved(asked)
            plan = plan_view(asked.question, proved, scope=name)
            export = asdict(export_view(asked.question, proved, kind, scope=name)) if plan.steps else {}
            parts.append(Part(namespace=name, export=export, plan=asdict(plan)))
        files = bundle_files(parts, kind)
        return BundleView(
            kind=kind,
            certified=all(part.certified for part in parts),
            namespaces=[part.namespace for part in parts if not part.empty],
            files=[FileView(path=path, text=text) for path, text in files.items()],
        )

    # ---- what is applied --------------------------------------------------------------------------------------------

    def applied(
        self, caller: Caller, scope: PolicyScope, *, span: str = ALL, unused: bool = False
    ) -> AppliedPoliciesView:
        """`unused`: only those that select nothing that runs."""
        asked = self._asked(caller, scope, span)
        question = asked.question
        policies = [p for p in question.cluster.policies if asked.namespace in {"", p.namespace}]
        seen = (w for w in question.known_workloads if question.sight.namespace(w.namespace))
        workloads = sorted(w for w in seen if asked.namespace in {"", w.namespace})
        if asked.workloads:
            selecting = question.derived.selecting
            policies = [p for p in policies if any(p in selecting.selecting(w) for w in asked.workloads)]
            workloads = list(asked.workloads)
        others = other_policies(question, asked.namespace, asked.workloads)
        found = applied_policies(question, asked.rows, policies, workloads, others, scope=str(scope), span=span)
        if not unused:
            return found
        return replace(found, policies=[policy for policy in found.policies if policy.unused])

    def findings(self, caller: Caller, namespace: str) -> list[FindingView]:
        """What the applied policies of a namespace do that a person should know, worst first."""
        asked = self._asked(caller, namespace, ALL)
        policies = [p for p in asked.question.cluster.policies if p.namespace == namespace]
        found = lint(policies, asked.question.cluster, observed=[row.link for row in asked.rows.clear])
        return finding_views(found)

    def explain_link(self, caller: Caller, ref: WorkloadRef, identity: str) -> ExplainedLinkView:
        caller.must(Verb.LIST, Resource.LINKS, ref.namespace)
        question = self.question(caller)
        _, rows = self._workload(question, ref, ALL)
        link = rows_by_id(rows.clear).get(identity)
        if link is None:
            raise NotFoundError(f"{ref} has no row {identity[:24]!r}")
        return explained(question, link)

    # ---- baselines --------------------------------------------------------------------------------------------------

    def baseline(self, caller: Caller, ref: WorkloadRef) -> BaselineView:
        caller.must(Verb.GET, Resource.BASELINES, ref.namespace)
        question = self.question(caller)
        if ref.kind == SERVICE_KIND:
            raise InputError("a Service is a view: ask about one of its workloads", field="kind")
        (workload,), rows = self._workload(question, ref, ALL)
        recorded = Recorded(store=self._sources.store, days_seen=self._sources.days_seen)
        return baseline_view(question, recorded, workload, rows)

    def baseline_states(self, caller: Caller, namespace: str) -> Mapping[str, int]:
        """How many workloads of a namespace are learning, ready and frozen; those that were seen to communicate."""
        caller.must(Verb.LIST, Resource.LINKS, namespace)
        question = self.question(caller)
        recorded = Recorded(store=self._sources.store, days_seen=self._sources.days_seen)
        return states_of(question, recorded, namespace, self._namespace(question, namespace, ALL))

    # ---- what the answers rest on -----------------------------------------------------------------------------------

    def grounds(self, caller: Caller) -> GroundsView:
        caller.must(Verb.LIST, Resource.ADDRESSES)
        return grounds_view(self._sources.view.cidrs, self._profile, self._sources.retention)

    # ---- agents -----------------------------------------------------------------------------------------------------

    def agents(self, caller: Caller) -> list[AgentView]:
        caller.must(Verb.LIST, Resource.AGENTS)
        return agent_views(self._sources.store, self._sources.view.cluster)

    def status(self, caller: Caller) -> StatusView:
        caller.must(Verb.GET, Resource.AGENTS)
        return status_view(caller, self._sources.store, self._sources.view)

    # ---- scopes -----------------------------------------------------------------------------------------------------

    def _asked(self, caller: Caller, scope: PolicyScope, span: str) -> _Asked:
        """The rows of a workload, or of a namespace given by its name."""
        if isinstance(scope, WorkloadRef):
            caller.must(Verb.GET, Resource.POLICIES, scope.namespace)
            question = self.question(caller)
            workloads, rows = self._workload(question, scope, span)
            return _Asked(question=question, namespace=scope.namespace, workloads=workloads, rows=rows)
        if not scope:
            question = self.question(caller)
            everything = question.rows(span=parse_span(span, question.now))
            return _Asked(question=question, namespace="", workloads=(), rows=everything)
        caller.must(Verb.GET, Resource.POLICIES, scope)
        question = self.question(caller)
        return _Asked(question=question, namespace=scope, workloads=(), rows=self._namespace(question, scope, span))

    def _proved(self, asked: _Asked) -> Generation:
        """Generated and certified under the installation's profile."""
        return self._kept.proofs.of(asked.question, _generated(asked), self._sources.second)

    def _workload(self, question: Question, ref: WorkloadRef, span: str) -> tuple[Sequence[Workload], Rows]:
        """A workload that the cluster shows or that links know. Raises NotFoundError."""
        workloads = question.workloads_of(ref)
        rows = (
            question.rows(workloads=workloads, span=parse_span(span, question.now))
            if workloads
            else Rows(clear=(), masked=())
        )
        if not (rows.clear or rows.masked or set(workloads) & question.known_workloads):
            recorded = question.rows(workloads=workloads, span=None) if workloads else rows
            if workloads and not (recorded.clear or recorded.masked):
                raise NotFoundError(f"there is no {ref.kind} {ref.name} in the namespace {ref.namespace}")
        return workloads, rows

    def _namespace(self, question: Question, namespace: str, span: str) -> Rows:
        rows = question.rows(namespace=namespace, span=parse_span(span, question.now))
        if namespace not in question.cluster.namespace_labels and not (rows.clear or rows.masked):
            recorded = question.rows(namespace=namespace, span=None)
            known = any(workload.namespace == namespace for workload in question.known_workloads)
            if not (recorded.clear or recorded.masked or known):
                raise NotFoundError(f"there is no namespace {namespace}")
        return rows
