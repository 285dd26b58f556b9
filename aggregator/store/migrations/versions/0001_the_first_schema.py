"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

EXACT = " AND ".join(
    f"{side}_{counter} <= {2**63 - 1}" for side in ("client", "server") for counter in ("count", "tx_bytes", "rx_bytes")
)


def upgrade() -> None:
    op.create_table(
        "agent",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("kernel", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("backend", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("refused", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("cidr_hints", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("map_fill_permille", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("spool_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("spool_batches", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("clock_skew_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_report_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_batch_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("flow_records", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("clamped_batches", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rejected_batches", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "agent_id", name=op.f("pk_agent")),
    )
    op.create_table(
        "agent_cursor",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("committed_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("instance", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("used_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.CheckConstraint("committed_seq >= 0", name=op.f("ck_agent_cursor_committed_seq")),
        sa.PrimaryKeyConstraint("cluster_id", "agent_id", "epoch", name=op.f("pk_agent_cursor")),
    )
    op.create_table(
        "agent_gap",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("from_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("to_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("flow_records", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "agent_id", "epoch", "from_seq", name=op.f("pk_agent_gap")),
    )
    op.create_table(
        "agent_loss",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("bucket_minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("map_full", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("ring_lost", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("drain_lost", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unresolved", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("spool_evicted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_a_pod", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("mesh_loopback", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("uncounted_udp", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "agent_id", "bucket_minute", name=op.f("pk_agent_loss")),
    )
    op.create_table(
        "cluster",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", name=op.f("pk_cluster")),
        sa.UniqueConstraint("name", name=op.f("uq_cluster_name")),
    )
    op.create_table(
        "episode",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("began_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "key", name=op.f("pk_episode")),
    )
    with op.batch_alter_table("episode", schema=None) as batch_op:
        batch_op.create_index("ix_episode_ended", ["ended_ms"], unique=False)

    op.create_table(
        "flow_refusal",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("bucket_minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("flow_records", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "agent_id", "bucket_minute", "reason", name=op.f("pk_flow_refusal")),
    )
    op.create_table(
        "link",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("link_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("src_namespace", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("src_kind", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("src_name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("dst_namespace", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("dst_kind", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("dst_name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("sides", sa.SmallInteger(), nullable=False),
        sa.Column("established", sa.Boolean(), nullable=False),
        sa.Column("high_confidence", sa.Boolean(), nullable=False),
        sa.Column("probe_only", sa.Boolean(), nullable=False),
        sa.Column("first_seen_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "link_id", name=op.f("pk_link")),
    )
    with op.batch_alter_table("link", schema=None) as batch_op:
        batch_op.create_index("ix_link_dst", ["cluster_id", "dst_namespace", "dst_name"], unique=False)
        batch_op.create_index("ix_link_src", ["cluster_id", "src_namespace", "src_name"], unique=False)

    op.create_table(
        "link_activity_1h",
        sa.Column("link_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bucket_minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("client_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("client_tx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("client_rx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("server_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("server_tx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("server_rx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("link_id", "bucket_minute", "cluster_id", name=op.f("pk_link_activity_1h")),
        sa.CheckConstraint(EXACT, name=op.f("ck_link_activity_1h_exact")).ddl_if(dialect="sqlite"),
        postgresql_partition_by="RANGE (bucket_minute)",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "link_activity_5m",
        sa.Column("link_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bucket_minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("client_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("client_tx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("client_rx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("server_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("server_tx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("server_rx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("link_id", "bucket_minute", "cluster_id", name=op.f("pk_link_activity_5m")),
        sa.CheckConstraint(EXACT, name=op.f("ck_link_activity_5m_exact")).ddl_if(dialect="sqlite"),
        postgresql_partition_by="RANGE (bucket_minute)",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "link_attempt",
        sa.Column("link_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bucket_minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("link_id", "bucket_minute", "cluster_id", "outcome", name=op.f("pk_link_attempt")),
        postgresql_partition_by="RANGE (bucket_minute)",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "link_evidence",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("link_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("first_seen_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "link_id", "kind", "value", name=op.f("pk_link_evidence")),
    )
    op.create_table(
        "note",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_note")),
    )
    op.create_table(
        "pending_flow",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_seen_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rx_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "agent_id", "epoch", "seq", "row", name=op.f("pk_pending_flow")),
    )
    with op.batch_alter_table("pending_flow", schema=None) as batch_op:
        batch_op.create_index("ix_pending_flow_deadline", ["deadline_ms"], unique=False)

    op.create_table(
        "quarantine",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "agent_id", "epoch", "seq", name=op.f("pk_quarantine")),
    )


def downgrade() -> None:
    op.drop_table("quarantine")
    with op.batch_alter_table("pending_flow", schema=None) as batch_op:
        batch_op.drop_index("ix_pending_flow_deadline")

    op.drop_table("pending_flow")
    op.drop_table("note")
    op.drop_table("link_evidence")
    op.drop_table("link_attempt")
    op.drop_table("link_activity_5m")
    op.drop_table("link_activity_1h")
    with op.batch_alter_table("link", schema=None) as batch_op:
        batch_op.drop_index("ix_link_src")
        batch_op.drop_index("ix_link_dst")

    op.drop_table("link")
    op.drop_table("flow_refusal")
    with op.batch_alter_table("episode", schema=None) as batch_op:
        batch_op.drop_index("ix_episode_ended")

    op.drop_table("episode")
    op.drop_table("cluster")
    op.drop_table("agent_loss")
    op.drop_table("agent_gap")
    op.drop_table("agent_cursor")
    op.drop_table("agent")
