"""Drift: how what is seen now differs from a frozen baseline.

Enters: the links that a baseline was frozen at, and what is recorded. Leaves: NewLink and GoneLink. Invariant: only an
established link is new; attempts that came to nothing change no baseline.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from aggregator.model.link import Link, ObservedLink

GONE_AFTER = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """Seen, and not in the baseline."""

    observed: ObservedLink


@dataclass(frozen=True, slots=True, kw_only=True)
class GoneLink:
    """In the baseline, and not seen for long. `last_seen` None: there is no record of it any more."""

    link: Link
    last_seen: datetime | None


Drift = NewLink | GoneLink


def drift(frozen: Iterable[Link], recorded: Iterable[ObservedLink], now: datetime) -> tuple[Drift, ...]:
    """New links first, each kind in the order of links."""
    kept = frozenset(frozen)
    seen = {row.link: row for row in recorded if row.established and not row.evidence.same_node_probe}
    new = [NewLink(observed=seen[link]) for link in sorted(seen.keys() - kept, key=Link.sort_key)]
    gone = []
    for link in sorted(kept, key=Link.sort_key):
        row = seen.get(link)
        last = row.evidence.last_seen if row is not None else None
        if last is None or now - last > GONE_AFTER:
            gone.append(GoneLink(link=link, last_seen=last))
    return (*new, *gone)
