"""How the tables of a database differ from the declared ones."""

import re
from collections.abc import Sequence
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.events.event_store.consumer_tables import consumer
from saga_engine.store import tables
from saga_engine.store.schema import ENGINE_DATABASE
from saga_engine.store.tables import SCHEMA

VERSION_TABLES = {lineage.version_table for lineage in ENGINE_DATABASE}
PARTITION = re.compile(r"(run|journal)_(default|\d{4}_\d{2})")


def unpooled_engine(url: str) -> AsyncEngine:
    """An engine that keeps no connection."""
    return create_async_engine(url, poolclass=NullPool)


def drift(
    connection: Connection, declared: Sequence[MetaData] = (tables.metadata, consumer.metadata)
) -> list:
    """The differences, as alembic describes them."""

    def ours(_, name: str | None, kind: str, reflected: bool, __) -> bool:
        made = PARTITION.fullmatch(name or "") or name in VERSION_TABLES
        return not (kind == "table" and reflected and made)

    options = {
        "include_schemas": True,
        "include_object": ours,
        "version_table_schema": SCHEMA,
        "compare_type": True,
    }
    context = MigrationContext.configure(connection, opts=options)
    several: Any = list(declared)  # its annotation names one, and it takes several as well
    found: list = compare_metadata(context, several)
    return found
