"""
What the services really did, in their own database and in their own words.

Each effect is one row, written in the transaction of the command that caused it. The demo and the
tests compare it with what the engine says: it knows nothing of the engine.
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
    """The services' database; its ledger is made with the first connection."""
    if not DATABASE_URL:
        raise RuntimeError(
            "neither PLACE_ORDER_DATABASE_URL nor SAGA_ENGINE_DATABASE_URL is set, and the"
            " services keep their ledger there"
        )
    engine = create_async_engine(DATABASE_URL, pool_size=20, max_overflow=0)
    event.listen(engine.sync_engine, "first_connect", _create_effect_log)
    return engine


async def record_effect(tx: AsyncConnection, order_id: str, effect: str) -> None:
    """Write down one effect."""
    await tx.execute(insert(effect_log).values(order_id=order_id, effect=effect))


async def count_effects(url: str) -> dict[str, Counter[str]]:
    """How often each effect happened, by order: what an auditor sees."""
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
