"""What people should hear of once: drift, and links that policies deny although they live."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "event",
        sa.Column("cluster_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("episode", sa.Text(), nullable=False),
        sa.Column("link_key", sa.Text(), nullable=False),
        sa.Column("src_namespace", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("dst_namespace", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("found_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ended", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("told_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", "event_id", name=op.f("pk_event")),
    )
    op.create_index("ix_event_found", "event", ["cluster_id", "found_ms"])
    op.create_index("ix_event_ended", "event", ["cluster_id", "ended"])
    op.create_index("ix_event_told", "event", ["cluster_id", "told_ms"])


def downgrade() -> None:
    op.drop_table("event")
