from collections import Counter

import pytest
from sqlalchemy import text

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store import dead_letter_actions, dead_letter_queries, dead_letters
from saga_engine.store.database import Database
from saga_engine.store.dead_letters import DeadLetter
from tests.kit.dead_letters import malformed_reply, record_dead_letters
from tests.kit.read_blocks import BLOCKS
from tests.kit.stored_runs import run_id


async def test_a_dead_letter_keeps_its_message_unchanged(database: Database):
    kept = malformed_reply(
        run_id=run_id(), message_id="m", correlation_id="c", type="t", exchange="e",
        routing_key="r", properties={"app_id": "x"}, headers={"n": [1, {"a": None}]},
    )  # fmt: skip
    [found] = await record_dead_letters(database, kept)
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
async def test_a_hostile_message_can_be_recorded(database: Database, hostile):
    assert len(await record_dead_letters(database, malformed_reply(**hostile))) == 1


async def test_a_long_body_is_cut_and_marked(database: Database):
    long = DeadLetter(
        queue="q", reason=DeadLetterReason.TOO_LARGE, detail="", body=b"x" * 11, body_size=11
    )
    cut_before = DeadLetter(
        queue="q",
        reason=DeadLetterReason.TOO_LARGE,
        detail="",
        body=b"x" * 10,
        body_size=20_000_000,
    )
    exact = DeadLetter(
        queue="q", reason=DeadLetterReason.TOO_LARGE, detail="", body=b"x" * 10, body_size=10
    )
    found = await record_dead_letters(database, long, cut_before, exact, keep=10)
    assert [each.truncated for each in found] == [True, True, False]
    assert {each.message.body for each in found} == {b"x" * 10}
    assert [each.message.body_size for each in found] == [11, 20_000_000, 10]


FULL_LONG_AGO = text(
    "UPDATE saga_engine.dead_letter_dropped"
    " SET quota_reached_at = quota_reached_at - interval '6 seconds'"
)


async def test_dead_letters_beyond_the_quota_of_a_sender_are_only_counted(database: Database):
    def of(sender: str, reason: DeadLetterReason = DeadLetterReason.BAD_REQUEST) -> DeadLetter:
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
        await dead_letters.record(
            tx, [of("shop"), of("shop", DeadLetterReason.BAD_OUTCOME)], 9, quota=4
        )
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


async def test_a_group_at_its_quota_is_not_counted_again_for_some_seconds(database: Database):
    await record_dead_letters(database, *[malformed_reply()] * 20_000)
    async with database.transaction() as tx:
        await tx.execute(text("ANALYZE saga_engine.dead_letter"))
        await dead_letters.record(tx, [malformed_reply()], 9, quota=20_000)
    async with database.transaction() as tx:
        before = (await tx.execute(BLOCKS)).scalar_one()
        await dead_letters.record(tx, [malformed_reply()], 9, quota=20_000)
        assert (await tx.execute(BLOCKS)).scalar_one() - before < 50
        assert list((await dead_letters.read_dropped(tx)).values()) == [2]
