"""CronJob schedules: how often a run is due, so that a rare job is waited for.

Enters: the five fields of a schedule, or a macro. Leaves: how many runs were due between two times, and how often.
Invariant: a schedule that cannot be read is None, never a guess. Times are UTC, as the controller's are by default.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_DAYS = {name: number for number, name in enumerate(_DAY_NAMES)}
_BOUNDS: tuple[tuple[int, int, Mapping[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (0, 7, _DAYS),
)
MAX_DAYS = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 = Sunday
    any_day: bool  # both day fields restrict: either one is enough (cron's rule)

    def due(self, since: datetime, until: datetime) -> int:
        """Runs due from `since` to before `until`; of the last MAX_DAYS at most."""
        since = max(since, until - timedelta(days=MAX_DAYS))
        count = 0
        day = since.replace(hour=0, minute=0, second=0, microsecond=0)
        while day < until:
            if self._on(day):
                if since <= day and day + timedelta(days=1) <= until:
                    count += len(self.hours) * len(self.minutes)
                else:
                    times = (
                        day + timedelta(hours=hour, minutes=minute) for hour in self.hours for minute in self.minutes
                    )
                    count += sum(since <= at < until for at in times)
            day += timedelta(days=1)
        return count

    def _times(self, day: datetime) -> Iterator[datetime]:
        return (day + timedelta(hours=hour, minutes=minute) for hour in self.hours for minute in self.minutes)

    def _on(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, (day.weekday() + 1) % 7 in self.weekdays
        return by_date or by_weekday if self.any_day else by_date and by_weekday

    @property
    def often(self) -> str:
        """In a word: hourly, daily, weekly, monthly or yearly."""
        start = datetime(2024, 1, 1)  # noqa: DTZ001  # a leap year, only counted with
        runs = self.due(start, start + timedelta(days=366))
        for least, word in ((366 * 12, "hourly"), (200, "daily"), (40, "weekly"), (9, "monthly")):
            if runs >= least:
                return word
        return "yearly"


def parse_schedule(text: str) -> Schedule | None:
    """None when it cannot be read (or names a time zone of its own)."""
    fields = _MACROS.get(text.strip().lower(), text).split()
    if len(fields) != len(_BOUNDS):
        return None
    found = []
    for field, (low, high, names) in zip(fields, _BOUNDS, strict=True):
        values = _values(field.lower(), low, high, names)
        if not values:
            return None
        found.append(values)
    minutes, hours, days, months, weekdays = found
    return Schedule(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        any_day=not fields[2].startswith(("*", "?")) and not fields[4].startswith(("*", "?")),
    )


def _values(field: str, low: int, high: int, names: Mapping[str, int]) -> frozenset[int]:
    """Empty when the field cannot be read."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = int(step_text) if step_text.isdecimal() else 1
        if (slash and not step_text.isdecimal()) or step < 1:
            return frozenset()
        first_text, dash, last_text = span.partition("-")
        if span in {"*", "?"}:
            first, last = low, high
        else:
            number = _number(first_text, names)
            end = _number(last_text, names) if dash else (high if slash else number)
            if number is None or end is None:
                return frozenset()
            first, last = number, end
        if not low <= first <= last <= high:
            return frozenset()
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, names: Mapping[str, int]) -> int | None:
    if text in names:
        return names[text]
    return int(text) if text.isdecimal() else None
