"""Endpoints say how they like to be called: payload profile, encoding, order, TLS, authentication."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the options, which the version before leaves at their defaults, and the sealed credentials."""
    op.add_column(
        "endpoints", sa.Column("options", sa.Text(), nullable=False, server_default=sa.text("'{}'"))
    )
    op.add_column("endpoints", sa.Column("credentials_sealed", sa.LargeBinary(), nullable=True))
