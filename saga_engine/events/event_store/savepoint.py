"""A savepoint: undo a part of a transaction that failed, and go on with the transaction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from saga_engine.postgres.statement import text
from saga_engine.store.database import SqlAlchemyTransaction


@asynccontextmanager
async def savepoint(tx: SqlAlchemyTransaction) -> AsyncIterator[None]:
    """Undo what the block did in the database if it raises, while the transaction is open."""
    await tx.execute(_SAVEPOINT)
    try:
        yield
        await tx.execute(_RELEASE)  # fails if the block has caught an error of a statement
    except Exception:
        if tx.is_open:
            await tx.execute(_ROLLBACK)
        raise


_SAVEPOINT = text("SAVEPOINT projection_events")
_ROLLBACK = text("ROLLBACK TO SAVEPOINT projection_events")
_RELEASE = text("RELEASE SAVEPOINT projection_events")
