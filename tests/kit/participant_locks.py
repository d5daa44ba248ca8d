"""A lock that a transaction of a participant holds, and whether it is free again."""

import asyncio

from sqlalchemy import text


async def hold_lock(database, then, seconds=8):
    """Lock something in a transaction, call `then` with it, and commit."""
    async with asyncio.timeout(seconds), database.transaction() as tx:
        await tx.connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
        await then(tx)


async def is_lock_free(database, seconds=8):
    """Whether what `hold_lock` has locked is free now."""
    async with asyncio.timeout(seconds), database.transaction() as tx:
        return await tx.connection.scalar(text("SELECT pg_try_advisory_xact_lock(7)"))
