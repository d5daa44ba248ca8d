import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.store import dead_letter_actions, dead_letter_queries, dead_letters
from saga_engine.store.database import Database
from saga_engine.store.dead_letter_queries import ALL_DEAD_LETTERS, DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetter, DeadLetterState
from tests.kit.stored_runs import run_id
from tests.store.test_unrelated_rows import BLOCKS, ONE_MORE


def letter(reason: str = "unreadable", **fields: Any) -> DeadLetter:
    return DeadLetter(
        queue="saga.replies",
        reason=reason,
        detail="It is not JSON.",
        body=b"{",
        body_size=1,
        **fields,
    )


async def add(database: Database, *letters: DeadLetter, keep: int = 100) -> list:
    async with database.transaction() as tx:
        await dead_letters.record(tx, letters, keep)
        return (await dead_letter_queries.read_page(tx, limit=100))[::-1]


async def test_a_dead_letter_is_kept_as_it_came(database: Database):
    kept = letter(
        run_id=run_id(), message_id="m", correlation_id="c", type="t", exchange="e",
        routing_key="r", properties={"app_id": "x"}, headers={"n": [1, {"a": None}]},
    )  # fmt: skip
    [found] = await add(database, kept)
    assert found.message == kept
    assert (found.state, found.truncated) == ("open", False)
    async with database.transaction() as tx:
        assert await dead_letter_queries.find(tx, found.id) == found
        assert await dead_letter_queries.find(tx, found.id + 1) is None
        await dead_letters.record(tx, [], 1)


