"""Drift: how what is seen now differs from a frozen baseline.

Enters: the links that a baseline was frozen at, and what is recorded. Leaves: NewLink and GoneLink. Invariant: only an
established link is new; attempts that came to nothing change no baseline. Outside addresses drift one by one: another
address of the same owner is another link, unless the baseline holds the network that it was rolled up to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network

from aggregator.model.link import Link, ObservedLink
from aggregator.model.workload import Address, LinkEnd

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
    networks = [link for link in kept if is_network(link.src) or is_network(link.dst)]
    lately = {link for link, row in seen.items() if _lately(row.evidence.last_seen, now)}
    unknown = [link for link in lately - kept if not any(covers(wide, link) for wide in networks)]
    new = [NewLink(observed=seen[link]) for link in sorted(unknown, key=Link.sort_key)]
    gone = []
    for link in sorted(kept, key=Link.sort_key):
        last = _last_seen(link, seen)
        if last is None or not _lately(last, now):
            gone.append(GoneLink(link=link, last_seen=last))
    return (*new, *gone)


def _lately(last_seen: datetime | None, now: datetime) -> bool:
    """What was not seen for long is nothing new, even where the baseline lacks it."""
    return last_seen is None or now - last_seen <= GONE_AFTER


def _last_seen(link: Link, seen: Mapping[Link, ObservedLink]) -> datetime | None:
    if link in seen:
        return seen[link].evidence.last_seen
    if not (isinstance(link.src, Address) or isinstance(link.dst, Address)):
        return None
    # Its address may be recorded as its network by now.
    wide = [row.evidence.last_seen for found, row in seen.items() if covers(found, link)]
    return max((at for at in wide if at is not None), default=None)


def is_network(end: LinkEnd) -> bool:
    return isinstance(end, Address) and end.prefix_length is not None


def covers(wide: Link, link: Link) -> bool:
    """Whether `wide` is the same link with a network in the place of this one's address."""
    if (wide.protocol, wide.port) != (link.protocol, link.port):
        return False
    if wide.src == link.src:
        return _inside(wide.dst, link.dst)
    return wide.dst == link.dst and _inside(wide.src, link.src)


def _inside(wide: LinkEnd, end: LinkEnd) -> bool:
    if not (isinstance(wide, Address) and isinstance(end, Address)) or wide.prefix_length is None:
        return False
    if end.ip.version != wide.ip.version or end.cluster != wide.cluster:
        return False
    network = ip_network((wide.ip, wide.prefix_length), strict=False)
    return end.ip in network and (end.prefix_length is None or end.prefix_length >= network.prefixlen)
