"""The common step touches no index."""

from sqlalchemy import text

from saga_engine.decider.triggers import ReplyReceived
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.stored_runs import apply_trigger, insert_run

RESERVED = ReplyReceived(
    step="reserve",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.SUCCEEDED,
    body={"id": "r-1", "n": 1.5},
)


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
