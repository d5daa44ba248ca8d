"""The common step touches no index."""

from sqlalchemy import text

from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.sql_store import SqlStoreTransaction
from tests.kit.stored_runs import RESERVED, apply_trigger, insert_run


async def test_an_ordinary_step_is_a_hot_update(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id)
    async with database.transaction() as tx:
        await apply_trigger(SqlStoreTransaction(tx), run.run_id, RESERVED)
        assert await updates(tx) == (1, 1)


async def updates(tx: SqlAlchemyTransaction) -> tuple[int, int]:
    """Updates of runs in this transaction, and how many of them were HOT."""
    counted = text(
        "SELECT sum(n_tup_upd)::int, sum(n_tup_hot_upd)::int FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'saga_engine' AND relname LIKE 'run\\_%'"
    )
    return tuple((await tx.execute(counted)).one())
