"""How the tables of a database differ from the declared ones."""

import re
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.store.tables import SCHEMA, Xid8, metadata

PARTITION = re.compile(r"(run|event)_(default|\d{4}_\d{2})")


def unpooled_engine(url: str) -> AsyncEngine:
    """An engine that keeps no connection."""
    return create_async_engine(url, poolclass=NullPool)


def drift(connection: Connection) -> list:
    """The differences, as alembic describes them."""

    def ours(_, name: str | None, kind: str, reflected: bool, __) -> bool:
        return not (kind == "table" and reflected and PARTITION.fullmatch(name or ""))

    dialect: Any = connection.dialect  # that of PostgreSQL has the names, the general one has not
    dialect.ischema_names = {**dialect.ischema_names, "xid8": Xid8}
    options = {
        "include_schemas": True,
        "include_object": ours,
        "version_table_schema": SCHEMA,
        "compare_type": True,
    }
    context = MigrationContext.configure(connection, opts=options)
    found: list = compare_metadata(context, metadata)
    return found
