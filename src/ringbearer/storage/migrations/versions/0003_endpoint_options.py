"""Endpoints say how they like to be called: payload profile, encoding, order, TLS, authentication, version."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the options, which the version before leaves at their defaults, and the sealed credentials."""
    op.add_column(
        "endpoints", sa.Column("options", sa.Text(), nullable=False, server_default=sa.text("'{}'"))
    )
    op.add_column("endpoints", sa.Column("credentials_sealed", sa.LargeBinary(), nullable=True))
    op.add_column("endpoints", sa.Column("event_version", sa.Text(), nullable=True))
    op.create_table(
        "event_shapes",
        sa.Column("event_type", _ID, nullable=False),
        sa.Column("version", _ID, nullable=False),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_type", "version"),
    )
