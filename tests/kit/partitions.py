"""Partitions, and finished runs in one of the past."""

from datetime import UTC, datetime

from sqlalchemy import text

from saga_engine.store import (
    business_keys,
)
from saga_engine.store.business_keys import KeyRequest
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.sql_store import SqlStoreTransaction
from tests.kit.stored_runs import CHARGED, INPUT, RESERVED, apply_trigger, insert_run

PAST = datetime(2020, 1, 31, 23, 59, 59, tzinfo=UTC)


async def partitions_of(tx: SqlAlchemyTransaction, suffix: str) -> set[str]:
    """The names of the partitions that end so."""
    named = text("SELECT relname FROM pg_class WHERE relname LIKE '%' || CAST(:suffix AS text)")
    return set((await tx.execute(named, {"suffix": suffix})).scalars())


async def insert_finished_run(
    database: Database, definition_id: int, days: int = 365, key: str | None = "k"
) -> str:
    """Insert a run that started in `PAST` and finished so many days ago; return its id."""
    async with database.transaction() as tx:
        await add_past_month(tx)
        run_id = (await insert_run(SqlStoreTransaction(tx), definition_id, key=key, at=PAST)).run_id
        if key is not None:
            await business_keys.try_reserve(tx, [KeyRequest("place-order", key, run_id, INPUT)])
        for trigger in (RESERVED, CHARGED):
            await apply_trigger(SqlStoreTransaction(tx), run_id, trigger)
        await tx.execute(
            text(
                "UPDATE saga_engine.run SET finished_at = clock_timestamp()"
                " - make_interval(days => CAST(:days AS integer))"
                " WHERE run_id = CAST(:run_id AS uuid)"
            ),
            {"days": days, "run_id": run_id},
        )
    return run_id


async def add_past_month(tx: SqlAlchemyTransaction) -> None:
    """Add the partitions of the month of `PAST`."""
    for parent in ("run", "journal"):
        add = text(
            "SELECT saga_engine.add_month_partition(CAST(:parent AS text), timestamp '2020-01-01')"
        )
        await tx.execute(add, {"parent": parent})
