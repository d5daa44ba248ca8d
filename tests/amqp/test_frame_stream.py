"""Messages reach their channel in order and once, with any frames between theirs."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiormq.channel import Channel
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from saga_engine.amqp import driver, frame_stream
from saga_engine.amqp.confirm_channel import ConfirmChannel
from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.protocol.message import Delivery, PublishOutcome
from saga_engine.settings import Settings
from tests.kit.amqp_frames import (
    confirm,
    content,
    deliver,
    frame,
    heartbeat,
    interleaved,
    long_ack,
    long_deliver,
    message,
    messages,
    returned,
    split,
)
from tests.kit.amqp_properties import MESSAGE_ID, content_header, shortstr
from tests.kit.connections import wait_until
from tests.kit.raw_amqp import BODY, METHOD
from tests.kit.scripted_broker import FRAME_MAX, scripted_connection

SETTINGS = Settings(max_body_bytes=200, max_dead_letter_body_bytes=1000)


async def open_deliveries(connection, on_delivery=None):
    """A channel and the list of the deliveries that it has handed out."""
    channel = await driver.open_channel(connection, DeliveryChannel, 30)
    channel.queue_by_consumer_tag["c"] = "queue"
    found: list[Delivery] = []
    channel.configure(1, on_delivery or found.append, SETTINGS)
    return channel, found


@asynccontextmanager
async def delivering_connection(count=1):
    """A broker, a connection, and channels 1 to `count` with their deliveries."""
    async with scripted_connection() as (broker, connection):
        opened = [await open_deliveries(connection) for _ in range(count)]
        yield broker, connection, opened


def tags_of(deliveries):
    return [each.delivery_tag for each in deliveries]


def feed(connection, data):
    """Have bytes arrive, as the event loop does."""
    connection._streams.stream.feed_data(data)


async def test_a_message_reaches_its_channel_in_the_call_that_brings_its_last_byte():
    async with delivering_connection() as (_, connection, [(_, found)]):
        whole = message(1, 1)
        feed(connection, whole[:-1])
        assert found == []
        feed(connection, whole[-1:])
        assert tags_of(found) == [1]


@settings(max_examples=40)
@given(st.data())
async def test_both_paths_hand_out_the_same_deliveries(data):
    sent = [data.draw(messages(1, tag)) for tag in range(data.draw(st.integers(1, 4)))]
    async with delivering_connection(2) as (_, connection, [(_, fast), (_, left)]):
        feed(connection, long_ack(2))  # From here on aiormq reads the frames of channel 2.
        same = [[each[:2] + b"\2" + each[3:] for each in frames] for frames in sent]
        stream = data.draw(interleaved([sum_of(sent), sum_of(same), [heartbeat()]]))
        for piece in data.draw(split(b"".join(stream))):
            feed(connection, piece)
        await wait_until(lambda: len(left) == len(sent))
        assert fast == left


def sum_of(sequences):
    return [each for sequence in sequences for each in sequence]


async def test_frames_of_channels_and_heartbeats_may_alternate():
    async with delivering_connection(2) as (broker, _, [(_, one), (_, two)]):
        head, *parts = content(1, b"\0\0", b"a" * 250)
        other = [deliver(2, 5), *content(2, b"\0\0", b"b" * 150)]
        stream = [deliver(1, 4), other[0], head, heartbeat(), parts[0], *other[1:], *parts[1:]]
        for each in [*stream, message(1, 6), message(2, 7, b"")]:
            await broker.send(each)
        await wait_until(lambda: tags_of(two) == [5, 7])
        assert [(each.delivery_tag, each.body) for each in one] == [(4, b"a" * 250), (6, b"{}")]
        assert [each.body for each in two] == [b"b" * 150, b""]


async def test_an_unusual_frame_neither_loses_nor_repeats_nor_reorders_messages():
    async with delivering_connection(2) as (broker, _, [(channel, one), (_, two)]):
        before = [message(1, tag) for tag in range(1, 4)]
        after = [message(1, tag) for tag in range(5, 300)]
        await broker.send(b"".join([*before, long_deliver(1, 4), *after, message(2, 1)]))
        await wait_until(lambda: len(one) >= 299)
        assert tags_of(one) == list(range(1, 300))
        assert (channel.received_count, tags_of(two)) == (299, [1])


async def test_a_response_between_messages_reaches_its_caller():
    async with (
        delivering_connection() as (broker, _, [(channel, found)]),
        asyncio.TaskGroup() as tasks,
    ):
        call = tasks.create_task(channel.basic_qos(prefetch_count=5, timeout=30))
        await wait_until(lambda: "Basic.Qos" in broker.received)
        await broker.send(message(1, 1)[:-5])
        await broker.send(message(1, 1)[-5:])
        await broker.send_method(1, commands.Basic.QosOk())
        await broker.send(message(1, 2))
        assert isinstance(await call, commands.Basic.QosOk)
        await wait_until(lambda: tags_of(found) == [1, 2])


async def test_a_consumer_that_the_broker_cancels_is_reported_after_its_messages():
    async with delivering_connection() as (broker, _, [(channel, found)]):
        seen_at_cancel: list[int] = []
        channel.on_consumer_cancel_callbacks.add(lambda _: seen_at_cancel.append(len(found)))
        await broker.send(message(1, 1) + message(1, 2))
        await broker.send_method(1, commands.Basic.Cancel("c"))
        await wait_until(lambda: bool(seen_at_cancel))
        assert seen_at_cancel == [2]


async def test_messages_of_a_closed_channel_are_dropped():
    async with delivering_connection(2) as (broker, connection, [(closed, one), (_, two)]):
        assert await driver.close(closed, 30)
        await broker.send(b"".join([*(message(1, tag) for tag in range(500)), message(2, 1)]))
        await wait_until(lambda: tags_of(two) == [1])
        assert (one, connection.is_closed) == ([], False)


async def test_a_number_that_another_channel_uses_again_is_left_to_aiormq():
    async with delivering_connection() as (broker, connection, [(closed, found)]):
        assert await driver.close(closed, 30)
        channel = await driver.open_channel(connection, Channel, 30)
        assert channel.number == 1
        received: list[int | None] = []

        async def receive(delivered):
            received.append(delivered.delivery_tag)

        await channel.basic_consume("queue", receive, consumer_tag="c", timeout=30)
        await broker.send(message(1, 9))
        await wait_until(lambda: received == [9])
        assert found == []


async def test_an_error_in_a_consumer_ends_the_connection_and_is_logged(caplog):
    def fail(_):
        raise ValueError("it cannot take it")

    async with scripted_connection() as (broker, connection):
        await open_deliveries(connection, fail)
        reasons: list[str] = []
        driver.on_closed(connection, reasons.append)
        await broker.send(message(1, 1))
        await wait_until(lambda: bool(reasons))
    assert reasons == ["it cannot take it"]
    assert "ValueError: it cannot take it" in caplog.text


@pytest.mark.parametrize("kept", range(0, len(message(1, 2)), 5))
async def test_a_message_that_is_cut_off_is_not_handed_out(kept):
    async with delivering_connection() as (broker, connection, [(_, found)]):
        reasons: list[str] = []
        driver.on_closed(connection, reasons.append)
        await broker.send(message(1, 1) + message(1, 2)[:kept])
        broker.end()
        await wait_until(lambda: bool(reasons))
        assert tags_of(found) == [1]


BREAKING = {
    "malformed": (heartbeat()[:-1] + b"\0", "a malformed frame"),
    "out of order": (deliver(1, 2) + frame(BODY, 1, b"x"), "a frame out of order on channel 1"),
    "too large": (
        b"\1\0\1" + (FRAME_MAX - 7).to_bytes(4) + b"x",
        f"a frame of {FRAME_MAX + 1} bytes; {FRAME_MAX} were agreed on",
    ),
}


@pytest.mark.parametrize("name", BREAKING)
async def test_a_forbidden_frame_ends_the_connection_after_the_messages_before_it(name):
    async with delivering_connection() as (broker, connection, [(_, found)]):
        reasons: list[str] = []
        driver.on_closed(connection, reasons.append)
        broken, reason = BREAKING[name]
        await broker.send(message(1, 1) + broken + message(1, 2))
        await wait_until(lambda: bool(reasons))
        assert reason in reasons[0]
        assert tags_of(found) == [1]


async def test_a_large_frame_within_the_limit_is_read():
    async with delivering_connection() as (broker, _, [(_, found)]):
        body = b"x" * (FRAME_MAX - 8)
        await broker.send(
            deliver(1, 1) + b"".join(content(1, b"\0\0", body, len(body))) + message(1, 2)
        )
        await broker.send(frame(METHOD, 0, b"\0\x0a\0\x3d" + b"x" * 1000))
        await wait_until(lambda: tags_of(found) == [1, 2])
        assert (found[0].body_size, found[0].body) == (len(body), body[:1000])


async def test_arriving_messages_prove_that_the_connection_is_alive():
    async with delivering_connection() as (_, connection, [(_, found)]):
        connection._streams.stream.last_progress_at = -1000.0
        assert connection.is_connection_was_stuck
        feed(connection, message(1, 1))
        assert tags_of(found) == [1]
        assert not connection.is_connection_was_stuck


async def test_frames_that_aiormq_does_not_read_are_a_stuck_connection():
    async with delivering_connection() as (_, connection, [(_, found)]):
        feed(connection, heartbeat())
        connection._streams.stream.last_progress_at = -1000.0
        feed(connection, heartbeat() + message(1, 1))
        assert tags_of(found) == [1]
        assert connection.is_connection_was_stuck
        await wait_until(lambda: not connection.is_connection_was_stuck)


async def test_bytes_after_a_forbidden_frame_do_not_keep_a_connection_alive():
    async with delivering_connection() as (_, connection, _):
        feed(connection, BREAKING["malformed"][0])
        connection._streams.stream.last_progress_at = -1000.0
        feed(connection, heartbeat())
        assert connection.is_connection_was_stuck


class StuckChannel(Channel):
    """A channel that takes no further frame, so that aiormq stops to read at its 101st one."""

    async def _on_deliver_frame(self, _):
        await asyncio.Event().wait()


async def test_a_forbidden_frame_ends_a_connection_whose_reader_is_stuck(monkeypatch):
    monkeypatch.setattr(frame_stream, "ABORT_DELAY", 0.01)
    async with scripted_connection() as (broker, connection):
        await driver.open_channel(connection, StuckChannel, 30)
        await broker.send(deliver(1, 1) * 200)
        await wait_until(connection.channels[1].frames.full)
        await broker.send(BREAKING["malformed"][0])
        await wait_until(lambda: broker.has_ended)
        await wait_until(lambda: connection.is_connection_was_stuck)


def returned_message(message_id):
    properties = content_header(MESSAGE_ID, shortstr(message_id), 0)[12:]
    return returned(1) + b"".join(content(1, properties, b"body"))


@pytest.mark.parametrize("unusual", [b"", long_ack(1)])
async def test_confirms_and_returns_set_outcomes_in_both_paths(unusual):
    async with scripted_connection() as (broker, connection):
        channel = await driver.open_channel(connection, ConfirmChannel, 30, confirm_mode=True)
        await broker.send(unusual)
        batch = await channel.send_batch(["a", "b", "\ufffd", "d"], b"")
        await broker.send(
            confirm(1, 4, number=120)
            + returned_message(b"b")
            + returned_message(b"\xff")
            + confirm(1, 3, multiple=True)
        )
        await wait_until(batch.completed.done)
        assert batch.outcomes == [
            PublishOutcome.CONFIRMED,
            PublishOutcome.UNROUTABLE,
            PublishOutcome.UNROUTABLE,
            PublishOutcome.NACKED,
        ]
        assert channel.is_idle


async def test_a_confirm_resolves_its_batch_in_the_call_that_brings_it():
    async with scripted_connection() as (_, connection):
        channel = await driver.open_channel(connection, ConfirmChannel, 30, confirm_mode=True)
        batch = await channel.send_batch(["a", "b"], b"")
        feed(connection, confirm(1, 2, multiple=True))
        assert batch.completed.done()
