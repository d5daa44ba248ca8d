"""Reads of dead letters: pages, counts and groups."""

from typing import Any

from sqlalchemy import text

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store import dead_letter_actions, dead_letter_queries
from saga_engine.store.database import Database
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetterState
from tests.kit.dead_letters import malformed_reply, record_dead_letters, record_reasons
from tests.kit.read_blocks import BLOCKS, ONE_MORE

BAD_REQUEST, BAD_OUTCOME = DeadLetterReason.BAD_REQUEST, DeadLetterReason.BAD_OUTCOME


async def test_dead_letters_are_grouped_by_queue_reason_and_type(database: Database):
    await record_dead_letters(
        database,
        *[malformed_reply(type="a", message_id=m) for m in "123"],
        malformed_reply(type="b"),
    )
    async with database.transaction() as tx:
        found = await dead_letter_queries.groups(tx)
    assert [(group.reason, group.type, group.count) for group in found] == [
        *(("malformed_json", "a", 3), ("malformed_json", "b", 1)),
    ]


async def test_dead_letters_are_listed_in_pages_and_by_filter(database: Database):
    found = await record_dead_letters(
        database,
        malformed_reply(),
        malformed_reply(DeadLetterReason.BAD_REQUEST),
        malformed_reply(),
    )
    ids = [each.id for each in found]
    async with database.transaction() as tx:

        async def page_ids(before_id: int | None = None, **fields: Any) -> list[int]:
            selected = DeadLetterFilter(state=DeadLetterState.OPEN, **fields)
            found = await dead_letter_queries.read_page(tx, selected, limit=2, before_id=before_id)
            return [each.id for each in found]

        assert await page_ids() == ids[:0:-1]
        assert await page_ids(before_id=ids[1]) == [ids[0]]
        assert await page_ids(reason="malformed_json") == [ids[2], ids[0]]
        assert await page_ids(queue="other") == []


MANY_SETTLED = text(
    """
    INSERT INTO saga_engine.dead_letter (state, queue, reason, detail, message_id, correlation_id,
        type, exchange, routing_key, properties, headers, body, body_size, truncated, fingerprint,
        resolved_at)
    SELECT 'discarded', 'saga.replies', 'malformed_json', '', '', '', '', '', '', '{}', '{}', '',
        0, false, '', clock_timestamp()
    FROM generate_series(1, 20000)"""
)


async def test_open_dead_letters_are_found_without_reading_resolved_ones(
    database: Database,
):
    await record_dead_letters(database, malformed_reply())
    async with database.transaction() as tx:
        await tx.execute(MANY_SETTLED)
    async with database.transaction() as tx:
        await tx.execute(text("ANALYZE saga_engine.dead_letter"))
        await tx.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        before = (await tx.execute(BLOCKS)).scalar_one()
        assert len(await dead_letter_queries.read_page(tx, limit=50)) == 1
        assert (await dead_letter_queries.count(tx, count_limit=1000)).count == 1
        assert (await tx.execute(BLOCKS)).scalar_one() - before < ONE_MORE


async def test_dead_letters_are_selected_by_a_filter(database: Database):
    async with database.transaction() as tx:
        first, second, third = await record_reasons(tx, BAD_REQUEST, BAD_OUTCOME, BAD_REQUEST)
        await dead_letter_actions.mark_discarded(tx, [third], operator="ann", reason="known bug")

        async def chosen(**common) -> list[int]:
            return await dead_letter_queries.find_ids(tx, DeadLetterFilter(**common), limit=9)

        assert await chosen(reason="bad_request") == [first, third]
        assert await chosen(state=DeadLetterState.OPEN, excluded_reason=BAD_OUTCOME) == [first]
        assert await chosen(state=DeadLetterState.DISCARDED) == [third]
        assert await chosen(queue="saga.replies") == await chosen(min_age_days=1) == []
        assert await dead_letter_queries.find_ids(
            tx, DeadLetterFilter(), limit=9, after_id=first
        ) == [
            second,
            third,
        ]


async def test_dead_letters_are_split_into_batches_of_bounded_size(database: Database):
    async with database.transaction() as tx:
        small = await record_reasons(tx, *[BAD_REQUEST] * 3)
        large = await record_reasons(tx, *[BAD_REQUEST] * 2, size=1000)
        made = await dead_letter_queries.split_by_size(
            tx, [*small, *large, 10**9], max_letters=2, max_bytes=900
        )
    assert made == [small[:2], small[2:], large[:1], large[1:]]


async def test_a_reason_of_a_later_version_is_shown_as_its_text(database: Database):
    """After a rollback the table has rows that the newer version wrote."""
    await record_dead_letters(database, malformed_reply(), malformed_reply(BAD_REQUEST))
    async with database.transaction() as tx:
        await tx.execute(
            text("UPDATE saga_engine.dead_letter SET reason = 'newer' WHERE reason = 'bad_request'")
        )
        assert {each.reason for each in await dead_letter_queries.groups(tx)} == {
            DeadLetterReason.MALFORMED_JSON,
            "newer",
        }
        newest, _ = await dead_letter_queries.read_page(tx, limit=9)
        assert newest.message.reason == "newer"
