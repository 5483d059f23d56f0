"""Endpoints say how they like to be called."""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Nothing yet."""
