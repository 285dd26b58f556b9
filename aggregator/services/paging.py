"""Search, filter, sort and page the rows of a table.

Enters: LinkRow views and what a person asked for. Leaves: one page and the cursor of the next. Invariant: a cursor
holds the sort key of the last row shown, so rows that come or go in between neither repeat nor hide the others.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from aggregator.errors import InputError
from aggregator.model.workload import Workload
from aggregator.services.deciding.said_views import DecisionView
from aggregator.services.keeping.event_views import EventView
from aggregator.services.views import AddressRow, LinkRow, NamespaceRow

Row = TypeVar("Row")
Key = tuple[Any, ...]

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    items: Sequence[Row]
    total: int  # rows that match, on all pages
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a table is wanted. `sort` is a column, with a leading `-` for descending."""

    search: str = ""
    address_class: str = ""
    sort: str = ""
    cursor: str = ""
    limit: int = DEFAULT_LIMIT


def _peer(row: LinkRow) -> Key:
    end = row.peer
    return (row.direction, end.masked, end.kind == "Address", end.namespace, end.kind, end.name, row.protocol, row.port)


LINK_SORTS: Mapping[str, Callable[[LinkRow], Key]] = {
    "peer": _peer,
    "port": lambda row: (row.port, row.protocol),
    "process": lambda row: (row.processes,),
    "connections": lambda row: (row.connections,),
    "bytes": lambda row: (row.tx_bytes + row.rx_bytes,),
    "failed_attempts": lambda row: (row.failed_attempts,),
    "first_seen": lambda row: (row.first_seen.isoformat() if row.first_seen else "",),
    "last_seen": lambda row: (row.last_seen.isoformat() if row.last_seen else "",),
    "verdict": lambda row: (row.applied.verdict,),
    "proposal": lambda row: (row.proposal.included, row.proposal.reason),
}


def page_of_links(rows: Sequence[LinkRow], wanted: Wanted) -> Page[LinkRow]:
    """Raises InputError for a sort or a cursor that cannot be read."""
    found = filtered(rows, wanted)
    name = wanted.sort.removeprefix("-") or "peer"
    key = LINK_SORTS.get(name)
    if key is None:
        raise InputError(
            f"there is no column {name[:40]!r} to sort by; there are {', '.join(LINK_SORTS)}", field="sort"
        )
    return _paged(found, lambda row: (*key(row), row.id), wanted)


def sorted_rows(rows: Sequence[LinkRow], wanted: Wanted) -> Sequence[LinkRow]:
    """Every row that matches, in the order of the table. Raises InputError for a sort that cannot be read."""
    return page_of_links(rows, replace(wanted, cursor="", limit=len(rows))).items


def filtered(rows: Sequence[LinkRow], wanted: Wanted) -> list[LinkRow]:
    """By text and by address class, in the order that they came in."""
    words = wanted.search.casefold().split()
    return [
        row
        for row in rows
        if (not wanted.address_class or class_of(row) == wanted.address_class)
        and (not words or _has(_text(row), words))
    ]


def class_of(row: LinkRow) -> str:
    """Of the other end: what the cluster itself owns is internal."""
    return row.peer.address.address_class if row.peer.address is not None else "internal"


def page_of_names(workloads: Sequence[Workload], wanted: Wanted) -> Page[Workload]:
    """Workloads by their names alone, before anything else is known of them."""
    words = wanted.search.casefold().split()
    found = [w for w in workloads if not words or _has(f"{w.namespace} {w.kind} {w.name}".casefold(), words)]
    return _paged(found, lambda w: (w.namespace, w.kind, w.name), wanted)


def page_of_namespaces(rows: Sequence[NamespaceRow], wanted: Wanted) -> Page[NamespaceRow]:
    words = wanted.search.casefold().split()
    return _paged([row for row in rows if _has(row.name.casefold(), words)], lambda row: (row.name,), wanted)


