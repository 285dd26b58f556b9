"""Events for which the kernel ran no program: a loss with a name of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite writes an added column on the last line; made anew, the table reads as the schema would create it.
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("agent_loss", recreate="always" if on_sqlite else "auto") as table:
        table.add_column(sa.Column("program_missed", sa.BigInteger(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("agent_loss") as table:
        table.drop_column("program_missed")
