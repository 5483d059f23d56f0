"""The configuration's version: one number that grows with each change, so that caches can ask what changed."""

from sqlalchemy import Connection, update

from ringbearer.storage import schema


def next_version(connection: Connection) -> int:
    """Take the next version; whoever changes the configuration at the same time waits here for its turn."""
    row = schema.config_version
    version: int = connection.execute(
        update(row).values(version=row.c.version + 1).returning(row.c.version)
    ).scalar_one()
    return version
