"""Identities and Grouping without a database: batches in, deltas out."""

from aggregator.ingest.decode import decode
from aggregator.services.recording.deliveries import FlowColumns
from aggregator.services.recording.grouping import AnsweredBatch, Deltas, Grouping
from aggregator.services.recording.identities import Identities
from aggregator.services.recording.openings import Openings
from aggregator.services.recording.rollup import RollUp
from aggregator.store.deltas import CursorKey
from tests.flowlink import CLUSTER, FakeResolver, Flow, batch_of

NOW_MS = 1_790_000_100_000
KEY = CursorKey(cluster=CLUSTER, agent_id="node-1", epoch=1)


class Desk:
    """Identities and Grouping as the recorder uses them."""

    def __init__(self, resolver: FakeResolver, *, most: int = 256, openings: Openings | None = None) -> None:
        self.now_ms = NOW_MS
        self.identities = Identities(resolver)
        self.grouping = Grouping(
            grace_ms=30_000,
            rolled_up=RollUp(most=most, known_addresses=lambda *_: {"src": set(), "dst": set()}),
            openings=openings,
        )

    def group(self, *batches: list[Flow], end_ms: int = NOW_MS) -> Deltas:
        self.identities.begin()
        answered = []
        for seq, records in enumerate(batches, start=1):
            message = batch_of(records, end_ns=end_ms * 1_000_000)
            flow_batch = decode(b"", message, now_ms=self.now_ms)
            answers = self.identities.look_up([(CLUSTER, "node-1", flow_batch)], flow_batch.columns)
            answered.append(AnsweredBatch(key=KEY, seq=seq, batch=flow_batch, answers=answers))
        columns = FlowColumns.joined([batch.batch.columns for batch in answered])
        return self.grouping.group(
            answered, columns, self.identities.answers, resets=self.identities.resets, now_ms=self.now_ms
        )
