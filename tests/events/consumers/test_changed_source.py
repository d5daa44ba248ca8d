"""A source that was made again, or has lost what was not consumed, is named; nothing is skipped."""

import re
from dataclasses import replace

import pytest

from saga_engine.events.consumers import consumer_actions
from saga_engine.events.consumers.changed_source import last_message, may_be_last
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.telemetry.events import ConsumerSourceUnavailable
from tests.kit.consumers import (
    billing_consumer,
    consumer_database,
    invoices,
    message_of,
    order,
    running_consumers,
    stored_partition,
    wait_for_invoices,
)


@pytest.fixture
async def billing(event_url):
    async with consumer_database(event_url) as database:
        yield database


@pytest.fixture
async def consumed(source, event_url, billing):
    """The source, of which three orders are consumed."""
    await source.create()
    await source.publish(1, 2, 3)
    await consume(source, event_url, billing, 3)
    return source


def running(source, event_url):
    return running_consumers(event_url, [billing_consumer(source.options)], **source.settings)


async def consume(source, event_url, billing, number):
    """Run a process until so many orders have taken effect; its problems."""
    async with running(source, event_url) as emitted:
        await wait_for_invoices(billing, number)
    return emitted.matching(ConsumerSourceUnavailable)


async def problem_of(source, event_url):
    async with running(source, event_url) as emitted:
        [found] = await emitted.wait_for(ConsumerSourceUnavailable)
    return found.problem


async def rewind(billing, offset):
    async with billing.transaction() as tx:
        await consumer_actions.rewind(tx, "billing", 0, offset, Operator("mara"))


async def follow_advice(billing, problem):
    """Run the command in a sentence."""
    [offset] = re.findall(
        r"`saga-engine consumers rewind billing --partition 0 --to (\d+)`", problem
    )
    await rewind(billing, int(offset))


async def versions(billing):
    return [version for _, version, _ in await invoices(billing)]


async def test_a_source_that_was_made_again_with_more_messages_is_noticed(
    consumed, event_url, billing
):
    await consumed.delete()
    await consumed.create()
    await consumed.publish(11, 12, 13, 14, 15)
    problem = await problem_of(consumed, event_url)
    assert "has another message at offset 2 than the one that was consumed there" in problem
    assert await versions(billing) == [1, 2, 3]
    await follow_advice(billing, problem)
    assert not await consume(consumed, event_url, billing, 8)
    assert await versions(billing) == [1, 2, 3, 11, 12, 13, 14, 15]


async def test_a_source_that_was_made_again_with_fewer_messages_is_noticed(
    consumed, event_url, billing
):
    await consumed.delete()
    await consumed.create()
    await consumed.publish(11)
    problem = await problem_of(consumed, event_url)
    assert "ends before offset 2, which was consumed or passed over by a rewind" in problem
    await follow_advice(billing, problem)
    assert not await consume(consumed, event_url, billing, 4)


async def test_a_source_that_was_made_again_while_it_is_consumed_is_noticed(
    consumed, event_url, billing
):
    async with running(consumed, event_url) as emitted:
        await consumed.publish(4)
        await wait_for_invoices(billing, 4)
        await consumed.delete()
        await emitted.wait_for(ConsumerSourceUnavailable)
        await consumed.create()
        await consumed.publish(11, 12, 13, 14, 15)
        await emitted.wait_until(
            lambda each: (
                isinstance(each, ConsumerSourceUnavailable)
                and "it was deleted and made again" in each.problem
            )
        )
        assert await versions(billing) == [1, 2, 3, 4]
        await rewind(billing, 0)
        await wait_for_invoices(billing, 9)


async def test_a_source_that_was_filled_again_is_consumed_on(consumed, event_url, billing):
    """As a feed does that was rewound to its beginning."""
    await consumed.delete()
    await consumed.create()
    await consumed.publish(1, 2, 3, 4)
    assert not await consume(consumed, event_url, billing, 4)
    assert (await stored_partition(billing)).duplicates == 0


async def test_what_retention_has_deleted_before_it_was_consumed_is_named(
    consumed, event_url, billing
):
    await consumed.delete_all_but_last()
    problem = await problem_of(consumed, event_url)
    assert "no longer has offset 3: its retention has deleted what is before" in problem
    assert await versions(billing) == [1, 2, 3]
    await follow_advice(billing, problem)
    assert not await consume(consumed, event_url, billing, 4)
    assert (await versions(billing))[3] > 101


async def test_an_offset_that_the_source_does_not_have_is_named(consumed, event_url, billing):
    await rewind(billing, 4_711)
    problem = await problem_of(consumed, event_url)
    assert "ends before offset 4710" in problem
    assert "or the rewind went beyond its end" in problem


async def test_an_offset_that_an_operator_has_chosen_is_not_compared(consumed, event_url, billing):
    await consumed.publish(4, 5)
    await rewind(billing, 4)
    assert not await consume(consumed, event_url, billing, 4)
    assert await versions(billing) == [1, 2, 3, 5]


def test_a_message_beyond_a_limit_is_known_when_the_limit_is_raised():
    """What is read of it depends on the settings, and its offset was consumed."""
    whole = message_of(order(1).attributes)
    cut = replace(whole, attributes={"id": "1"}, problem="It has more than 128 headers.")
    assert may_be_last(last_message(cut), whole)
    assert may_be_last(last_message(whole), cut)
    assert may_be_last(None, whole)
    assert not may_be_last(last_message(whole), order(2))
