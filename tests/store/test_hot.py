"""The common step touches no index."""

from sqlalchemy import text

from saga_engine.decider.triggers import Replied
from saga_engine.store.database import Database, Transaction
from saga_engine.vocabulary import Direction, Outcome
from tests.store.orders import begin, happen

RESERVED = Replied("reserve", Direction.ACTION, 1, Outcome.SUCCEEDED, {"id": "r-1", "n": 1.5})


async def test_an_ordinary_step_is_a_hot_update(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await begin(tx, definition_id)
    async with database.transaction() as tx:
        await happen(tx, run.run_id, RESERVED)
        assert await updates(tx) == (1, 1)


async def updates(tx: Transaction) -> tuple[int, int]:
    """Updates of runs in this transaction, and how many of them were HOT."""
    counted = text(
        "SELECT sum(n_tup_upd)::int, sum(n_tup_hot_upd)::int FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'saga_engine' AND relname LIKE 'run\\_%'"
    )
    return tuple((await tx.execute(counted)).one())
