"""Spans as people write them: 3h, 12h, 24h, 7d, FROM..TO, all.

Enters: text and the time now. Leaves: a Span, or None for all that is recorded. Invariant: `all` is the default of
every question that makes a proposal: a monthly job must not fall out of it.
"""

import re
from datetime import UTC, datetime, timedelta

from aggregator.errors import InputError
from aggregator.store.links import Span

ALL = "all"
USUAL = ("3h", "12h", "24h", "7d", ALL)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_RELATIVE = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_WAY_OUT = f"write one of {', '.join(USUAL)}, another number of m, h or d, or FROM..TO in RFC 3339"


def parse_span(text: str, now: datetime) -> Span | None:
    """None = all that is recorded. Raises InputError."""
    if text in {"", ALL}:
        return None
    if (relative := _RELATIVE.fullmatch(text)) is not None:
        return Span(start=now - int(relative[1]) * _UNITS[relative[2]], end=now)
    first, dots, last = text.partition("..")
    if not dots or not (first or last):
        raise InputError(f"{text[:64]!r} is no span: {_WAY_OUT}", field="span")
    span = Span(start=_moment(first) or EARLIEST, end=_moment(last) or now)
    if not EARLIEST <= span.start < span.end:
        raise InputError("the span must begin after 1970 and before it ends", field="span")
    return span


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise InputError(f"{text[:64]!r} is no time: {_WAY_OUT}", field="span") from exc
