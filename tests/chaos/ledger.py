"""The ledger: what each producer was told to be safe, and what the store must therefore hold, edge by edge.

What batch number N of producer P holds is a function of P and N, so a ledger is a list of numbers. A number is
written after `append` has returned. The number that a kill caught between the two is neither owed nor wrong.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import text

from aggregator.model.link import link_id
from aggregator.store import Scope, Store
from aggregator.store.agents import GapStatus
from tests.flowlink import CLUSTER, Flow, batch_of
from wattle.v1 import flowlink_pb2

EDGES = 400
FIRST_PORT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    records: int
    lost: int
    double: int
    remarks: tuple[str, ...] = ()


def flows_of(producer: int, seq: int) -> list[Flow]:
    """The flow records of a batch: some edges, as client or as server."""
    rng = np.random.default_rng([producer, seq])
    size = int(rng.integers(5, 60))
    edges = rng.integers(0, EDGES, size).tolist()
    counts = rng.integers(1, 6, size).tolist()
    return [
        Flow(
            pod_uid=f"uid-{producer}",
            port=FIRST_PORT + edge,
            direction=flowlink_pb2.DIRECTION_INGRESS if edge % 3 == 0 else flowlink_pb2.DIRECTION_EGRESS,
            count=count,
            tx_bytes=count * 1_000 + edge,
            rx_bytes=1,
        )
        for edge, count in zip(edges, counts, strict=True)
    ]


def batch_for(producer: int, seq: int, *, end_ns: int | None = None) -> flowlink_pb2.Batch:
    return batch_of(flows_of(producer, seq), end_ns=end_ns)


def read_ledger(path: Path) -> list[int]:
    """Whole lines only: a kill may have cut the last one."""
    if not path.exists():
        return []
    return [int(line) for line in path.read_text().split("\n")[:-1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """What is left of a producer when everything has stopped."""

    number: int
    agent_id: str
    epoch: int
    next_seq: int
    ledger: list[int]


def compare(store: Store, producers: list[Producer]) -> Verdict:
    """The store against the ledgers."""
    remarks: list[str] = []
    expected: Counter[tuple[int, str]] = Counter()
    records = 0
    gaps = store.gaps(CLUSTER, limit=100_000)
    for producer in producers:
        missing = _missing(producer, gaps)
        owed = set(producer.ledger)
        if len(owed) != len(producer.ledger):
            remarks.append(f"{producer.agent_id}: a number was given twice")
        remarks += [f"{producer.agent_id}: batch {seq} was safe, and is a gap" for seq in sorted(owed & missing)]
        # What is missing and was never owed was torn by a kill inside append.
        kept = [seq for seq in range(1, producer.next_seq) if seq in owed or seq not in missing]
        records += _expect(expected, producer, kept)
    ports = {link_id(observed.link): observed.link.port for observed in store.links(Scope(cluster=CLUSTER))}
    lost = double = 0
    for table in ("link_activity_5m", "link_activity_1h"):
        found = _found(store, table, ports)
        for edge in expected.keys() | found.keys():
            difference = found[edge] - expected[edge]
            if difference:
                remarks.append(f"{table} {edge}: {found[edge]} where {expected[edge]} was expected")
            if edge[1].endswith("_count"):
                lost += max(0, -difference)
                double += max(0, difference)
    return Verdict(records=records, lost=lost, double=double, remarks=tuple(remarks))


def _missing(producer: Producer, gaps: list[GapStatus]) -> set[int]:
    return {
        seq
        for gap in gaps
        if gap.agent_id == producer.agent_id and gap.epoch == producer.epoch
        for seq in range(gap.from_seq, min(gap.to_seq, producer.next_seq) + 1)
    }


def _expect(expected: Counter[tuple[int, str]], producer: Producer, kept: list[int]) -> int:
    """Add what these batches hold; how many flow records that is."""
    records = 0
    for seq in kept:
        for flow in flows_of(producer.number, seq):
            records += 1
            side = "server" if flow.direction == flowlink_pb2.DIRECTION_INGRESS else "client"
            expected[(flow.port, f"{side}_count")] += flow.count
            expected[(flow.port, f"{side}_tx_bytes")] += flow.tx_bytes
    return records


def _found(store: Store, table: str, ports: dict[int, int]) -> Counter[tuple[int, str]]:
    found: Counter[tuple[int, str]] = Counter()
    names = ("client_count", "client_tx_bytes", "server_count", "server_tx_bytes")
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    with store.engine.connect() as connection:
        for row in connection.execute(text(f"SELECT link_id, {sums} FROM {table} GROUP BY link_id")):
            for name in names:
                found[(ports[row.link_id], name)] += int(getattr(row, name))
    return found
