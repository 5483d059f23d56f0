"""Alembic's entry: runs revisions over the connection that `storage.migration` hands in."""

from alembic import context

from ringbearer.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
