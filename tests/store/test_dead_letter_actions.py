"""What operators do with dead letters: redrive, discard and purge."""

import asyncio

import pytest
from sqlalchemy import text

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store import dead_letter_actions, dead_letter_queries
from saga_engine.store.database import Database
from saga_engine.store.dead_letter_queries import ALL_DEAD_LETTERS, DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetterState
from tests.kit.dead_letters import malformed_reply, record_dead_letters, record_reasons
from tests.kit.read_blocks import BLOCKS


async def test_a_dead_letter_is_redriven_or_discarded_once(database: Database):
    one, two = await record_dead_letters(database, malformed_reply(), malformed_reply())
    async with database.transaction() as tx:
        assert await dead_letter_actions.lock_open(tx, [one.id, two.id]) == [one, two]
        assert (
            await dead_letter_actions.mark_redriven(tx, [one.id], operator="ada", reason="fixed")
            == 1
        )
        assert (
            len(
                await dead_letter_actions.mark_discarded(
                    tx, [one.id, two.id], operator="ada", reason="junk"
                )
            )
            == 1
        )
        assert await dead_letter_actions.lock_open(tx, [one.id, two.id]) == []
        states = {
            each.id: each
            for each in await dead_letter_queries.read_page(tx, ALL_DEAD_LETTERS, limit=9)
        }
    assert (states[one.id].state, states[one.id].resolved_reason) == ("redriven", "fixed")
    assert (states[two.id].state, states[two.id].resolved_by) == ("discarded", "ada")


async def test_a_purge_records_which_dead_letters_it_deleted(database: Database):
    letters = [malformed_reply(), malformed_reply(), malformed_reply(DeadLetterReason.TOO_LARGE)]
    ids = [each.id for each in await record_dead_letters(database, *letters)]
    async with database.transaction() as tx:
        assert (
            await dead_letter_actions.purge(tx, [*ids, 10**9], operator="ann", reason="space") == 3
        )
        said = await tx.execute(text("SELECT target FROM saga_engine.audit ORDER BY target"))
    assert list(said.scalars()) == [
        f"1 dead letters of saga.replies (too_large), ids {ids[2]} to {ids[2]}",
        f"2 dead letters of saga.replies (malformed_json), ids {ids[0]} to {ids[1]}",
    ]


@pytest.mark.parametrize("action", ["mark_discarded", "purge"])
async def test_two_operators_that_resolve_the_same_dead_letters_do_not_deadlock(
    database: Database, action
):
    """The letters lie in another order on disk than their ids say."""
    ids = [each.id for each in await record_dead_letters(database, *[malformed_reply()] * 3)]
    async with database.transaction() as tx:
        for number in reversed(ids):
            await tx.execute(
                text("UPDATE saga_engine.dead_letter SET detail = 'x' WHERE id = :id"),
                {"id": number},
            )
    resolve = getattr(dead_letter_actions, action)
    async with database.transaction() as second, asyncio.TaskGroup() as group:
        await second.execute(text("SET LOCAL enable_indexscan = off"))
        await second.execute(text("SET LOCAL enable_bitmapscan = off"))
        async with database.transaction() as first:
            await first.execute(HOLD, {"id": ids[0]})
            group.create_task(resolve(second, ids, operator="ann", reason="known bug"))
            await until_one_waits(database)
            await first.execute(HOLD, {"id": ids[2]})


HOLD = text("SELECT FROM saga_engine.dead_letter WHERE id = :id FOR UPDATE NOWAIT")


async def until_one_waits(database: Database) -> None:
    """Wait until a transaction waits for a row of another."""
    async with asyncio.timeout(60):
        waiting = 0
        while not waiting:
            async with database.transaction() as tx:
                waiting = (await tx.execute(WAITS)).scalar_one()


WAITS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND datname = current_database()"
)


async def test_discarding_many_dead_letters_reads_no_body(database: Database):
    """Two hundred bodies of 200 KiB would be five thousand pages."""
    async with database.transaction() as tx:
        await tx.execute(
            text("ALTER TABLE saga_engine.dead_letter ALTER body SET STORAGE EXTERNAL")
        )
        ids = await record_reasons(tx, *[DeadLetterReason.BAD_REQUEST] * 200, size=200 * 1024)
    async with database.transaction() as tx:
        before = (await tx.execute(BLOCKS)).scalar_one()
        assert (
            await dead_letter_queries.find_ids(
                tx, DeadLetterFilter(state=DeadLetterState.OPEN), limit=1000
            )
            == ids
        )
        assert (
            len(
                await dead_letter_actions.mark_discarded(
                    tx, ids, operator="ann", reason="known bug"
                )
            )
            == 200
        )
        assert (await tx.execute(BLOCKS)).scalar_one() - before < 4000
