"""An operator pauses, retries and skips; who did it and why is kept."""

import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text as sql

from saga_engine.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from saga_engine.events import Consumer, from_queue
from saga_engine.events.consumers import consumer_actions, consumer_failures, consumer_table
from saga_engine.events.consumers.consumer_table import ConsumerState, Holder
from saga_engine.events.consumers.failure_retry import FailureRetry
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.consumers import (
    BILLING,
    QUEUE,
    applying,
    billing_consumer,
    invoices,
    message_of,
    open_failures,
    order,
    registered_consumer,
    stored_partition,
)
from tests.kit.read_model import Placed

MARA = Operator("mara", "corrected")


@pytest.fixture
async def database(event_url):
    async with registered_consumer(event_url) as database:
        yield database


async def act(database, action, *arguments, operator=MARA):
    async with database.transaction() as tx:
        return await action(tx, "billing", *arguments, operator)


async def retried(database, consumer=None) -> int:
    """How many messages a process applies again."""
    async with applying(database, consumer or accepting()) as (_, writer):
        retry, number = FailureRetry(writer), 0
        while await retry.apply_next():
            number += 1
        return number


def accepting():
    """The code after a correction: it accepts every customer."""
    return billing_consumer(on_poison="park-stream", poison="nobody")


async def parked(database, *more):
    """An event that has parked its stream, and *more* behind it."""
    async with applying(database, billing_consumer(on_poison="park-stream")) as (batches, _):
        await batches.apply([order(1, "poison"), *more])


async def test_a_paused_consumer_is_not_acquired_until_it_is_resumed(database):
    await act(database, consumer_actions.pause)
    async with database.transaction() as tx:
        assert await consumer_table.acquire(tx, BILLING, Holder("process-1", QUEUE), 5) is None
    with pytest.raises(Conflict, match="is paused"):
        await act(database, consumer_actions.pause)
    await act(database, consumer_actions.resume)
    with pytest.raises(Conflict, match="is active"):
        await act(database, consumer_actions.resume)
    assert (await stored_partition(database)).state is ConsumerState.ACTIVE
    async with database.transaction() as tx:
        actions = await operator_audit.read(tx, consumer_actions.audited("billing"), 10)
    assert [(each.action, each.operator, each.reason) for each in actions] == [
        ("resume", "mara", "corrected"),
        ("pause", "mara", "corrected"),
    ]


async def test_a_stopped_consumer_applies_its_event_after_a_retry(database):
    async with applying(database, billing_consumer()) as (batches, _):
        await batches.apply([order(1, "poison")])
    assert await act(database, consumer_actions.retry) == 1
    async with applying(database, billing_consumer(poison="nobody")) as (batches, _):
        assert (await batches.apply([order(1, "poison")])).applied == 1
    assert await open_failures(database) == []


async def test_an_event_that_fails_again_after_a_retry_has_one_failure(database):
    attempts = []
    for _ in range(2):
        async with applying(database, billing_consumer()) as (batches, _):
            await batches.apply([order(1, "poison")])
        (failure,) = await open_failures(database)
        attempts.append(failure.attempts)
        await act(database, consumer_actions.retry)
    assert attempts == [1, 2]


async def test_a_parked_stream_is_applied_in_order_and_goes_on(database):
    await parked(database, order(2, "b"), order(3, "c"), order(9, "x", "order-o-2"))
    assert await act(database, consumer_actions.retry) == 1
    assert await retried(database) == 3
    assert [customer for _, _, customer in await invoices(database)] == ["x", "poison", "b", "c"]
    async with applying(database, accepting()) as (batches, writer):
        assert writer.kept.messages == 0
        result = await batches.apply([order(1), order(3), order(4, "d")])
    assert (result.applied, result.duplicates) == (1, 2)


async def test_a_parked_stream_that_fails_again_keeps_what_is_behind(database):
    await parked(database, order(2, "b"))
    await act(database, consumer_actions.retry)
    assert await retried(database, billing_consumer(on_poison="park-stream")) == 1
    (failure,) = await open_failures(database)
    assert (failure.kind, failure.attempts, failure.retry_requested_at) == ("parked", 2, None)
    assert await invoices(database) == []
    assert await retried(database) == 0


async def test_a_message_that_is_readable_now_takes_effect_once(database):
    body = b'{"customer": "ada", "total": "12.50", "note": "' + b"x" * 2_000 + b'"}'
    large = message_of(order(1).attributes, body=body)
    async with applying(database, accepting(), max_body_bytes=1_000) as (batches, _):
        await batches.apply([large])
    await act(database, consumer_actions.retry)
    assert await retried(database) == 1
    async with applying(database, accepting()) as (batches, _):
        assert (await batches.apply([order(1)])).duplicates == 1
    assert len(await invoices(database)) == 1


@pytest.mark.parametrize(
    "altered",
    [
        {"problem": "It has more than 128 headers."},
        {"content_encoding": "gzip"},
        {"body_size": 4_711},
    ],
)
async def test_a_retry_applies_no_altered_version_of_a_message(database, altered):
    """What was cut off or was compressed stays unreadable, although the rest is an event."""
    unreadable = replace(order(1), **altered)
    async with applying(database, accepting()) as (batches, _):
        await batches.apply([unreadable])
        (before,) = await open_failures(database)
    await act(database, consumer_actions.retry)
    assert await retried(database) == 1
    (failure,) = await open_failures(database)
    assert (failure.kind, failure.attempts, failure.error) == ("unreadable", 2, before.error)
    assert await invoices(database) == []