def page_of_addresses(rows: Sequence[AddressRow], wanted: Wanted) -> Page[AddressRow]:
    """In the order that they came in: those that ask for a person first."""
    words = wanted.search.casefold().split()
    found = [
        row
        for row in rows
        if (not wanted.address_class or row.address_class == wanted.address_class)
        and _has(" ".join([row.ip, row.alias, row.address_class, *row.workloads, *row.ports]).casefold(), words)
    ]
    start = 0
    if wanted.cursor:
        start = next((number for number, row in enumerate(found, start=1) if row.ip == wanted.cursor), 0)
        if not start:
            raise _bad_cursor()
    shown = found[start : start + wanted.limit]
    more = start + len(shown) < len(found)
    return Page(items=shown, total=len(found), next_cursor=shown[-1].ip if more and shown else None)


def page_of_decisions(rows: Sequence[DecisionView], wanted: Wanted) -> Page[DecisionView]:
    """Newest first; a page begins after the record that the cursor names."""
    words = wanted.search.casefold().split()
    found = [row for row in rows if _has(f"{row.text} {row.author} {row.kind} {row.reason}".casefold(), words)]
    start = 0
    if wanted.cursor:
        start = next((i for i, row in enumerate(found, start=1) if row.record == wanted.cursor), 0)
        if not start:
            raise _bad_cursor()
    shown = found[start : start + wanted.limit]
    more = start + len(shown) < len(found)
    return Page(items=shown, total=len(found), next_cursor=shown[-1].record if more and shown else None)


def page_of_events(rows: Sequence[EventView], wanted: Wanted) -> Page[EventView]:
    """Newest first; a page begins after the event that the cursor names."""
    words = wanted.search.casefold().split()
    found = [
        row
        for row in rows
        if _has(
            " ".join([row.text, row.kind, row.cause, *row.processes, *row.src_pods, *row.dst_pods]).casefold(), words
        )
    ]
    start = 0
    if wanted.cursor:
        start = next((i for i, row in enumerate(found, start=1) if row.id == wanted.cursor), 0)
        if not start:
            raise _bad_cursor()
    shown = found[start : start + wanted.limit]
    more = start + len(shown) < len(found)
    return Page(items=shown, total=len(found), next_cursor=shown[-1].id if more and shown else None)


def _text(row: LinkRow) -> str:
    """Everything of the row that a person can read in it."""
    peer = row.peer
    parts = [
        *(peer.kind, peer.namespace, peer.name),
        *(f"{key}={value}" for key, value in peer.labels.items()),
        *((peer.address.ip, peer.address.alias, peer.address.address_class) if peer.address else ()),
        *(row.workload.kind, row.workload.namespace, row.workload.name),
        *(row.protocol, str(row.port), f"{row.protocol} {row.port}", f"{row.protocol}/{row.port}", row.direction),
        *row.processes,
        *row.services,
        *row.workload_pods,
        *row.peer_pods,
        *(row.proposal.reason, row.proposal.text, row.applied.verdict),
    ]
    return "\n".join(parts).casefold()


def _has(text: str, words: Sequence[str]) -> bool:
    return all(word in text for word in words)


def _paged(rows: Sequence[Row], key: Callable[[Row], Key], wanted: Wanted) -> Page[Row]:
    descending = wanted.sort.startswith("-")
    keyed = sorted(((_plain(key(row)), row) for row in rows), key=lambda item: item[0], reverse=descending)
    start = 0
    if wanted.cursor:
        after = _read_cursor(wanted.cursor, wanted.sort)
        try:
            start = sum(1 for found, _ in keyed if (found >= after if descending else found <= after))
        except TypeError as exc:
            raise _bad_cursor() from exc
    shown = keyed[start : start + wanted.limit]
    more = start + len(shown) < len(keyed)
    return Page(
        items=[row for _, row in shown],
        total=len(keyed),
        next_cursor=_write_cursor(shown[-1][0], wanted.sort) if more and shown else None,
    )


def _plain(key: Key) -> list[Any]:
    """As it comes back from JSON."""
    return [list(part) if isinstance(part, tuple) else part for part in key]


def _write_cursor(key: list[Any], sort: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([sort, key], separators=(",", ":")).encode()).decode().rstrip("=")


def _read_cursor(cursor: str, sort: str) -> list[Any]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        said, key = found
    except (ValueError, TypeError, binascii.Error, RecursionError) as exc:
        raise _bad_cursor() from exc
    if said != sort or not isinstance(key, list):
        raise _bad_cursor()
    return key


def _bad_cursor() -> InputError:
    return InputError("the cursor does not belong to this question: leave it out to start again", field="cursor")
