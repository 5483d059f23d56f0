"""What all workers know about an endpoint's health and pace, and what a supplier may have under way."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the circuit breakers and their clock; give suppliers limits of their own."""
    identity = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "breakers",
        sa.Column("endpoint_id", identity, nullable=False),
        sa.Column("supplier_id", identity, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("forced", sa.Text(), nullable=True),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("opened", sa.Integer(), nullable=False),
        sa.Column("probe_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id"),
    )
    op.create_index("breakers_version", "breakers", ["version"], unique=False)
    op.create_table(
        "breaker_clock",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("suppliers", sa.Column("rate_requests", sa.Integer(), nullable=True))
    op.add_column("suppliers", sa.Column("rate_period", sa.Float(), nullable=True))
    op.add_column("suppliers", sa.Column("max_concurrency", sa.Integer(), nullable=True))
