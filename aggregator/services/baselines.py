"""Baselines: how ready a workload is, its freezing, and what drifted since.

Enters: a Question and what was recorded. Leaves: a BaselineView. Invariant: freezing is a decision like any other, so
it has an author, a reason and an undo; the frozen list keeps links that retention has long dropped.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aggregator.baseline.drift import GoneLink, NewLink, drift
from aggregator.baseline.readiness import CronJobHistory, History, LinkHistory, Readiness, readiness
from aggregator.model.link import Link, ObservedLink, link_id
from aggregator.model.workload import Workload
from aggregator.services.deciding.decision_views import tag_of
from aggregator.services.deciding.said_views import BaselineView, CriterionView, DriftView
from aggregator.services.question import LinkStore, Question, Rows
from aggregator.services.status import NOT_LOST
from aggregator.store.links import Span

CRON_JOB = "CronJob"
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Where readiness is read from."""

    store: LinkStore
    days_seen: Callable[[Workload], Mapping[int, int]]


def baseline_view(question: Question, recorded: Recorded, workload: Workload, rows: Rows) -> BaselineView:
    """Masked rows count as much as any: they are the workload's own."""
    frozen = dict(question.decisions.frozen_baselines).get(workload)
    everything = [*rows.clear, *rows.masked]
    found = ready(question, recorded, workload, everything, frozen=frozen is not None)
    return BaselineView(
        scope=str(workload),
        etag=tag_of(question.sight, question.state, workload=workload),
        state=found.state.value,
        score=found.score,
        text=found.text,
        criteria=[
            CriterionView(
                criterion=reason.criterion.value, met=reason.met, share=round(reason.share, 3), text=reason.text
            )
            for reason in found.reasons
        ],
        frozen_links=len(frozen) if frozen is not None else None,
        drift=_drift_views(question, frozen, rows) if frozen is not None else [],
    )


def states_of(question: Question, recorded: Recorded, namespace: str, rows: Rows) -> Mapping[str, int]:
    """By state: workloads of the namespace with at least one established link."""
    own: dict[Workload, list[ObservedLink]] = {}
    for row in (*rows.clear, *rows.masked):
        for end in {row.link.src, row.link.dst}:
            if isinstance(end, Workload) and end.namespace == namespace and row.established:
                own.setdefault(end, []).append(row)
    frozen = {workload for workload, _ in question.decisions.frozen_baselines}
    found = (
        ready(question, recorded, workload, links, frozen=workload in frozen).state.value
        for workload, links in own.items()
    )
    return Counter(found)


def ready(
    question: Question, recorded: Recorded, workload: Workload, rows: Sequence[ObservedLink], *, frozen: bool
) -> Readiness:
    days = recorded.days_seen(workload)
    established = [row for row in rows if row.established and row.evidence.first_seen is not None]
    lost = recorded.store.losses(question.cluster.name, Span(start=question.now - _DAY, end=question.now))
    history = History(
        since=recorded.store.recording_since(question.cluster.name),
        links=[
            LinkHistory(first_seen=row.evidence.first_seen or question.now, days=max(days.get(link_id(row.link), 1), 1))
            for row in established
        ],
        cron_jobs=list(_cron_jobs(question, workload, established, days)),
        rollouts=_rollouts(workload, established),
        lost=sum(count for reason, count in lost.items() if reason not in NOT_LOST),
    )
    return readiness(history, question.now, frozen=frozen)


def _cron_jobs(
    question: Question, workload: Workload, rows: Sequence[ObservedLink], days: Mapping[int, int]
) -> Iterable[CronJobHistory]:
    """The workload itself and the other ends that the caller sees. A run is a pod of its own."""
    schedules = {record.workload: record.schedule for record in question.cluster.workloads}
    jobs = {workload} if workload.kind == CRON_JOB else set()
    for row in rows:
        jobs |= {end for end in (row.link.src, row.link.dst) if isinstance(end, Workload) and end.kind == CRON_JOB}
    for job in sorted(jobs):
        if not question.sight.namespace(job.namespace):
            continue
        own = [row for row in rows if job in {row.link.src, row.link.dst}]
        pods = {pod for row in own for pod in (row.evidence.src_pods if row.link.src == job else row.evidence.dst_pods)}
        seen_days = max((days.get(link_id(row.link), 1) for row in own), default=0)
        yield CronJobHistory(name=job.name, schedule=schedules.get(job, ""), runs=max(len(pods), seen_days))


def _rollouts(workload: Workload, rows: Iterable[ObservedLink]) -> int | None:
    """A Deployment's pods carry the name of their ReplicaSet: each but the first is a rollout."""
    if workload.kind != "Deployment":
        return None
    sets = set()
    for row in rows:
        for end, pods in ((row.link.src, row.evidence.src_pods), (row.link.dst, row.evidence.dst_pods)):
            if end == workload:
                sets |= {pod.rpartition("-")[0] for pod in pods if pod.count("-") > workload.name.count("-") + 1}
    return max(len(sets) - 1, 0)


def _drift_views(question: Question, frozen: Iterable[Link], rows: Rows) -> list[DriftView]:
    seen = [link for link in frozen if question.sight.link(link)]
    return [_drift_view(change) for change in drift(seen, rows.clear, question.now)]


def _drift_view(change: NewLink | GoneLink) -> DriftView:
    match change:
        case NewLink(observed=row):
            return DriftView(
                kind="new",
                id=str(link_id(row.link)),
                link=str(row.link),
                first_seen=row.evidence.first_seen,
                last_seen=row.evidence.last_seen,
            )
        case GoneLink(link=link, last_seen=last):
            return DriftView(kind="gone", id=str(link_id(link)), link=str(link), first_seen=None, last_seen=last)


def links_to_freeze(rows: Iterable[ObservedLink], at: datetime) -> tuple[Link, ...]:
    """What a baseline is frozen at: every established link recorded until then."""
    kept = (
        row.link
        for row in rows
        if row.established
        and not row.evidence.same_node_probe
        and (row.evidence.first_seen is None or row.evidence.first_seen <= at)
    )
    return tuple(sorted(kept, key=Link.sort_key))