async def test_a_retried_message_whose_function_blocks_fails_again(event_url, database):
    await parked(database)
    await act(database, consumer_actions.retry)
    consumer = Consumer("billing", source=from_queue(), on_poison="park-stream")

    @consumer.on(Placed)
    async def placed(_event, _received, connection):
        threading.Event().wait(1.1)  # it blocks the event loop
        await connection.execute(sql("SELECT 1"))

    limit: Any = {"database_transaction_timeout": 1.0}
    async with (
        Database(event_url, Settings(**limit), EVENT_DATABASE, runs_user_sql=True) as short,
        applying(short, consumer, **limit) as (_, writer),
    ):
        retry = FailureRetry(writer)
        with pytest.raises(StoreUnavailable):
            await retry.apply_next()
        await writer.acquire()
        retry.begin()
        assert await retry.apply_next()
    (failure,) = await open_failures(database)
    assert (failure.kind, failure.attempts) == ("parked", 2)
    assert "did not return within 0.5 s" in failure.error


async def test_a_message_that_is_still_unreadable_waits_again(database):
    async with applying(database, accepting()) as (batches, _):
        await batches.apply([message_of({}, body=b"")])
    await act(database, consumer_actions.retry)
    assert await retried(database) == 1
    (failure,) = await open_failures(database)
    assert (failure.kind, failure.attempts, failure.retry_requested_at) == ("unreadable", 2, None)


async def test_a_skipped_event_never_takes_effect(database):
    async with applying(database, billing_consumer()) as (batches, _):
        await batches.apply([order(1, "poison")])
    (failure,) = await open_failures(database)
    await act(database, consumer_actions.skip, failure.id)
    async with applying(database, accepting()) as (batches, _):
        result = await batches.apply([order(1), order(2, "b")])
    assert (result.applied, result.duplicates) == (1, 1)


async def test_the_stream_of_a_skipped_event_goes_on(database):
    await parked(database, order(2, "b"))
    (failure,) = await open_failures(database)
    await act(database, consumer_actions.skip, failure.id)
    assert await retried(database) == 1
    assert [customer for _, _, customer in await invoices(database)] == ["b"]
    async with database.transaction() as tx:
        numbers = await consumer_failures.read_numbers(tx, "billing")
    assert numbers["billing", 0].kept == numbers["billing", 0].parked_streams == 0


@pytest.mark.parametrize("action", ["retry", "skip"])
async def test_what_arrives_for_a_parked_stream_after_the_action_goes_on_too(database, action):
    async with applying(database, billing_consumer(on_poison="park-stream")) as (batches, writer):
        await batches.apply([order(1, "poison")])
        await writer.acquire()  # the process knows that the stream is parked
        (failure,) = await open_failures(database)
        arguments = [failure.id] if action == "skip" else []
        await act(database, getattr(consumer_actions, action), *arguments)
        assert (await batches.apply([order(2, "b")])).kept == 1
        await writer.acquire()
        assert writer.kept.retry_requested
    assert await retried(database) == (2 if action == "retry" else 1)
    async with applying(database, accepting()) as (batches, writer):
        assert not writer.kept.retry_requested
        assert (await batches.apply([order(3, "c")])).applied == 1
    assert [customer for _, _, customer in await invoices(database)][-2:] == ["b", "c"]


async def test_messages_that_wait_behind_none_can_be_retried(database):
    await parked(database, order(2, "b"))
    (failure,) = await open_failures(database)
    await act(database, consumer_actions.skip, failure.id)
    assert await act(database, consumer_actions.retry) == 0
    assert await retried(database) == 1


async def test_a_partition_continues_at_another_offset(database):
    with pytest.raises(Conflict, match="reads a queue"):
        await act(database, consumer_actions.rewind, 0, 7)
    async with database.transaction() as tx:
        await consumer_table.register(tx, "billing", "stream orders", 1)
    await act(database, consumer_actions.rewind, 0, 7)
    assert (await stored_partition(database)).next_offset == 7
    with pytest.raises(NotFound, match="no partition 1; it has 1"):
        await act(database, consumer_actions.rewind, 1, 7)
    with pytest.raises(InvalidInput, match="The offset"):
        await act(database, consumer_actions.rewind, 0, -1)


async def test_what_cannot_be_done_is_refused(database):
    for action in (consumer_actions.pause, consumer_actions.retry):
        async with database.transaction() as tx:
            with pytest.raises(NotFound, match="There is no consumer 'other'"):
                await action(tx, "other", MARA)
    with pytest.raises(Conflict, match="no message of it has failed"):
        await act(database, consumer_actions.retry)
    with pytest.raises(NotFound, match="has no failure 7"):
        await act(database, consumer_actions.skip, 7)
    with pytest.raises(InvalidInput, match="id of the failure"):
        await act(database, consumer_actions.skip, -1)
    with pytest.raises(Conflict, match="Give the reason"):
        await act(database, consumer_actions.skip, 7, operator=Operator("mara"))