DEEP: list = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "hostile",
    [
        {"message_id": "a\x00b"},
        {"type": "\ud800"},
        {"headers": {"a\x00b": "\udfff", "c": {"d": "\x00"}}},
        {"headers": {"big": 2**80, "small": -(2**80), "nan": float("nan"), "inf": float("inf")}},
        {"headers": {"bytes": b"\xff\x00", "object": object(), 1: 2}},
        {"headers": {"deep": DEEP}},
        {"properties": {"\ud800": "\ud800\x00"}},
        {"run_id": "not a uuid\x00"},
        {"routing_key": "x" * 300_000},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_nothing_a_sender_sends_keeps_it_from_being_recorded(database: Database, hostile):
    assert len(await add(database, letter(**hostile))) == 1


async def test_a_long_body_is_cut_and_marked(database: Database):
    long = DeadLetter(queue="q", reason="too_long", detail="", body=b"x" * 11, body_size=11)
    cut_before = DeadLetter(
        queue="q", reason="too_long", detail="", body=b"x" * 10, body_size=20_000_000
    )
    exact = DeadLetter(queue="q", reason="too_long", detail="", body=b"x" * 10, body_size=10)
    found = await add(database, long, cut_before, exact, keep=10)
    assert [each.truncated for each in found] == [True, True, False]
    assert {each.message.body for each in found} == {b"x" * 10}
    assert [each.message.body_size for each in found] == [11, 20_000_000, 10]


async def test_letters_are_grouped_by_queue_reason_and_type(database: Database):
    await add(database, *[letter(type="a", message_id=m) for m in "123"], letter(type="b"))
    async with database.transaction() as tx:
        found = await dead_letter_queries.groups(tx)
    assert [(group.reason, group.type, group.count) for group in found] == [
        *(("unreadable", "a", 3), ("unreadable", "b", 1)),
    ]


async def test_a_letter_is_redriven_or_discarded_once(database: Database):
    one, two = await add(database, letter(), letter())
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


async def test_letters_are_listed_newest_first_by_page_and_by_what_is_asked(database: Database):
    found = await add(database, letter("a"), letter("b"), letter("a"))
    ids = [each.id for each in found]
    async with database.transaction() as tx:

        async def page_ids(before_id: int | None = None, **fields: Any) -> list[int]:
            selected = DeadLetterFilter(state=DeadLetterState.OPEN, **fields)
            found = await dead_letter_queries.read_page(tx, selected, limit=2, before_id=before_id)
            return [each.id for each in found]

        assert await page_ids() == ids[:0:-1]
        assert await page_ids(before_id=ids[1]) == [ids[0]]
        assert await page_ids(reason="a") == [ids[2], ids[0]]
        assert await page_ids(queue="other") == []


FULL_LONG_AGO = text(
    "UPDATE saga_engine.dead_letter_dropped"
    " SET quota_reached_at = quota_reached_at - interval '6 seconds'"
)


async def test_beyond_the_quota_of_one_sender_letters_are_counted_and_not_kept(database: Database):
    def of(sender: str, reason: str = "bad_request") -> DeadLetter:
        return DeadLetter(
            queue="q",
            reason=reason,
            detail="",
            body=b"{}",
            body_size=2,
            properties={"user_id": sender},
        )

    async with database.transaction() as tx:
        await dead_letters.record(tx, [of("shop")] * 3, 9, quota=4)
        await dead_letters.record(tx, [of("shop")] * 3 + [of("desk")] * 2, 9, quota=4)
        await dead_letters.record(tx, [of("shop"), of("shop", "other")], 9, quota=4)
        kept = await dead_letter_queries.read_page(tx, limit=99)
        assert Counter(each.message.properties["user_id"] for each in kept) == {
            "shop": 5,
            "desk": 2,
        }
        assert await dead_letters.read_dropped(tx) == {("q", "bad_request", "shop"): 3}
        shops = [each.id for each in kept if each.message.reason == "bad_request"]
        await dead_letter_actions.mark_discarded(tx, shops, operator="ann", reason="known bug")
        await tx.execute(FULL_LONG_AGO)
        await dead_letters.record(tx, [of("shop")], 9, quota=4)
        assert len(await dead_letter_queries.read_page(tx, limit=99)) == 2, "there is room again"


MANY_SETTLED = text(
    """
    INSERT INTO saga_engine.dead_letter (state, queue, reason, detail, message_id, correlation_id,
        type, exchange, routing_key, properties, headers, body, body_size, truncated, fingerprint,
        resolved_at)
    SELECT 'discarded', 'saga.replies', 'a', '', '', '', '', '', '', '{}', '{}', '', 0, false, '',
        clock_timestamp()
    FROM generate_series(1, 20000)"""
)


async def test_the_open_letters_are_found_without_reading_those_that_are_settled(
    database: Database,
):
    await add(database, letter("a"))
    async with database.transaction() as tx:
        await tx.execute(MANY_SETTLED)
    async with database.transaction() as tx:
        await tx.execute(text("ANALYZE saga_engine.dead_letter"))
        await tx.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        before = (await tx.execute(BLOCKS)).scalar_one()
        assert len(await dead_letter_queries.read_page(tx, limit=50)) == 1
        assert (await dead_letter_queries.count(tx, count_limit=1000)).count == 1
        assert (await tx.execute(BLOCKS)).scalar_one() - before < ONE_MORE


async def test_a_purge_says_which_letters_it_deletes(database: Database):
    letters = [letter("a"), letter("a"), letter("b")]
    ids = [each.id for each in await add(database, *letters)]
    async with database.transaction() as tx:
        assert (
            await dead_letter_actions.purge(tx, [*ids, 10**9], operator="ann", reason="space") == 3
        )
        said = await tx.execute(text("SELECT target FROM saga_engine.audit ORDER BY target"))
    assert list(said.scalars()) == [
        f"1 dead letters of saga.replies (b), ids {ids[2]} to {ids[2]}",
        f"2 dead letters of saga.replies (a), ids {ids[0]} to {ids[1]}",
    ]


async def test_a_kind_that_is_full_is_not_counted_anew_for_some_seconds(database: Database):
    await add(database, *[letter("a")] * 20_000)
    async with database.transaction() as tx:
        await tx.execute(text("ANALYZE saga_engine.dead_letter"))
        await dead_letters.record(tx, [letter("a")], 9, quota=20_000)
    async with database.transaction() as tx:
        before = (await tx.execute(BLOCKS)).scalar_one()
        await dead_letters.record(tx, [letter("a")], 9, quota=20_000)
        assert (await tx.execute(BLOCKS)).scalar_one() - before < 50
        assert list((await dead_letters.read_dropped(tx)).values()) == [2]


@pytest.mark.parametrize("action", ["mark_discarded", "purge"])
async def test_two_that_settle_the_same_letters_in_other_orders_do_not_deadlock(
    database: Database, action
):
    """The letters lie in another order on disk than their ids say."""
    ids = [each.id for each in await add(database, *[letter("a")] * 3)]
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
