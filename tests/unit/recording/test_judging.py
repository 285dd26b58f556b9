"""A connection is of whoever had the addresses when it was opened, whatever becomes of them while it is open."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from aggregator.model.link import Link
from aggregator.model.resolution import FlowIdentity, NotYet, Resolution, Resolved
from aggregator.model.workload import LinkEnd
from tests.flowlink import FakeResolver, Flow, workload
from tests.unit.recording.desk import NOW_MS, Desk
from wattle.v1 import flowlink_pb2

CHANGE_MS = NOW_MS - 30_000
OLD, NEW = workload("old"), workload("new")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """The remote address goes from OLD to NEW; `gap_ms` of nobody in between."""

    gap_ms: int = 0

    def __call__(self, flow: FlowIdentity, at: datetime) -> Resolution:
        at_ms = at.timestamp() * 1000
        if at_ms < CHANGE_MS:
            return self._resolved(flow, OLD, until=_time(CHANGE_MS - 1))
        if at_ms < CHANGE_MS + self.gap_ms:
            return NotYet(reason="nobody-known-in-pod-range", fallback=None)
        return self._resolved(flow, NEW, since=_time(CHANGE_MS + self.gap_ms))

    @staticmethod
    def _resolved(
        flow: FlowIdentity, end: LinkEnd, *, since: datetime | None = None, until: datetime | None = None
    ) -> Resolved:
        link = Link(src=workload("client"), dst=end, protocol=flow.protocol, port=flow.port)
        return Resolved(link=link, holds_since=since, holds_until=until)


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def open_for(seconds: float, *, outcome: int = flowlink_pb2.OUTCOME_ESTABLISHED) -> Flow:
    """A record of no new connection, seen a second before NOW_MS."""
    return Flow(outcome=outcome, count=0, first_ms=4_000, last_ms=4_000, longest_ms=int(seconds * 1000))


def handover(**more: int) -> tuple[FakeResolver, Desk]:
    resolver = FakeResolver(answer=Handover(**more))
    return resolver, Desk(resolver)


def test_a_record_is_judged_by_its_own_time() -> None:
    """A late batch must not get the answer of today, nor today's the answer of a late one."""
    _, desk = handover()
    seen = []
    for end_ms in (CHANGE_MS - 1_000, CHANGE_MS + 20_000, CHANGE_MS - 1_000, CHANGE_MS + 20_000):
        deltas = desk.group([Flow(first_ms=4_000, last_ms=5_000)], end_ms=end_ms)
        seen += [link.link.dst for link in deltas.links]
    assert seen == [OLD, NEW, OLD, NEW]


def test_batches_of_one_group_are_judged_each_by_its_own_time() -> None:
    """After an outage, minutes of one spool are recorded together."""
    resolver, desk = handover()
    flows = [Flow(first_ms=at_ms, last_ms=at_ms) for at_ms in (0, 2_000, 4_000, 6_000, 8_000)]
    deltas = desk.group(flows, end_ms=CHANGE_MS)  # begins 5 s before the change
    assert {link.link.dst: link.first_seen_ms for link in deltas.links} == {
        OLD: CHANGE_MS - 5_000,
        NEW: CHANGE_MS + 1_000,
    }
    assert deltas.activity["client_count"].tolist() in ([3, 2], [2, 3])
    assert resolver.asked == 2, "asked again only where the answer does not hold"


def test_a_close_is_of_whoever_was_there_when_the_connection_was_opened() -> None:
    """A pod goes without a word; whoever gets its address refuses the server's last packets, and the server closes."""
    _, desk = handover()
    (link,) = desk.group([open_for(60)]).links
    assert link.link.dst == OLD
    (link,) = desk.group([open_for(10)]).links
    assert link.link.dst == NEW


def test_a_close_of_what_an_older_agent_does_not_tell_the_age_of_is_judged_by_its_time() -> None:
    _, desk = handover()
    (link,) = desk.group([open_for(0)]).links
    assert link.link.dst == NEW


