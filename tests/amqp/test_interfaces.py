"""What both implementations of MessagePublisher promise, on both brokers."""

import asyncio

import pytest
from pamqp import commands

from saga_engine.protocol.message import PublishOutcome
from saga_engine.vocabulary import ConnectionState
from tests.kit.connections import (
    StateRecorder,
    open_consumer,
    open_publisher,
    open_single_publisher,
    raw_channel,
    take_exactly,
)
from tests.kit.messages import POISON, C, R, U, X, make_message
from tests.kit.proxy import running_proxy


@pytest.fixture(params=[open_publisher, open_single_publisher], ids=["batch", "single"])
def open_either(request):
    return request.param


async def test_each_message_has_its_own_outcome(broker_url, open_either):
    batch = [
        make_message("tests.one", b"1"),
        make_message("nowhere", b"2"),
        make_message("tests.one", b"3", **POISON),
        make_message("nowhere", b"4", mandatory=False),
        make_message("tests.two", b"5"),
    ]
    async with open_consumer(broker_url) as consumer, open_either(broker_url) as publisher:
        assert await publisher.publish(batch) == [C, R, X, C, C]
        assert {each.body for each in await take_exactly(consumer, 2)} == {b"1", b"5"}


async def test_message_arrives_as_it_was_sent(broker_url, open_either):
    sent = make_message(
        "tests.one",
        b'"' + b"x" * 200_000 + b'"',
        type="t",
        correlation_id="c",
        reply_to="r",
        headers={"text": "ü", "small": 1, "large": 2**40, "yes": True},
    )
    async with open_consumer(broker_url) as consumer, open_either(broker_url) as publisher:
        await publisher.publish([sent])
        (found,) = await take_exactly(consumer, 1)
    assert (found.body, found.body_size) == (sent.body, len(sent.body))
    assert (found.exchange, found.routing_key) == ("saga.commands", "tests.one")
    assert (found.message_id, found.type, found.correlation_id, found.reply_to) == (
        sent.message_id,
        "t",
        "c",
        "r",
    )
    assert found.content_type == "application/json"
    assert found.app_id == "saga-engine"
    assert {name: found.headers[name] for name in sent.headers} == sent.headers
    assert not found.redelivered
    assert found.user_id == publisher._supervised.username


async def test_empty_batch_is_published(broker_url, open_either):
    async with open_either(broker_url) as publisher:
        assert await publisher.publish([]) == []
        assert await publisher.publish([make_message("tests.one", **POISON)]) == [X]


async def test_unpublishable_reason_names_the_limit(broker_url, open_either):
    async with open_either(broker_url) as publisher:
        assert "headers" in publisher.unpublishable_reason(make_message("tests.one", **POISON))
        assert publisher.unpublishable_reason(make_message("tests.one")) == ""


async def test_publish_without_a_confirm_is_unknown_and_the_next_one_works(broker_url, open_either):
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_either(proxy.url, observer, broker_confirm_timeout=0.5) as publisher,
    ):
        assert await publisher.publish([make_message("tests.one")]) == [C]
        trusted = publisher._channel
        proxy.pause_server_data()
        assert await publisher.publish([make_message("tests.one"), make_message("nowhere")]) == [
            U,
            U,
        ]
        assert publisher._channel is not trusted, "whether it still counts right is not known"
        proxy.resume()
        async with asyncio.timeout(30):
            while await publisher.publish([make_message("tests.one")]) != [C]:
                pass
    assert any("in time" in state.problem for state in observer.states)


async def test_message_for_a_full_queue_is_nacked(broker_url, open_either):
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    async with open_either(broker_url) as publisher, raw_channel(broker_url) as channel:
        await channel.queue_declare("tests.full", durable=True, arguments=full)
        await channel.queue_bind("tests.full", "saga.commands", "tests.full")
        outcomes = [
            (await publisher.publish([make_message("tests.full"), make_message("tests.one")]))
            for _ in range(5)
        ]
    assert [outcome[1] for outcome in outcomes] == [C] * 5
    assert outcomes[0][0] == C
    assert outcomes[-1][0] == PublishOutcome.NACKED


async def test_missing_exchange_is_declared_again(broker_url, open_either):
    async with open_either(broker_url) as publisher, raw_channel(broker_url) as channel:
        assert await publisher.publish([make_message("tests.one")]) == [C]
        await channel.exchange_delete("saga.commands")
        assert await publisher.publish([make_message("tests.one")]) == [U]
        assert await publisher.publish([make_message("tests.one"), make_message("nowhere")]) == [
            C,
            R,
        ]


async def test_publishing_pauses_while_the_broker_is_blocked(broker_url, open_either):
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_either(proxy.url, observer, broker_confirm_timeout=0.3) as publisher,
    ):
        proxy.inject_frame(commands.Connection.Blocked("low on memory"))
        state = await observer.wait_for(lambda state: state.state is ConnectionState.BLOCKED)
        assert "low on memory" in state.problem
        assert publisher.blocked
        assert await publisher.publish([make_message("tests.one")]) == [U]
        proxy.inject_frame(commands.Connection.Unblocked())
        await observer.wait_for(lambda state: state.state is ConnectionState.CONNECTED)
        assert not publisher.blocked
        assert await publisher.publish([make_message("tests.one")]) == [C]
    async with open_consumer(broker_url) as consumer:
        assert len(await consumer.take(10)) == 1, "what was held back was not sent"


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 131_063, 131_064, 131_065, 262_144])
async def test_body_of_any_size_arrives_whole(broker_url, open_either, size):
    body = bytes(number % 251 for number in range(size))
    async with open_consumer(broker_url) as consumer, open_either(broker_url) as publisher:
        assert await publisher.publish([make_message("tests.one", body)]) == [C]
        (found,) = await take_exactly(consumer, 1)
    assert found.body == body
