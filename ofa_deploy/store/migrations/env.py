"""Alembic's entry: runs the revisions on the connection that ``database.migrate`` hands over."""

from alembic import context

from ofa_deploy.store.schema import Base

# the caller has begun the transaction, so that two processes cannot migrate at once
context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