def test_a_record_of_new_connections_is_not_judged_by_the_age_of_those_that_closed() -> None:
    _, desk = handover()
    (link,) = desk.group([Flow(count=1, first_ms=4_000, last_ms=4_000, longest_ms=60_000)]).links
    assert link.link.dst == NEW


def test_an_answer_is_kept_for_what_was_opened_since_it_holds() -> None:
    """The view changes all the time; a close of a connection that is older than the last change costs no question."""
    resolver, desk = handover()
    desk.group([Flow(first_ms=4_000, last_ms=4_000)])
    desk.now_ms = NOW_MS + 1_000
    resolver.generation, resolver.asked = 2, 0
    desk.group([Flow(first_ms=4_000, last_ms=4_000)], end_ms=NOW_MS + 3_000)
    for seconds in (5, 20, 25, 28):
        (closed,) = desk.group([open_for(seconds)]).activity
        assert closed["client_count"] == 0
    assert resolver.asked == 1
    desk.group([open_for(40)])
    assert resolver.asked == 2


@pytest.mark.parametrize(
    ("seconds", "ends"), [(10, [NEW]), (28.9, [NEW]), (60, [])], ids=["younger", "just younger", "may be older"]
)
def test_an_open_connection_says_something_only_where_its_ends_stayed(seconds: float, ends: list[LinkEnd]) -> None:
    _, desk = handover()
    deltas = desk.group([open_for(seconds, outcome=flowlink_pb2.OUTCOME_OPEN)])
    assert [link.link.dst for link in deltas.links] == ends
    assert [refusal.reason for refusal in deltas.refusals] == ([] if ends else ["open-across-owners"])
    assert not deltas.pending


def test_an_open_connection_may_be_older_than_the_view_s_answer_where_the_link_is_the_same() -> None:
    """What stands behind a Service changes with every roll-out, and the Service's workload does not."""

    def answer(flow: FlowIdentity, at: datetime) -> Resolution:
        return Handover._resolved(flow, OLD, since=at - timedelta(milliseconds=999))

    (link,) = Desk(FakeResolver(answer=answer)).group([open_for(60, outcome=flowlink_pb2.OUTCOME_OPEN)]).links
    assert link.link.dst == OLD


def test_an_open_connection_whose_ends_changed_too_often_says_nothing() -> None:
    def answer(flow: FlowIdentity, at: datetime) -> Resolution:
        return Handover._resolved(flow, OLD, since=at - timedelta(milliseconds=1))

    resolver = FakeResolver(answer=answer)
    deltas = Desk(resolver).group([open_for(3_600, outcome=flowlink_pb2.OUTCOME_OPEN)])
    assert [refusal.reason for refusal in deltas.refusals] == ["open-across-owners"]
    assert resolver.asked < 100


def test_an_open_connection_may_be_of_another_who_had_the_address_in_between() -> None:
    def answer(flow: FlowIdentity, at: datetime) -> Resolution:
        before_ms = NOW_MS - at.timestamp() * 1000
        since, end = next((s, e) for s, e in ((10_000, OLD), (20_000, NEW), (90_000, OLD)) if before_ms <= s)
        return Handover._resolved(flow, end, since=_time(NOW_MS - since))

    deltas = Desk(FakeResolver(answer=answer)).group([open_for(60, outcome=flowlink_pb2.OUTCOME_OPEN)])
    assert [refusal.reason for refusal in deltas.refusals] == ["open-across-owners"]


