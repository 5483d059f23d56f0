"""What was forecast of each hour a day before it came."""

import sqlalchemy as sa
from alembic import op

from ringbearer.storage import tenancy

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """One row for each hour; for the owner alone."""
    op.create_table(
        "forecasts",
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("expected", sa.Float(), nullable=False),
        sa.Column("upper", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("at"),
    )
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        tenancy.close(connection, "forecasts")
