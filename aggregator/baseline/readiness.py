"""Readiness: how much of a workload's communication has probably been seen, as a number with reasons.

Enters: what was recorded of one workload, and the time now. Leaves: a Readiness. Invariant: it informs, it never
withholds a proposal; every criterion that is not met says in words what is missing; the number is the weakest one's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aggregator.baseline.schedule import parse_schedule

WANTED_DAYS = 7
WANTED_QUIET_DAYS = 3
WANTED_UNSEEN = 0.01
WANTED_RUNS = 2
_DAY = timedelta(days=1)


class State(StrEnum):
    LEARNING = "learning"
    READY = "ready"
    FROZEN = "frozen"


class Criterion(StrEnum):
    AGE = "age"
    NEW_LINKS = "new-links"
    UNSEEN = "unseen"
    CRON_JOBS = "cron-jobs"
    ROLLOUTS = "rollouts"
    LOSS = "loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHistory:
    """When one link was first seen, and on how many days."""

    first_seen: datetime
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CronJobHistory:
    """A CronJob that is the workload, calls it or is called by it. `runs` are those seen, as far as can be told."""

    name: str
    schedule: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was recorded of one workload."""

    since: datetime | None  # when recording began; None: nothing is recorded yet
    links: Sequence[LinkHistory] = ()
    cron_jobs: Sequence[CronJobHistory] = ()
    rollouts: int | None = None  # None: cannot be told for this kind
    lost: int = 0  # flow records lost in the last day, on any node


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One criterion. `share` is how far it is met, 0 to 1; 1 is met."""

    criterion: Criterion
    text: str
    share: float

    @property
    def met(self) -> bool:
        return self.share >= 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    state: State
    score: float
    reasons: tuple[Reason, ...]

    @property
    def text(self) -> str:
        """The reason in words: what is missing, or how well it is known."""
        missing = [reason for reason in self.reasons if not reason.met]
        if missing:
            return "; ".join(reason.text for reason in sorted(missing, key=lambda reason: reason.share))
        return "; ".join(reason.text for reason in self.reasons if reason.criterion in _SUMMARY)


_SUMMARY = frozenset({Criterion.AGE, Criterion.NEW_LINKS, Criterion.UNSEEN})


def readiness(history: History, now: datetime, *, frozen: bool = False) -> Readiness:
    """LEARNING until every criterion is met; FROZEN is what a person said."""
    reasons = tuple(_reasons(history, now))
    score = min((reason.share for reason in reasons), default=0.0)
    learned = State.READY if score >= 1.0 else State.LEARNING
    return Readiness(state=State.FROZEN if frozen else learned, score=round(score, 3), reasons=reasons)


def _reasons(history: History, now: datetime) -> Iterable[Reason]:
    yield _age(history, now)
    yield _new_links(history, now)
    yield _unseen(history)
    for job in history.cron_jobs:
        yield _runs(job, history.since, now)
    if history.rollouts is not None:
        seen = history.rollouts
        text = f"{_count(seen, 'rollout')} seen" if seen else "no rollout seen yet"
        yield Reason(criterion=Criterion.ROLLOUTS, text=text, share=1.0)
    text = f"{_count(history.lost, 'flow record')} lost in the last day" if history.lost else "nothing lost"
    yield Reason(criterion=Criterion.LOSS, text=text, share=0.0 if history.lost else 1.0)


def _age(history: History, now: datetime) -> Reason:
    if history.since is None:
        return Reason(criterion=Criterion.AGE, text="nothing is recorded yet", share=0.0)
    days = max((now - history.since) // _DAY, 0)
    weekend = any((history.since + _DAY * number).weekday() >= 5 for number in range(min(days, 7)))
    share = min(days / WANTED_DAYS, 1.0)
    text = f"watched for {_count(days, 'full day')}"
    if days >= WANTED_DAYS and not weekend:
        return Reason(criterion=Criterion.AGE, text=f"{text} without a weekend", share=0.9)
    wanted = "" if share >= 1.0 else f" of the {WANTED_DAYS} that are asked for"
    return Reason(criterion=Criterion.AGE, text=text + wanted, share=share)


def _new_links(history: History, now: datetime) -> Reason:
    if not history.links:
        return Reason(criterion=Criterion.NEW_LINKS, text="no communication recorded", share=0.0)
    newest = max(link.first_seen for link in history.links)
    quiet = max((now - newest) // _DAY, 0)
    recent = sum(now - link.first_seen < _DAY for link in history.links)
    text = f"{_count(recent, 'new link')} in the last day" if recent else f"no new link for {_count(quiet, 'day')}"
    return Reason(criterion=Criterion.NEW_LINKS, text=text, share=min(quiet / WANTED_QUIET_DAYS, 1.0))


def _unseen(history: History) -> Reason:
    """Good and Turing: the share of sightings that were the only one of their link; one sighting a link and day."""
    sightings = sum(link.days for link in history.links)
    singles = sum(link.days == 1 for link in history.links)
    if not sightings:
        return Reason(criterion=Criterion.UNSEEN, text="nothing seen to judge by", share=0.0)
    unseen = singles / sightings
    share = f"{100 * unseen:.0f}" if unseen in {0, 1} else f"{100 * unseen:.1f}"
    counted = f"{singles} of {sightings} daily sightings are the only one of their link"
    text = f"about {share} % of what it does may be unseen ({counted})"
    return Reason(
        criterion=Criterion.UNSEEN, text=text, share=1.0 if unseen <= WANTED_UNSEEN else WANTED_UNSEEN / unseen
    )


def _runs(job: CronJobHistory, since: datetime | None, now: datetime) -> Reason:
    schedule = parse_schedule(job.schedule)
    if schedule is None:
        share = min(job.runs / WANTED_RUNS, 1.0)
        return Reason(criterion=Criterion.CRON_JOBS, text=f"{_count(job.runs, 'run')} of {job.name} seen", share=share)
    due = schedule.due(since, now) if since is not None else 0
    expected = max(due, 1)
    seen = min(job.runs, expected)
    text = f"{seen} of {expected} {schedule.often} {'run' if expected == 1 else 'runs'} of {job.name} seen"
    wanted = min(expected, WANTED_RUNS)
    return Reason(criterion=Criterion.CRON_JOBS, text=text, share=min(seen / wanted, 1.0))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
