"""
How alembic runs the migrations: on the connection of `saga_engine.store.migrate`, or as a script.

`versions/` and `events/` are two lineages, each with a version table of its own (`store.schema`).
These are in the schema of the engine, apart from that of the user's own migrations.
"""

from alembic import context
from sqlalchemy import text

from saga_engine.store.schema import ENGINE
from saga_engine.store.tables import SCHEMA, metadata

_CREATE_SCHEMA = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"

connection = context.config.attributes.get("connection")
version_table = context.config.attributes.get("version_table", ENGINE.version_table)
if connection is None:
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # or every % is doubled, as for a driver
        literal_binds=True,
        target_metadata=metadata,
        version_table=version_table,
        version_table_schema=SCHEMA,
    )
else:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=version_table,
        version_table_schema=SCHEMA,
    )

with context.begin_transaction():
    if connection is None:
        context.execute(_CREATE_SCHEMA)
    else:
        connection.execute(text(_CREATE_SCHEMA))
    context.run_migrations()
