"""No sequence of flows, policies and restarts calls a connection "not enforced" that was opened when it was allowed.

A history in seconds: the policy of a pair comes, goes and changes; the view hears of it up to LAG later, or not at all
until it lists anew; the plug-in follows up to LAG later; the node's clock is off by up to LAG; records count several
connections and are judged whenever. The plug-in of these histories is without fault, so every report would be false.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aggregator.cluster.standing import Standing
from aggregator.model.verdict import Verdict
from aggregator.policy.enforcement import MARGIN, Say, Sighting, VerdictNow, say

LAG = int(MARGIN.total_seconds()) // 3
END = 400
SRC, DST = ("shop", "a"), ("shop", "b")


def at(second: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)


@dataclass(frozen=True)
class Change:
    """From `second` on the pair is denied or not; `kind` is what changed, seen `lag` later."""

    second: int
    denied: bool
    kind: str
    lag: int


@dataclass
class View:
    """What the aggregator knows at a time: built from the changes that it has heard of."""

    changes: list[Change]
    gaps: list[tuple[int, int]]  # from .. to: nothing is heard; then everything is listed anew
    standing: Standing = field(default_factory=Standing)
    denied: bool = False

    def until(self, second: int) -> "View":
        heard: list[tuple[int, str, Change | None]] = []
        for change in self.changes:
            seen = change.second + change.lag
            if not any(begin <= seen < end for begin, end in self.gaps):
                heard.append((seen, change.kind, change))
        heard += [(end, "list", None) for _, end in self.gaps]
        self.standing.gap("NetworkPolicy", 0.0)
        for seen, kind, change in sorted(heard, key=lambda item: (item[0], item[1])):
            if seen > second:
                break
            if change is None:
                self.standing.gap("NetworkPolicy", float(seen))
                self.denied = denied_at(self.changes, seen)
                continue
            name = DST if kind == "Pod" else ("shop", "p")
            self.standing.changed(kind, name[0], "shop" if kind == "Namespace" else name[1], at=float(seen))
            self.denied = change.denied
        return self


def denied_at(changes: list[Change], second: float) -> bool:
    before = [change for change in changes if change.second <= second]
    return before[-1].denied if before else False


def may_be_open(changes: list[Change], second: float) -> bool:
    """A faultless plug-in lets it through at this time: it is allowed, or was within its lag."""
    lately = [change for change in changes if second - LAG < change.second <= second]
    return not denied_at(changes, second) or not denied_at(changes, second - LAG) or any(not c.denied for c in lately)


def near(changes: list[Change], place: tuple[int, int]) -> int:
    return max(0, (changes[place[0] % len(changes)].second if changes else 100) + place[1])


@st.composite
def changes(draw: st.DrawFn) -> list[Change]:
    seconds = sorted(draw(st.lists(st.integers(1, END), max_size=6, unique=True)))
    found, heard = [], 0
    for second in seconds:
        heard = max(heard, second + draw(st.sampled_from([0, LAG])))  # a watch keeps the order
        heard = min(heard, second + LAG)
        kind = draw(st.sampled_from(["NetworkPolicy", "Pod", "Namespace", "AdminNetworkPolicy"]))
        found.append(Change(second, draw(st.booleans()), kind, heard - second))
    return found


NEAR = st.tuples(st.integers(0, 7), st.integers(-LAG, 2 * LAG))
"""A time by the change that it is near to: what is far from every change is easy to judge."""


@example(  # the policy had gone, and the view had not heard of it yet
    history=[
        Change(50, denied=True, kind="NetworkPolicy", lag=0),
        Change(150, denied=False, kind="NetworkPolicy", lag=LAG),
    ],
    gaps=[],
    opens=[(1, 1)],
    skew=0,
    found_open=False,
    delay=0,
)
@example(  # the policy had come, and the plug-in had not followed yet
    history=[Change(50, denied=True, kind="NetworkPolicy", lag=0)],
    gaps=[],
    opens=[(0, LAG - 1)],
    skew=LAG,
    found_open=False,
    delay=200,
)
@settings(max_examples=400, deadline=None)
@given(
    history=changes(),
    gaps=st.lists(st.tuples(NEAR, st.integers(1, 60)), max_size=1),
    opens=st.lists(NEAR, min_size=1, max_size=3),
    skew=st.sampled_from([-LAG, 0, LAG]),
    found_open=st.booleans(),
    delay=st.sampled_from([0, 1, LAG, 2 * LAG, 200]),
)
def test_no_connection_of_a_faultless_plug_in_is_called_not_enforced(
    history: list[Change],
    gaps: list[tuple[tuple[int, int], int]],
    opens: list[tuple[int, int]],
    skew: int,
    found_open: bool,
    delay: int,
) -> None:
    opened = [second for second in (near(history, place) for place in opens) if may_be_open(history, second)]
    if not opened:
        return
    sighting = Sighting(
        opened=None if found_open else at(min(opened) + skew),
        seen=at(max(opened) + skew),
    )
    spans = [(near(history, place), near(history, place) + length) for place, length in gaps]
    for judged in (max(opened) + delay, max(opened) + delay + 60):
        view = View(history, spans).until(judged)
        hearing = not any(begin <= judged < end for begin, end in spans)
        confirmed = judged if hearing else next(begin for begin, end in spans if begin <= judged < end)
        said = say(
            sighting,
            VerdictNow(
                verdict=Verdict.DENIED if view.denied else Verdict.ALLOWED,
                since=at(view.standing.since([SRC, DST])),
                confirmed=at(confirmed),
            ),
        )
        assert said is not Say.NOT_ENFORCED


@given(since=st.integers(0, 100), after=st.integers(0, 300))
def test_what_was_opened_long_after_is_said(since: int, after: int) -> None:
    """The law above must not hold because nothing is ever said."""
    opened = at(since + after)
    now = VerdictNow(verdict=Verdict.DENIED, since=at(since), confirmed=opened + 2 * MARGIN)
    said = say(Sighting(opened=opened, seen=opened), now)
    assert said is (Say.NOT_ENFORCED if after >= MARGIN.total_seconds() else Say.NOTHING)


def test_unknown_is_never_an_accusation() -> None:
    now = VerdictNow(verdict=Verdict.UNKNOWN, since=at(0), confirmed=at(1000))
    assert say(Sighting(opened=at(500), seen=at(500)), now) is Say.UNKNOWN


def test_what_is_only_found_open_is_held_open() -> None:
    now = VerdictNow(verdict=Verdict.DENIED, since=at(0), confirmed=at(0))
    assert say(Sighting(opened=None, seen=at(500)), now) is Say.HELD_OPEN
