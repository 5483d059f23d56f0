"""How the latest calls of endpoints that fail went, so that workers judge them together."""

import sqlalchemy as sa
from alembic import op

from ringbearer.storage import tenancy

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Create the table."""
    identity = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "breaker_calls",
        sa.Column("endpoint_id", identity, nullable=False),
        sa.Column("calls", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id"),
    )
    if op.get_bind().dialect.name == "postgresql":
        tenancy.close(op.get_bind(), "breaker_calls")
