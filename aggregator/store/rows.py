"""Deltas as rows: how each value of a Merge is spelled in its table. The key's columns come first in every row."""

from typing import Any

from aggregator.model.workload import LinkEnd, Workload
from aggregator.store.deltas import (
    AgentDelta,
    AttemptDelta,
    EvidenceSighting,
    GapDelta,
    LinkSighting,
    LossDelta,
    PendingFlow,
    QuarantinedBatch,
    RefusalDelta,
)
from aggregator.store.keys import as_signed, cluster_id_of
from aggregator.store.schema import LOSSES

Row = dict[str, Any]


def link_row(sighting: LinkSighting) -> Row:
    link = sighting.link
    return {
        "cluster_id": cluster_id_of(link.src.cluster),
        "link_id": sighting.link_id,
        "key": sighting.key,
        **_end("src", link.src),
        **_end("dst", link.dst),
        "sides": int(sighting.sides),
        "established": sighting.established,
        "high_confidence": sighting.high_confidence,
        "probe_only": sighting.probe_only,
        "first_seen_ms": sighting.first_seen_ms,
        "last_seen_ms": sighting.last_seen_ms,
    }


def _end(prefix: str, end: LinkEnd) -> Row:
    namespace, kind, name = (end.namespace, end.kind, end.name) if isinstance(end, Workload) else ("", "", "")
    return {f"{prefix}_namespace": namespace, f"{prefix}_kind": kind, f"{prefix}_name": name}


def evidence_row(sighting: EvidenceSighting) -> Row:
    return {
        "cluster_id": cluster_id_of(sighting.cluster),
        "link_id": sighting.link_id,
        "kind": int(sighting.kind),
        "value": sighting.value,
        "first_seen_ms": sighting.first_seen_ms,
        "last_seen_ms": sighting.last_seen_ms,
    }


def attempt_row(delta: AttemptDelta) -> Row:
    return {
        "link_id": delta.link_id,
        "bucket_minute": delta.bucket_minute,
        "cluster_id": cluster_id_of(delta.cluster),
        "outcome": delta.outcome,
        "attempts": delta.attempts,
    }


def pending_row(flow: PendingFlow) -> Row:
    return {
        "cluster_id": cluster_id_of(flow.key.cluster),
        "agent_id": flow.key.agent_id,
        "epoch": as_signed(flow.key.epoch),
        "seq": flow.key.seq,
        "row": flow.key.row,
        "identity": flow.identity,
        "process": flow.process,
        "at_ms": flow.at_ms,
        "first_seen_ms": flow.first_seen_ms,
        "last_seen_ms": flow.last_seen_ms,
        "deadline_ms": flow.deadline_ms,
        "count": flow.count,
        "tx_bytes": flow.tx_bytes,
        "rx_bytes": flow.rx_bytes,
    }


def gap_row(gap: GapDelta) -> Row:
    return {
        "cluster_id": cluster_id_of(gap.key.cluster),
        "agent_id": gap.key.agent_id,
        "epoch": as_signed(gap.key.epoch),
        "from_seq": gap.from_seq,
        "to_seq": gap.to_seq,
        "reason": gap.reason,
        "flow_records": gap.flow_records,
        "at_ms": gap.at_ms,
    }


def quarantine_row(batch: QuarantinedBatch) -> Row:
    return {
        "cluster_id": cluster_id_of(batch.key.cluster),
        "agent_id": batch.key.agent_id,
        "epoch": as_signed(batch.key.epoch),
        "seq": batch.seq,
        "reason": batch.reason,
        "message": batch.message,
        "at_ms": batch.at_ms,
    }


def loss_row(delta: LossDelta) -> Row:
    return {
        "cluster_id": cluster_id_of(delta.cluster),
        "agent_id": delta.agent_id,
        "bucket_minute": delta.bucket_minute,
        **dict(zip(LOSSES, delta.losses, strict=True)),
    }


def refusal_row(delta: RefusalDelta) -> Row:
    return {
        "cluster_id": cluster_id_of(delta.cluster),
        "agent_id": delta.agent_id,
        "bucket_minute": delta.bucket_minute,
        "reason": delta.reason,
        "flow_records": delta.flow_records,
        "count": delta.count,
    }


def agent_row(delta: AgentDelta) -> Row:
    return {
        "cluster_id": cluster_id_of(delta.cluster),
        "agent_id": delta.agent_id,
        "last_batch_ms": delta.last_batch_ms,
        "flow_records": delta.flow_records,
        "clamped_batches": delta.clamped_batches,
        "rejected_batches": delta.rejected_batches,
    }
