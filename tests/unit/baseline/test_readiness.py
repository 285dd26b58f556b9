"""Readiness says what is missing, in words; drift says what changed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aggregator.baseline.drift import GoneLink, NewLink, drift
from aggregator.baseline.readiness import CronJobHistory, History, LinkHistory, State, readiness
from aggregator.baseline.schedule import parse_schedule
from aggregator.model.link import Evidence, Link, ObservedLink
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Workload

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


WELL_KNOWN = History(
    since=days_ago(30), links=tuple(LinkHistory(first_seen=days_ago(29), days=30) for _ in range(5)), rollouts=3
)


def test_a_workload_long_known_is_ready() -> None:
    found = readiness(WELL_KNOWN, NOW)
    assert (found.state, found.score) == (State.READY, 1.0)
    assert found.text.startswith("watched for 30 full days; no new link for 29 days; about 0 % of what")


def test_nothing_recorded_is_learning_with_a_reason() -> None:
    found = readiness(History(since=None), NOW)
    assert (found.state, found.score) == (State.LEARNING, 0.0)
    assert "nothing is recorded yet" in found.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"since": days_ago(2)}, "watched for 2 full days of the 7 that are asked for"),
        ({"links": (*WELL_KNOWN.links, LinkHistory(first_seen=days_ago(0.5), days=30))}, "1 new link in the last day"),
        (
            {"links": tuple(LinkHistory(first_seen=days_ago(9), days=1) for _ in range(3))},
            "about 100 % of what it does may be unseen (3 of 3",
        ),
        ({"lost": 12}, "12 flow records lost in the last day"),
        (
            {"cron_jobs": (CronJobHistory(name="backup", schedule="0 3 1 * *", runs=0),)},
            "0 of 1 monthly run of backup seen",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_is_said_in_words(change: dict[str, object], words: str) -> None:
    found = readiness(replace(WELL_KNOWN, **change), NOW)  # type: ignore[arg-type]
    assert found.state is State.LEARNING
    assert found.score < 1.0
    assert words in found.text


def test_a_monthly_run_is_waited_for_even_before_it_is_due() -> None:
    job = CronJobHistory(name="backup", schedule="@monthly", runs=0)
    young = replace(WELL_KNOWN, since=days_ago(8), cron_jobs=(job,))
    assert "0 of 1 monthly run of backup seen" in readiness(young, NOW).text
    assert readiness(replace(young, cron_jobs=(replace(job, runs=1),)), NOW).state is State.READY


def test_frozen_is_what_a_person_said() -> None:
    assert readiness(History(since=None), NOW, frozen=True).state is State.FROZEN


def test_more_sightings_never_make_it_less_ready() -> None:
    scores = []
    for days in range(1, 200, 7):
        links = tuple(LinkHistory(first_seen=days_ago(29), days=d) for d in (1, days))
        scores.append(readiness(replace(WELL_KNOWN, links=links), NOW).score)
    assert scores == sorted(scores)


@pytest.mark.parametrize(
    ("text", "due", "often"),
    [
        ("0 3 1 * *", 1, "monthly"),
        ("@daily", 30, "daily"),
        ("*/15 * * * *", 30 * 96, "hourly"),
        ("0 6 * * mon-fri", 22, "daily"),
        ("30 2 * * 0", 4, "weekly"),
        ("0 0 1 jan *", 0, "yearly"),
        ("0 0 13 * fri", 5, "weekly"),
    ],
)
def test_schedules_are_counted(text: str, due: int, often: str) -> None:
    schedule = parse_schedule(text)
    assert schedule is not None
    assert (schedule.due(days_ago(30), NOW), schedule.often) == (due, often)


@pytest.mark.parametrize("text", ["", "* * * *", "61 * * * *", "* * * * mond", "*/0 * * * *", "5-1 * * * *", "@reboot"])
def test_a_schedule_that_cannot_be_read_is_none(text: str) -> None:
    assert parse_schedule(text) is None


def test_partial_days_count_only_what_was_due() -> None:
    schedule = parse_schedule("0 3,15 * * *")
    assert schedule is not None
    assert schedule.due(NOW - timedelta(hours=6), NOW) == 0
    assert schedule.due(NOW - timedelta(hours=10), NOW) == 1
    assert schedule.due(NOW, NOW + timedelta(hours=3, minutes=1)) == 1


def row(port: int, *, last: datetime = NOW, established: bool = True) -> ObservedLink:
    web, db = (Workload(cluster="c", namespace="n", kind="Deployment", name=name) for name in ("web", "db"))
    link = Link(src=web, dst=db, protocol=Protocol.TCP, port=port)
    return ObservedLink(link=link, evidence=Evidence(last_seen=last), established=established)


def test_drift_is_what_is_new_and_what_is_gone() -> None:
    frozen = [row(1).link, row(2).link, row(3).link]
    found = drift(frozen, [row(1), row(2, last=days_ago(40)), row(4), row(5, established=False)], NOW)
    assert [type(change) for change in found] == [NewLink, GoneLink, GoneLink]
    assert found[0] == NewLink(observed=row(4))
    assert found[1:] == (
        GoneLink(link=row(2).link, last_seen=days_ago(40)),
        GoneLink(link=row(3).link, last_seen=None),
    )
