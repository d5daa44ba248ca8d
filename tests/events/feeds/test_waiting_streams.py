"""Streams that wait for a webhook are kept by their owner alone, and moved once."""

from dataclasses import replace

import pytest

from saga_engine.events.feeds import feed_table, waiting_streams
from saga_engine.events.feeds.waiting_streams import Refusal, WaitingNumbers
from tests.kit.feeds import order_event
from tests.kit.webhooks import HOOKS

OWNER = "host:1"
EVENT = order_event(8)
REFUSAL = Refusal(EVENT, "Webhook https://shop.example answered 500.", delay=0.0, timeout=60.0)


@pytest.fixture
async def owned(webhook_database):
    async with webhook_database.transaction() as tx:
        assert await feed_table.acquire(tx, HOOKS, OWNER, 60.0) == 0
    return webhook_database


async def test_only_the_owner_lets_a_stream_wait_and_sees_what_is_due(owned):
    async with owned.transaction() as tx:
        assert not await waiting_streams.add(tx, HOOKS, "host:2", REFUSAL)
        assert await waiting_streams.add(tx, HOOKS, OWNER, REFUSAL)
        (found,) = await waiting_streams.due(tx, HOOKS, OWNER, 10)
        assert (found.stream, found.next_position, found.attempts) == ("order-o-1", 8, 1)
        assert await waiting_streams.due(tx, HOOKS, "host:2", 10) == []
        assert await waiting_streams.load(tx, HOOKS) == ["order-o-1"]
        numbers = await waiting_streams.read_numbers(tx)
        assert numbers == {HOOKS: WaitingNumbers(streams=1, dead_letters=0)}


async def test_a_stopped_feed_sends_nothing(owned):
    async with owned.transaction() as tx:
        await waiting_streams.add(tx, HOOKS, OWNER, REFUSAL)
        await feed_table.set_state(tx, HOOKS, feed_table.FeedState.STOPPED, 7)
        assert await waiting_streams.due(tx, HOOKS, OWNER, 10) == []


async def test_a_stream_that_is_refused_again_is_due_later_and_then_a_dead_letter(owned):
    async with owned.transaction() as tx:
        await waiting_streams.add(tx, HOOKS, OWNER, REFUSAL)
        (found,) = await waiting_streams.due(tx, HOOKS, OWNER, 10)
        again = replace(REFUSAL, delay=60.0)
        assert await waiting_streams.fail(tx, HOOKS, found, again) is False
        assert await waiting_streams.due(tx, HOOKS, OWNER, 10) == []
        (later,) = await waiting_streams.read(tx, HOOKS, 10)
        assert later.attempts == 2
        assert later.retry_at is not None
        assert found.retry_at is not None
        assert later.retry_at > found.retry_at
        assert await waiting_streams.fail(tx, HOOKS, later, replace(again, timeout=1e-9)) is True
        (dead,) = await waiting_streams.read(tx, HOOKS, 10)
        assert (dead.retry_at, dead.attempts) == (None, 3)


async def test_the_time_of_an_event_begins_with_its_own_first_refusal(owned):
    async with owned.transaction() as tx:
        await waiting_streams.add(tx, HOOKS, OWNER, REFUSAL)
        (found,) = await waiting_streams.due(tx, HOOKS, OWNER, 10)
        next_event = replace(REFUSAL, event=order_event(9), timeout=1e-9)
        assert await waiting_streams.fail(tx, HOOKS, found, next_event) is False
        (moved,) = await waiting_streams.read(tx, HOOKS, 10)
        assert (moved.next_position, moved.attempts) == (9, 1)


async def test_what_an_operator_has_moved_is_not_moved_again(owned):
    async with owned.transaction() as tx:
        await waiting_streams.add(tx, HOOKS, OWNER, REFUSAL)
        (found,) = await waiting_streams.due(tx, HOOKS, OWNER, 10)
        assert not await waiting_streams.skip(tx, HOOKS, 7)
        assert await waiting_streams.skip(tx, HOOKS, 8)
        assert await waiting_streams.fail(tx, HOOKS, found, REFUSAL) is None
        assert not await waiting_streams.advance(tx, HOOKS, found, found)
        await waiting_streams.remove(tx, HOOKS, found)
        (left,) = await waiting_streams.read(tx, HOOKS, 10)
        assert left.next_position == 9
        assert await waiting_streams.retry(tx, HOOKS) == [9]
        await waiting_streams.forget_after(tx, HOOKS, 9)
        assert len(await waiting_streams.read(tx, HOOKS, 10)) == 1
        await waiting_streams.forget_after(tx, HOOKS, 8)
        assert await waiting_streams.read(tx, HOOKS, 10) == []
