"""The tables. What they mean is said here once; the migrations are proven equal to this by a test.

Invariant: every key holds cluster_id, every value of link_activity and link_attempt is an additive delta's sum, and
no id comes from a sequence: any writer computes the same ones. That keeps distribution by cluster_id or link_id open.

Units: *_ms is milliseconds since 1970 (UTC), bucket_minute is minutes since 1970, the start of its bucket; unsigned
64-bit numbers of the protocol (epoch, instance) are kept as the signed number with the same bits.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _whole(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, autoincrement=False)


def _counter(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _cluster() -> Column[int]:
    return Column("cluster_id", Integer, nullable=False, autoincrement=False)


def _word(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text("''"))


# Names of clusters by id; the id is BLAKE2b-32 of the name.
cluster = Table(
    "cluster",
    metadata,
    Column("cluster_id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
)

# ---- links ----------------------------------------------------------------------------------------------------------

# A flow without time. Outlives its activity. `key` is the canonical key that link_id is the hash of.
link = Table(
    "link",
    metadata,
    _cluster(),
    _whole("link_id"),
    Column("key", Text, nullable=False),
    _word("src_namespace"),
    _word("src_kind"),
    _word("src_name"),
    _word("dst_namespace"),
    _word("dst_kind"),
    _word("dst_name"),
    Column("sides", SmallInteger, nullable=False),  # bit 0: a client reported it, bit 1: a server did
    Column("established", Boolean, nullable=False),  # False: only failed attempts so far
    Column("high_confidence", Boolean, nullable=False),  # False: only flows whose direction is uncertain
    Column("probe_only", Boolean, nullable=False),  # True: only probes of the pod's own node
    _whole("first_seen_ms"),
    _whole("last_seen_ms"),
    PrimaryKeyConstraint("cluster_id", "link_id"),
)
Index("ix_link_src", link.c.cluster_id, link.c.src_namespace, link.c.src_name)
Index("ix_link_dst", link.c.cluster_id, link.c.dst_namespace, link.c.dst_name)

# Services on the way, processes and pods of a Link. kind: see evidence.Kind.
link_evidence = Table(
    "link_evidence",
    metadata,
    _cluster(),
    _whole("link_id"),
    Column("kind", SmallInteger, nullable=False),
    Column("value", Text, nullable=False),
    _whole("first_seen_ms"),
    _whole("last_seen_ms"),
    PrimaryKeyConstraint("cluster_id", "link_id", "kind", "value"),
)

COUNTERS = ("client_count", "client_tx_bytes", "client_rx_bytes", "server_count", "server_tx_bytes", "server_rx_bytes")


def _activity(name: str) -> Table:
    """Additive counters of one resolution. On PostgreSQL: range partitions of one day, dropped by retention.

    The key starts with link_id, because eight-byte alignment makes (cluster_id, link_id, bucket_minute) half as large
    again; cluster_id is part of it, which is what distribution needs, and of the hash that link_id is.
    """
    return Table(
        name,
        metadata,
        _whole("link_id"),
        Column("bucket_minute", Integer, nullable=False, autoincrement=False),
        _cluster(),
        *(_counter(counter) for counter in COUNTERS),
        PrimaryKeyConstraint("link_id", "bucket_minute", "cluster_id"),
        # PostgreSQL refuses a sum beyond 64 bits; SQLite would go on in floating point.
        CheckConstraint(" AND ".join(f"{counter} <= {2**63 - 1}" for counter in COUNTERS), name="exact").ddl_if(
            dialect="sqlite"
        ),
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (bucket_minute)",
    )


link_activity_5m = _activity("link_activity_5m")
link_activity_1h = _activity("link_activity_1h")

# Attempts that came to nothing, by the hour and by outcome ("refused", "timed-out", "unreachable", "aborted").
link_attempt = Table(
    "link_attempt",
    metadata,
    _whole("link_id"),
    Column("bucket_minute", Integer, nullable=False, autoincrement=False),
    _cluster(),
    Column("outcome", Text, nullable=False),
    _counter("attempts"),
    PrimaryKeyConstraint("link_id", "bucket_minute", "cluster_id", "outcome"),
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (bucket_minute)",
)

PARTITIONED = (link_activity_5m, link_activity_1h, link_attempt)

# Flows whose pod or address the cluster view does not know yet: one row a flow record, moved to its Link within the
# grace period. Written in the transaction of its batch's cursor.
pending_flow = Table(
    "pending_flow",
    metadata,
    _cluster(),
    Column("agent_id", Text, nullable=False),
    _whole("epoch"),
    _whole("seq"),
    Column("row", Integer, nullable=False, autoincrement=False),
    Column("identity", Text, nullable=False),  # JSON of the FlowIdentity
    Column("process", Text, nullable=False, server_default=text("''")),
    _whole("at_ms"),  # when it was opened: what it is resolved by
    _whole("first_seen_ms"),
    _whole("last_seen_ms"),
    _whole("deadline_ms"),
    _counter("count"),
    _counter("tx_bytes"),
    _counter("rx_bytes"),
    PrimaryKeyConstraint("cluster_id", "agent_id", "epoch", "seq", "row"),
)
Index("ix_pending_flow_deadline", pending_flow.c.deadline_ms)

# ---- agents ---------------------------------------------------------------------------------------------------------

# How far each spool has been committed. `instance` is the process that may move it on: the fence.
agent_cursor = Table(
    "agent_cursor",
    metadata,
    _cluster(),
    Column("agent_id", Text, nullable=False),
    _whole("epoch"),
    _whole("committed_seq"),
    _whole("instance"),
    _whole("used_ms"),
    PrimaryKeyConstraint("cluster_id", "agent_id", "epoch"),
    CheckConstraint("committed_seq >= 0", name="committed_seq"),
)

# What a node is and how it feels: its last report, and what was taken from it.
agent = Table(
    "agent",
    metadata,
    _cluster(),
    Column("agent_id", Text, nullable=False),
    _word("version"),
    _word("kernel"),
    _word("backend"),
    Column("refused", Text, nullable=False, server_default=text("'[]'")),  # JSON list of sentences
    Column("cidr_hints", Text, nullable=False, server_default=text("'[]'")),  # JSON list of [process, flag, value]
    _counter("map_fill_permille"),
    _counter("spool_bytes"),
    _counter("spool_batches"),
    _counter("clock_skew_ms"),  # the node's wall clock minus the aggregator's
    _counter("last_report_ms"),
    _counter("last_batch_ms"),
    _counter("flow_records"),
    _counter("clamped_batches"),  # their interval lay outside what is accepted
    _counter("rejected_batches"),
    PrimaryKeyConstraint("cluster_id", "agent_id"),
)

LOSSES = (
    "map_full",
    "ring_lost",
    "drain_lost",
    "unresolved",
    "spool_evicted",
    "not_a_pod",
    "mesh_loopback",
    "uncounted_udp",
    "program_missed",
)

# What was lost or left out, by agent and hour: readiness looks at its own window.
agent_loss = Table(
    "agent_loss",
    metadata,
    _cluster(),
    Column("agent_id", Text, nullable=False),
    Column("bucket_minute", Integer, nullable=False, autoincrement=False),
    *(_counter(loss) for loss in LOSSES),
    PrimaryKeyConstraint("cluster_id", "agent_id", "bucket_minute"),
)

# Batches that will never come.
agent_gap = Table(
    "agent_gap",
    metadata,
    _cluster(),
    Column("agent_id", Text, nullable=False),
    _whole("epoch"),
    _whole("from_seq"),
    _whole("to_seq"),
    Column("reason", Text, nullable=False),
    _whole("flow_records"),
    _whole("at_ms"),
    PrimaryKeyConstraint("cluster_id", "agent_id", "epoch", "from_seq"),
)

# Batches that could not be accepted, as they came.
quarantine = Table(
    "quarantine",
    metadata,
    _cluster(),
    Column("agent_id", Text, nullable=False),
    _whole("epoch"),
    _whole("seq"),
    Column("reason", Text, nullable=False),
    Column("message", LargeBinary, nullable=False),
    _whole("at_ms"),
    PrimaryKeyConstraint("cluster_id", "agent_id", "epoch", "seq"),
)

# Rows that did not become part of a Link, by hour and reason: "pod-on-other-node", "unknown-pod", ...
flow_refusal = Table(
    "flow_refusal",
    metadata,
    _cluster(),
    Column("agent_id", Text, nullable=False),
    Column("bucket_minute", Integer, nullable=False, autoincrement=False),
    Column("reason", Text, nullable=False),
    _counter("flow_records"),
    _counter("count"),
    PrimaryKeyConstraint("cluster_id", "agent_id", "bucket_minute", "reason"),
)

# ---- the cluster's past, and notes ----------------------------------------------------------------------------------

episode = Table(
    "episode",
    metadata,
    _cluster(),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    _whole("began_ms"),
    Column("ended_ms", BigInteger),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("cluster_id", "key"),
)
Index("ix_episode_ended", episode.c.ended_ms)

# ---- what people said -----------------------------------------------------------------------------------------------

# One entry a version, never changed. `body` is the decision as JSON, or empty where `undoes` says what is taken back.
decision = Table(
    "decision",
    metadata,
    _cluster(),
    _whole("version"),
    _whole("at_ms"),
    Column("author", Text, nullable=False),
    _word("reason"),
    _word("body"),
    Column("undoes", BigInteger),
    PrimaryKeyConstraint("cluster_id", "version"),
)

# The proposal of a scope that somebody submitted, by the digest of its YAML, and who approved it. One row a scope.
sign_off = Table(
    "sign_off",
    metadata,
    _cluster(),
    Column("scope", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("submitted_by", Text, nullable=False),
    _whole("submitted_ms"),
    _word("reason"),
    _word("approved_by"),
    _counter("approved_ms"),
    PrimaryKeyConstraint("cluster_id", "scope"),
)

# What people should hear of once. The id is BLAKE2b-64 of kind, subject, episode and link: found again it is the same
# row. `ended` "" = it still holds; told_ms 0 = the webhook has not taken it yet.
event = Table(
    "event",
    metadata,
    _cluster(),
    _whole("event_id"),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("episode", Text, nullable=False),
    Column("link_key", Text, nullable=False),
    _word("src_namespace"),
    _word("dst_namespace"),
    _whole("found_ms"),
    _whole("seen_ms"),
    _word("ended"),
    _counter("ended_ms"),
    _counter("told_ms"),
    Column("body", Text, nullable=False),  # JSON: text, evidence, explanation, cause, command
    PrimaryKeyConstraint("cluster_id", "event_id"),
)
Index("ix_event_found", event.c.cluster_id, event.c.found_ms)
Index("ix_event_ended", event.c.cluster_id, event.c.ended)
Index("ix_event_told", event.c.cluster_id, event.c.told_ms)

# Policies on watch: what they would deny of what is in use becomes events, until `ends_ms`, or `stopped_ms` where a
# person stopped it before.
policy_watch = Table(
    "policy_watch",
    metadata,
    _cluster(),
    Column("watch_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("yaml", Text, nullable=False),
    Column("author", Text, nullable=False),
    _word("reason"),
    _whole("began_ms"),
    _whole("ends_ms"),
    _counter("stopped_ms"),
    PrimaryKeyConstraint("cluster_id", "watch_id"),
)

# One value a name: when recording began, the last retention run.
note = Table(
    "note",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
