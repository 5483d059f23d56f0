"""Sessions of the pages that were ended before their time."""

import sqlalchemy as sa
from alembic import op

from ringbearer.storage import tenancy

revision = "0012"
down_revision = "0011"

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """A table of digests; what would be over anyway is removed again."""
    op.create_table(
        "ended_sessions",
        sa.Column("digest", _ID, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        tenancy.close(connection, "ended_sessions")
