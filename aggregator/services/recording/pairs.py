"""PairCounting: a Sink that also counts, for Prometheus, what goes between which two workloads.

Enters: merges, on their way to the sink. Leaves: the same merges, and two counters a pair. Invariant: what is counted
is committed, and no more than `most` pairs ever have series: Prometheus pays for each for ever. An address of the
outside is no label: there are too many of them, and /metrics asks nobody who they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from aggregator.metrics import PAIR_BYTES, PAIR_CONNECTIONS, PAIR_UNLISTED
from aggregator.model.workload import Address, LinkEnd, Workload
from aggregator.store import Cloned, CursorOpening, Opened, Sink
from aggregator.store.deltas import LinkSighting, Merge, Sides

COUNTERS = ("client_count", "client_tx_bytes", "client_rx_bytes", "server_count", "server_tx_bytes", "server_rx_bytes")
OUTSIDE = "outside"
_Labels = tuple[str, str, str, str, str]


@dataclass(slots=True, kw_only=True)
class _Counted:
    connections: Counter | None  # None: the pair came too late
    octets: Counter | None
    by_client: bool  # a client's node has reported it: the server's numbers are the same once more


class PairCounting:
    """Used by the recorder's thread alone."""

    def __init__(self, sink: Sink, *, most: int) -> None:
        self._sink = sink
        self._most = most
        self._pairs: dict[_Labels, tuple[Counter, Counter]] = {}
        self._links: dict[int, _Counted] = {}

    def open_cursors(self, openings: Sequence[CursorOpening]) -> list[Opened | Cloned]:
        return self._sink.open_cursors(openings)

    def merge(self, merge: Merge) -> None:
        """Raises what the sink raises, and then counts nothing."""
        self._sink.merge(merge)
        for sighting in merge.links:
            self._learn(sighting)
        activity = merge.activity
        rows = zip(activity["link_id"].tolist(), *(activity[name].tolist() for name in COUNTERS), strict=True)
        for link_id, *numbers in rows:
            known = self._links.get(link_id)
            if known is None:
                continue  # never: a link is sighted in the merge of its first activity
            count, sent, received = numbers[:3] if known.by_client else numbers[3:]
            if known.connections is None or known.octets is None:
                PAIR_UNLISTED.inc(count)
                continue
            known.connections.inc(count)
            known.octets.inc(sent + received)

    def _learn(self, sighting: LinkSighting) -> None:
        by_client = bool(sighting.sides & Sides.CLIENT)
        known = self._links.get(sighting.link_id)
        if known is not None:
            known.by_client |= by_client
            return
        link = sighting.link
        labels = (link.src.cluster, *_spelled(link.src), *_spelled(link.dst))
        pair = self._pairs.get(labels)
        if pair is None and len(self._pairs) < self._most:
            pair = PAIR_CONNECTIONS.labels(*labels), PAIR_BYTES.labels(*labels)
            self._pairs[labels] = pair
        connections, octets = pair or (None, None)
        self._links[sighting.link_id] = _Counted(connections=connections, octets=octets, by_client=by_client)


def _spelled(end: LinkEnd) -> tuple[str, str]:
    match end:
        case Workload():
            return end.namespace, f"{end.kind}/{end.name}"
        case Address():
            return "", OUTSIDE
        case _:
            return "", str(end)
