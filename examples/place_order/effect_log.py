"""
The effect log: what the services did, in their own database.

Each effect is one row, written in the transaction of the command that caused it. The services write
it without the engine, so the demo and the tests can compare it with the statuses of the runs.
"""

import os
from collections import Counter
from typing import Any

from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Text, event, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

DATABASE_URL = os.environ.get("PLACE_ORDER_DATABASE_URL") or os.environ.get(
    "SAGA_ENGINE_DATABASE_URL"
)

metadata = MetaData()
effect_log = Table(
    "place_order_effect_log",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("effect", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)


def create_database_engine() -> AsyncEngine:
    """Connect to the services' database; the first connection creates the effect log."""
    if not DATABASE_URL:
        raise RuntimeError(
            "Set PLACE_ORDER_DATABASE_URL or SAGA_ENGINE_DATABASE_URL: the services keep their"
            " effect log there."
        )
    engine = create_async_engine(DATABASE_URL, pool_size=20, max_overflow=0)
    event.listen(engine.sync_engine, "first_connect", _create_effect_log)
    return engine


async def record_effect(tx: AsyncConnection, order_id: str, effect: str) -> None:
    """Insert one effect."""
    await tx.execute(insert(effect_log).values(order_id=order_id, effect=effect))


async def count_effects(url: str) -> dict[str, Counter[str]]:
    """Return how often each effect happened, by order."""
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        rows = (await connection.execute(select(effect_log.c.order_id, effect_log.c.effect))).all()
    await engine.dispose()
    counts: dict[str, Counter[str]] = {}
    for order_id, effect in rows:
        counts.setdefault(order_id, Counter())[effect] += 1
    return counts


def _create_effect_log(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT pg_advisory_lock(7)")  # several processes may start at once
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS place_order_effect_log (id serial PRIMARY KEY,"
        " order_id text NOT NULL, effect text NOT NULL,"
        " at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    connection.commit()
    cursor.execute("SELECT pg_advisory_unlock(7)")
    connection.commit()
    cursor.close()
