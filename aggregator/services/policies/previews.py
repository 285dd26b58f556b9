"""Previews: what proposals would do, how they differ from what is applied, in which order, and in other forms.

Enters: a Question, its rows and a certified Generation. Leaves: views. Nothing is ever applied from here.
"""

from typing import Literal

from aggregator.model.dryrun import DryRun
from aggregator.model.link import link_id
from aggregator.model.proposal import Generation
from aggregator.model.simulation import Bucket, Candidate, Replay
from aggregator.policy.diff import Change, diff
from aggregator.policy.export.admin import export_admin
from aggregator.policy.export.calico import export_calico
from aggregator.policy.export.cilium import export_cilium
from aggregator.policy.export.kustomize import export_kustomize
from aggregator.policy.export.proof import Export
from aggregator.policy.manifest.render import to_object
from aggregator.policy.order import plan
from aggregator.policy.simulate import simulate
from aggregator.services.policies.policy_views import (
    ChangeView,
    DiffView,
    DryRunView,
    ExportView,
    FileView,
    PlanView,
    ReplayView,
    RestartView,
    SimulationView,
    StepView,
    TriedPolicyView,
)
from aggregator.services.policies.proposals import digest_of, file_of, overwritten
from aggregator.services.question import Question, Rows

ExportKind = Literal["kustomize", "cilium", "calico", "admin"]


def simulation_view(question: Question, rows: Rows, generation: Generation, *, scope: str, span: str) -> SimulationView:
    found = simulate(
        rows.clear,
        generation.policies,
        question.cluster,
        now=question.now,
        removed=question.decisions.removed_policies,
        profile=question.profile,
    )
    candidate = Candidate.APPLIED_AND_PROPOSED
    return SimulationView(
        scope=scope,
        span=span,
        profile=found.profile,
        counts={bucket.value: count for bucket, count in found.counts(candidate).items()},
        replays=[_replay(r) for r in found.replays[candidate] if r.bucket is not Bucket.UNCHANGED],
        masked_links=len(rows.masked),
    )


def _replay(replay: Replay) -> ReplayView:
    link = replay.observed.link
    return ReplayView(
        id=str(link_id(link)),
        link=str(link),
        now=replay.now.value,
        then=replay.then.value,
        bucket=replay.bucket.value,
        connections=replay.observed.evidence.connections,
        last_seen=replay.observed.evidence.last_seen,
        example=replay.example,
        because=replay.because,
        synthetic=replay.synthetic,
    )


def diff_view(question: Question, generation: Generation, *, scope: str) -> DiffView:
    """Against the applied policies that a download would replace, and those that a person removes."""
    names = {(policy.namespace, policy.name) for policy in generation.policies}
    removed = set(question.decisions.removed_policies)
    touched = [p for p in question.cluster.policies if (p.namespace, p.name) in names | removed]
    remaining = [p for p in question.cluster.policies if (p.namespace, p.name) not in names | removed]
    found = diff([*remaining, *touched], [*remaining, *generation.policies], question.cluster)
    return DiffView(
        scope=scope,
        added=list(found.added),
        removed=list(found.removed),
        changed=list(found.changed),
        overwrites=[str(policy) for policy in overwritten(question, generation)],
        opened=[_change(change) for change in found.opened],
        closed=[_change(change) for change in found.closed],
        text=found.text,
    )


def _change(change: Change) -> ChangeView:
    return ChangeView(
        src=change.src,
        dst=change.dst,
        protocol=change.protocol.value,
        first_port=change.first_port,
        last_port=change.last_port,
    )


def plan_view(question: Question, generation: Generation, *, scope: str) -> PlanView:
    found = plan(generation, question.cluster, question.decisions)
    return PlanView(
        scope=scope,
        steps=[
            StepView(action=s.action.value, policy=str(s.policy), temporary=s.temporary, text=s.text)
            for s in found.steps
        ],
        restarts=[RestartView(workload=str(r.workload), command=r.command, text=r.text) for r in found.restarts],
    )


_NOT_AVAILABLE = (
    "this aggregator does not ask the API server: its operator switches that on with WATTLE_DRY_RUN and grants the "
    "right; `kubectl apply --dry-run=server -f FILE` asks with your own rights"
)


def dry_run_view(question: Question, generation: Generation, server: DryRun | None, *, scope: str) -> DryRunView:
    digest = digest_of(file_of(question, generation))
    if server is None:
        return DryRunView(scope=scope, digest=digest, available=False, text=_NOT_AVAILABLE, policies=[])
    foreign = {str(policy) for policy in overwritten(question, generation)}
    tried = []
    for policy in generation.policies:
        answer = server.try_policy(to_object(policy))
        tried.append(
            TriedPolicyView(
                policy=str(policy),
                outcome=answer.outcome,
                message=answer.message,
                overwrites=str(policy) in foreign,
            )
        )
    refused = sum(one.outcome == "refused" for one in tried)
    asked = all(one.outcome != "not-asked" for one in tried)
    text = f"the API server would take {len(tried) - refused} of {len(tried)}; nothing was kept"
    if not asked:
        text = next(one.message for one in tried if one.outcome == "not-asked")
    return DryRunView(scope=scope, digest=digest, available=asked, text=text, policies=tried)


def export_view(question: Question, generation: Generation, kind: ExportKind, *, scope: str) -> ExportView:
    found = _exported(question, generation, kind)
    return ExportView(
        scope=scope,
        kind=kind,
        certified=found.certified,
        label=found.label,
        files=[FileView(path=file.path, text=file.text) for file in found.files],
        differences=list(found.differences),
        notes=[
            *found.notes,
            *(f"overwrites {policy}, which Wattle did not make" for policy in overwritten(question, generation)),
        ],
        refused=list(found.refused),
    )


def _exported(question: Question, generation: Generation, kind: ExportKind) -> Export:
    match kind:
        case "kustomize":
            return export_kustomize(generation.policies, question.cluster)
        case "cilium":
            return export_cilium(generation.policies, question.cluster)
        case "calico":
            aliases = {alias.name: alias.networks for alias in question.decisions.aliases}
            return export_calico(generation.policies, question.cluster, aliases=aliases)
        case "admin":
            return export_admin(generation.policies, question.cluster)