def test_looks_at_one_open_connection_are_judged_each_by_its_own_time() -> None:
    """The later look finds it half open: its peer's address has gone to somebody else."""
    _, desk = handover()
    earlier, later = (
        Flow(outcome=flowlink_pb2.OUTCOME_OPEN, count=0, first_ms=at, last_ms=at, longest_ms=at + 60_000)
        for at in (4_000, 6_000)
    )
    deltas = desk.group([earlier, later], end_ms=CHANGE_MS)
    assert [(link.link.dst, link.last_seen_ms) for link in deltas.links] == [(OLD, CHANGE_MS - 1_000)]
    assert [refusal.reason for refusal in deltas.refusals] == ["open-across-owners"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BehindAService:
    """What stood behind a Service: `before` until CHANGE_MS, NEW from then on."""

    before: LinkEnd | str

    def __call__(self, flow: FlowIdentity, at: datetime) -> Resolution:
        if at.timestamp() * 1000 >= CHANGE_MS:
            resolved = Handover._resolved(flow, NEW, since=_time(CHANGE_MS))
            return replace(resolved, service="shop/new:80")
        if isinstance(self.before, str):
            return NotYet(reason=self.before, fallback=None)
        return replace(Handover._resolved(flow, self.before), service="shop/new:80")


@pytest.mark.parametrize(
    ("before", "ends"),
    [
        ("service-without-backends", [NEW]),
        ("service-has-no-such-port", [NEW]),
        ("address-changed-hands", [NEW]),
        ("service-backends-differ", []),
        (NEW, [NEW]),
        (OLD, []),
    ],
)
def test_nobody_can_have_opened_a_connection_while_nobody_was_behind_a_service(
    before: LinkEnd | str, ends: list[LinkEnd]
) -> None:
    """Client, server and Service are made together: the client's pod is mostly older than the Service's endpoints."""
    desk = Desk(FakeResolver(answer=BehindAService(before=before)))
    deltas = desk.group([open_for(60, outcome=flowlink_pb2.OUTCOME_OPEN)])
    assert [link.link.dst for link in deltas.links] == ends


def test_an_answer_is_kept_no_longer_than_it_holds() -> None:
    """Some end by time alone, within one generation: the grace period of a Service that is gone, for one."""
    _, desk = handover()
    seen = [
        link.link.dst
        for end_ms in (CHANGE_MS - 3_000, CHANGE_MS + 3_000)
        for link in desk.group([Flow(first_ms=5_000, last_ms=5_000)], end_ms=end_ms).links
    ]
    assert seen == [OLD, NEW]


def test_an_answer_is_kept_no_longer_than_the_view_keeps_up() -> None:
    """While the API server is away, pods are replaced, too: what the view cannot know yet is asked, and waits."""
    resolver = FakeResolver(until=_time(NOW_MS - 3_000))
    desk = Desk(resolver)
    for first_ms, asked in ((0, 1), (1_000, 1), (2_500, 2), (2_600, 3)):
        desk.group([Flow(first_ms=first_ms, last_ms=first_ms)])
        assert resolver.asked == asked
    resolver.until = None
    desk.group([Flow(first_ms=2_600, last_ms=2_600)])
    assert resolver.asked == 3


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        (flowlink_pb2.OUTCOME_REFUSED, NEW),
        (flowlink_pb2.OUTCOME_TIMED_OUT, OLD),
        (flowlink_pb2.OUTCOME_UNREACHABLE, OLD),
        (flowlink_pb2.OUTCOME_ABORTED, OLD),
    ],
)
def test_an_attempt_is_of_who_refused_it_or_of_who_was_there_when_it_began(outcome: int, end: LinkEnd) -> None:
    """The kernel gives up after two minutes."""
    _, desk = handover()
    attempt = Flow(outcome=outcome, count=1, first_ms=4_000, last_ms=4_000, longest_ms=127_000)
    (link,) = desk.group([attempt]).links
    assert link.link.dst == end


def test_what_waits_is_asked_again_for_the_time_of_its_opening() -> None:
    _, desk = handover(gap_ms=5_000)
    deltas = desk.group([open_for(27)], [open_for(27, outcome=flowlink_pb2.OUTCOME_OPEN)])
    (waiting,) = deltas.pending
    assert waiting.at_ms == NOW_MS - 28_000
    assert [refusal.reason for refusal in deltas.refusals] == ["open-across-owners"]
