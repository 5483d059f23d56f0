"""What all workers know about an endpoint's health and pace."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing yet."""
