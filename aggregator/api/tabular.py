"""Rows as CSV: one line a link, for a spreadsheet.

Invariant: no cell begins with what a spreadsheet takes for a formula.
"""

import csv
import io
from collections.abc import Iterable

from aggregator.services.views import LinkRow

COLUMNS = (
    "id",
    "direction",
    "workload",
    "peer_kind",
    "peer_namespace",
    "peer",
    "peer_labels",
    "protocol",
    "port",
    "processes",
    "services",
    "connections",
    "tx_bytes",
    "rx_bytes",
    "failed_attempts",
    "first_seen",
    "last_seen",
    "workload_pods",
    "peer_pods",
    "seen_by",
    "address_class",
    "alias",
    "verdict",
    "in_proposal",
    "reason",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def links_as_csv(rows: Iterable[LinkRow]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(value) for value in _values(row)])
    return out.getvalue()


def _values(row: LinkRow) -> Iterable[object]:
    address = row.peer.address
    return (
        f"id:{row.id}",  # a spreadsheet would round a 64-bit number
        row.direction,
        f"{row.workload.namespace}/{row.workload.kind}/{row.workload.name}",
        row.peer.kind,
        row.peer.namespace,
        row.peer.name,
        " ".join(f"{key}={value}" for key, value in sorted(row.peer.labels.items())),
        row.protocol,
        row.port,
        " ".join(row.processes),
        " ".join(row.services),
        row.connections,
        row.tx_bytes,
        row.rx_bytes,
        row.failed_attempts,
        row.first_seen.isoformat() if row.first_seen else "",
        row.last_seen.isoformat() if row.last_seen else "",
        " ".join(row.workload_pods),
        " ".join(row.peer_pods),
        " ".join(row.seen_by),
        address.address_class if address else "internal",
        address.alias if address else "",
        row.applied.verdict,
        "yes" if row.proposal.included else "no",
        row.proposal.reason,
    )


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
