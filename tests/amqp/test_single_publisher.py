import asyncio
from typing import Any

import aio_pika
import pytest
from pamqp import commands

from saga_engine.protocol.message import PublishOutcome
from saga_engine.vocabulary import ConnectionState
from tests.kit.connections import (
    StateRecorder,
    open_consumer,
    open_single_publisher,
    raw_channel,
    take_exactly,
)
from tests.kit.messages import make_message
from tests.kit.proxy import running_proxy

CONFIRMED, UNROUTABLE, UNPUBLISHABLE, UNKNOWN = (
    PublishOutcome.CONFIRMED,
    PublishOutcome.UNROUTABLE,
    PublishOutcome.UNPUBLISHABLE,
    PublishOutcome.UNKNOWN,
)
TOO_LARGE: dict[str, Any] = {"headers": {"h": "v" * 20_000}}


async def test_each_message_has_its_own_outcome(broker_url):
    batch = [
        make_message("tests.one", b"1"),
        make_message("nowhere", b"2"),
        make_message("tests.one", b"3", **TOO_LARGE),
        make_message("nowhere", b"4", mandatory=False),
        make_message("tests.two", b"5"),
    ]
    expected = [CONFIRMED, UNROUTABLE, UNPUBLISHABLE, CONFIRMED, CONFIRMED]
    async with (
        open_consumer(broker_url) as consumer,
        open_single_publisher(broker_url) as publisher,
    ):
        assert await publisher.publish(batch) == expected
        assert {each.body for each in await take_exactly(consumer, 2)} == {b"1", b"5"}
        assert "headers" in publisher.unpublishable_reason(batch[2])
        assert publisher.unpublishable_reason(batch[0]) == ""


async def test_a_message_arrives_unchanged(broker_url):
    sent = make_message(
        "tests.one",
        b'"' + b"x" * 200_000 + b'"',
        type="t",
        correlation_id="c",
        reply_to="r",
        headers={"text": "ü", "small": 1, "large": 2**40, "yes": True},
    )
    async with (
        open_consumer(broker_url) as consumer,
        open_single_publisher(broker_url) as publisher,
    ):
        assert await publisher.publish([sent]) == [CONFIRMED]
        (found,) = await take_exactly(consumer, 1)
        assert found.user_id == publisher._supervised.username
    for name in ("body", "exchange", "routing_key", "message_id", "type", "correlation_id"):
        assert getattr(found, name) == getattr(sent, name)
    assert (found.reply_to, found.content_type, found.app_id) == (
        "r",
        "application/json",
        "saga-engine",
    )
    assert {name: found.headers[name] for name in sent.headers} == sent.headers


async def test_a_message_that_a_full_queue_refuses_is_nacked(broker_url):
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    async with open_single_publisher(broker_url) as publisher, raw_channel(broker_url) as channel:
        await channel.queue_declare("tests.full", durable=True, arguments=full)
        await channel.queue_bind("tests.full", "saga.commands", "tests.full")
        outcomes = [(await publisher.publish([make_message("tests.full")])) for _ in range(5)]
        assert await publisher.publish([make_message("tests.one")]) == [CONFIRMED]
    assert outcomes[0] == [CONFIRMED]
    assert outcomes[-1] == [PublishOutcome.NACKED]


async def test_a_message_without_a_confirm_is_unknown_and_the_next_one_is_published(broker_url):
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_single_publisher(proxy.url, observer, broker_confirm_timeout=0.5) as publisher,
    ):
        assert await publisher.publish([make_message("tests.one")]) == [CONFIRMED]
        proxy.pause_server_data()
        assert await publisher.publish([make_message("tests.one")]) == [UNKNOWN]
        proxy.resume()
        async with asyncio.timeout(30):
            while await publisher.publish([make_message("tests.one")]) != [CONFIRMED]:
                pass
    assert any("in time" in state.problem for state in observer.states)


async def test_a_lost_connection_leaves_the_outcome_unknown_and_publishing_goes_on_after_it(
    broker_url,
):
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_single_publisher(proxy.url, observer) as publisher,
    ):
        assert await publisher.publish([make_message("tests.one")]) == [CONFIRMED]
        proxy.cut_before_answer(lambda data: b"tests.one" in data)
        assert await publisher.publish([make_message("tests.one")]) == [UNKNOWN]
        proxy.clear_faults()
        await observer.wait_for(lambda state: state.generation == 2)
        assert await publisher.publish([make_message("tests.one")]) == [CONFIRMED]


async def test_a_deleted_exchange_is_declared_again(broker_url):
    async with open_single_publisher(broker_url) as publisher, raw_channel(broker_url) as channel:
        assert await publisher.publish([make_message("tests.one")]) == [CONFIRMED]
        await channel.exchange_delete("saga.commands")
        assert await publisher.publish([make_message("tests.one")]) == [UNKNOWN]
        assert await publisher.publish([make_message("tests.one")]) == [CONFIRMED]
        assert await publisher.publish([make_message("nowhere")]) == [UNROUTABLE]


async def test_publishing_pauses_while_the_broker_is_blocked(broker_url):
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_single_publisher(proxy.url, observer, broker_confirm_timeout=0.3) as publisher,
    ):
        proxy.inject_frame(commands.Connection.Blocked("low on memory"))
        await observer.wait_for(lambda state: state.state is ConnectionState.BLOCKED)
        assert publisher.blocked
        assert await publisher.publish([make_message("tests.one")]) == [UNKNOWN]
        proxy.inject_frame(commands.Connection.Unblocked())
        await observer.wait_for(lambda state: state.state is ConnectionState.CONNECTED)
        assert await publisher.publish([make_message("tests.one")]) == [CONFIRMED]
    async with open_consumer(broker_url) as consumer:
        assert len(await consumer.take(10)) == 1, "the message of the blocked time was not sent"


@pytest.mark.parametrize("size", [0, 131_064, 262_144])
async def test_a_body_of_any_size_arrives_whole(broker_url, size):
    body = bytes(number % 251 for number in range(size))
    async with (
        open_consumer(broker_url) as consumer,
        open_single_publisher(broker_url) as publisher,
    ):
        assert await publisher.publish([make_message("tests.one", body)]) == [CONFIRMED]
        (found,) = await take_exactly(consumer, 1)
    assert found.body == body


async def test_it_publishes_over_a_channel_of_aio_pika(broker_url):
    async with open_single_publisher(broker_url) as publisher:
        await publisher.publish([make_message("tests.one")])
        assert isinstance(publisher._channel, aio_pika.Channel)
