"""How Alembic runs here: always on the connection that `aggregator.store.migrate` hands over."""

from alembic import context

from aggregator.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
    include_object=context.config.attributes["include_object"],
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
)

with context.begin_transaction():
    context.run_migrations()
