"""The development broker behaves like RabbitMQ: every test runs on both, with aio-pika."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import (
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    ProbableAuthenticationError,
    PublishError,
    QueueEmpty,
)
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, InvalidFrameError
from pamqp import commands
from pamqp.common import FieldTable

QUORUM = {"x-queue-type": "quorum"}
PATIENCE = 10.0  # Seconds until a test fails.


@pytest.fixture
async def connection(broker_url: str) -> AsyncIterator[AbstractConnection]:
    connection = await aio_pika.connect(broker_url)
    yield connection
    await connection.close()


@pytest.fixture
async def channel(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel(on_return_raises=True)


async def publish(channel: AbstractChannel, queue: str, body: bytes = b"{}", **properties):
    message = aio_pika.Message(body, **properties)
    return await channel.default_exchange.publish(message, queue, timeout=PATIENCE)


async def consume(queue, *, no_ack: bool = False) -> "asyncio.Queue[AbstractIncomingMessage]":
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(arrived.put, no_ack=no_ack)
    return arrived


async def next_of(arrived: asyncio.Queue):
    async with asyncio.timeout(PATIENCE):
        return await arrived.get()


class TestPublishing:
    async def test_a_routed_publish_is_confirmed(self, channel):
        await channel.declare_queue("orders")
        assert isinstance(await publish(channel, "orders"), commands.Basic.Ack)

    async def test_an_unroutable_mandatory_message_is_returned(self, channel):
        with pytest.raises(PublishError) as caught:
            await publish(channel, "unbound", b"who", message_id="m-1")
        returned = caught.value.message
        assert returned is not None
        assert isinstance(returned.delivery, commands.Basic.Return)
        assert returned.delivery.reply_text == "NO_ROUTE"
        assert returned.delivery.reply_code == 312
        assert returned.body == b"who"
        assert returned.header.properties.message_id == "m-1"

    async def test_a_message_reaches_the_queues_of_all_its_keys_once(self, channel):
        queues = [await channel.declare_queue(name) for name in ("one", "two", "three")]
        keys = {"CC": ["two", "nowhere"], "BCC": ["three", "one"]}
        await publish(channel, "one", b"x", headers=keys)
        for queue in queues:
            arrived = await queue.get(no_ack=True)
            assert arrived.headers == {"CC": ["two", "nowhere"]}
            assert await queue.get(no_ack=True, fail=False) is None

    async def test_a_message_is_routed_if_any_of_its_keys_is_bound(self, channel):
        await channel.declare_queue("bound")
        keys = {"BCC": ["bound"]}
        assert isinstance(await publish(channel, "unbound", headers=keys), commands.Basic.Ack)

    async def test_a_header_of_keys_must_be_a_list(self, channel):
        with pytest.raises(ChannelPreconditionFailed):
            await publish(channel, "orders", headers={"BCC": "orders"})

    async def test_an_unroutable_message_that_is_not_mandatory_is_confirmed(self, channel):
        message = aio_pika.Message(b"x")
        exchange = channel.default_exchange
        confirmed = await exchange.publish(message, "unbound", mandatory=False, timeout=PATIENCE)
        assert isinstance(confirmed, commands.Basic.Ack)

    async def test_a_publish_to_a_missing_exchange_closes_the_channel(self, channel):
        exchange = await channel.get_exchange("missing", ensure=False)
        with pytest.raises(ChannelNotFoundEntity, match="no exchange 'missing'"):
            await exchange.publish(aio_pika.Message(b"x"), "key", timeout=PATIENCE)

    @pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
    async def test_a_body_of_any_number_of_frames_is_delivered(self, channel, size):
        queue = await channel.declare_queue("large")
        body = bytes(index % 251 for index in range(size))
        await publish(channel, "large", body)
        arrived = await queue.get(no_ack=True)
        assert arrived.body == body

    async def test_headers_of_every_type_are_delivered_unchanged(self, channel):
        queue = await channel.declare_queue("headers")
        headers = {
            "text": "žluťoučký",
            "number": 2**40,
            "negative": -1,
            "truth": True,
            "nothing": None,
            "float": 1.5,
            "decimal": Decimal("3.14"),
            "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "list": [1, "two", [3.5]],
            "table": {"inner": {"deeper": "yes"}},
            "bytes": bytearray(b"\x00\xff"),
        }
        await publish(channel, "headers", headers=headers)
        assert (await queue.get(no_ack=True)).headers == headers

    async def test_every_property_is_delivered_unchanged(self, channel):
        queue = await channel.declare_queue("properties")
        properties: dict[str, Any] = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": aio_pika.DeliveryMode.PERSISTENT,
            "priority": 3,
            "correlation_id": "c",
            "reply_to": "r",
            "message_id": "m",
            "timestamp": datetime(2026, 1, 2, tzinfo=UTC),
            "type": "t",
            "user_id": "guest",
            "app_id": "a",
        }
        await publish(channel, "properties", **properties)
        arrived = await queue.get(no_ack=True)
        assert {name: getattr(arrived, name) for name in properties} == properties

    async def test_a_forged_user_id_closes_the_channel(self, channel):
        await channel.declare_queue("orders")
        with pytest.raises(ChannelPreconditionFailed, match="authenticated user was 'guest'"):
            await publish(channel, "orders", user_id="admin")

    async def test_a_full_queue_with_reject_publish_nacks(self, channel):
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        await channel.declare_queue("small", arguments=arguments)
        await publish(channel, "small")
        with pytest.raises(DeliveryError):
            await publish(channel, "small")


class TestPriorities:
    async def test_the_consumer_with_the_highest_priority_gets_messages_until_it_is_full(
        self, channel
    ):
        await channel.set_qos(prefetch_count=2)
        queue = await channel.declare_queue("orders")
        arrived: dict[str, asyncio.Queue] = {}
        for name, priority in (("low", 0), ("high", 5), ("middle", 1)):
            arrived[name] = asyncio.Queue()
            await queue.consume(arrived[name].put, arguments={"x-priority": priority})
        for number in range(5):
            await publish(channel, "orders", str(number).encode())
        bodies = {
            name: [(await next_of(arrived[name])).body for _ in range(count)]
            for name, count in (("high", 2), ("middle", 2), ("low", 1))
        }
        assert bodies == {"high": [b"0", b"1"], "middle": [b"2", b"3"], "low": [b"4"]}

    async def test_a_priority_must_be_an_integer(self, channel):
        queue = await channel.declare_queue("orders")
        with pytest.raises(ChannelPreconditionFailed):
            await queue.consume(print, arguments={"x-priority": "high"})


class TestRouting:
    @pytest.mark.parametrize(
        ("binding", "key", "expected"),
        [
            ("shop.pay", "shop.pay", True),
            ("shop.*", "shop.pay", True),
            ("shop.*", "shop", False),
            ("shop.*", "shop.pay.now", False),
            ("shop.#", "shop", True),
            ("shop.#", "shop.pay.now", True),
            ("#", "", True),
            ("*", "", False),
            ("#.pay.#", "shop.pay.now.later", True),
            ("#.*.#", "shop", True),
            ("*.#.*", "shop", False),
        ],
    )
    async def test_a_topic_exchange_matches_words(self, channel, binding, key, expected):
        exchange = await channel.declare_exchange("events", aio_pika.ExchangeType.TOPIC)
        queue = await channel.declare_queue("listener")
        await queue.bind(exchange, binding)
        await exchange.publish(aio_pika.Message(b"x"), key, mandatory=False, timeout=PATIENCE)
        assert (await queue.get(fail=False, no_ack=True) is not None) is expected

    async def test_two_matching_bindings_route_a_message_once(self, channel):
        exchange = await channel.declare_exchange("events", aio_pika.ExchangeType.TOPIC)
        queue = await channel.declare_queue("listener")
        await queue.bind(exchange, "a.*")
        await queue.bind(exchange, "#")
        await exchange.publish(aio_pika.Message(b"x"), "a.b", timeout=PATIENCE)
        assert (await channel.declare_queue("listener", passive=True)).declaration_result
        await queue.get(no_ack=True)
        with pytest.raises(QueueEmpty):
            await queue.get()

    async def test_a_fanout_exchange_routes_to_every_bound_queue(self, channel):
        exchange = await channel.declare_exchange("news", aio_pika.ExchangeType.FANOUT)
        queues = [await channel.declare_queue(name) for name in ("one", "two", "three")]
        for queue in queues:
            await queue.bind(exchange)
        await queues[2].unbind(exchange)
        await exchange.publish(aio_pika.Message(b"x"), "any", timeout=PATIENCE)
        got = [await queue.get(fail=False, no_ack=True) for queue in queues]
        assert [message is not None for message in got] == [True, True, False]


class TestDeclaring:
    @pytest.mark.parametrize(
        ("first", "second", "named"),
        [
            ({}, {"arguments": {"x-message-ttl": 5}}, "x-message-ttl"),
            ({"durable": True}, {"durable": False}, "durable"),
            ({"durable": True, "arguments": QUORUM}, {"durable": True}, "x-queue-type"),
            ({}, {"auto_delete": True}, "auto_delete"),
        ],
    )
    async def test_a_queue_is_not_redeclared_with_other_properties(
        self, channel, first, second, named
    ):
        await channel.declare_queue("orders", **first)
        await channel.declare_queue("orders", **first)
        with pytest.raises(ChannelPreconditionFailed, match=f"inequivalent arg '{named}'"):
            await channel.declare_queue("orders", **second)

    async def test_an_exchange_is_not_redeclared_with_another_type(self, channel):
        await channel.declare_exchange("events", aio_pika.ExchangeType.TOPIC)
        with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'type'"):
            await channel.declare_exchange("events", aio_pika.ExchangeType.DIRECT)

    async def test_a_passive_declare_of_a_missing_queue_is_not_found(self, channel):
        with pytest.raises(ChannelNotFoundEntity, match="no queue 'missing'"):
            await channel.declare_queue("missing", passive=True)

    async def test_a_passive_declare_of_a_missing_exchange_is_not_found(self, channel):
        with pytest.raises(ChannelNotFoundEntity, match="no exchange 'missing'"):
            await channel.declare_exchange("missing", passive=True)

    async def test_reserved_names_are_refused(self, connection):
        for declare in ("declare_queue", "declare_exchange"):
            channel = await connection.channel()
            with pytest.raises(ChannelAccessRefused, match="reserved prefix"):
                await getattr(channel, declare)("amq.mine")

    async def test_a_delivery_limit_is_for_quorum_queues_only(self, channel):
        with pytest.raises(ChannelPreconditionFailed, match="x-delivery-limit"):
            await channel.declare_queue("orders", arguments={"x-delivery-limit": 3})

    async def test_a_quorum_queue_must_be_durable(self, channel):
        with pytest.raises(ChannelPreconditionFailed, match="invalid property 'non-durable'"):
            await channel.declare_queue("orders", durable=False, arguments=QUORUM)

    async def test_an_exclusive_queue_is_locked_and_deleted_with_its_connection(
        self, connection, broker_url
    ):
        async with await aio_pika.connect(broker_url) as owner:
            await (await owner.channel()).declare_queue("mine", exclusive=True)
            with pytest.raises(ChannelLockedResource):
                await (await connection.channel()).declare_queue("mine", passive=True)
        with pytest.raises(ChannelNotFoundEntity):
            await (await connection.channel()).declare_queue("mine", passive=True)

    async def test_an_auto_delete_queue_is_deleted_with_its_last_consumer(self, channel):
        queue = await channel.declare_queue("short-lived", auto_delete=True)
        tag = await queue.consume(asyncio.Queue().put)
        await queue.cancel(tag)
        with pytest.raises(ChannelNotFoundEntity):
            await channel.declare_queue("short-lived", passive=True)

    async def test_a_purge_returns_the_number_of_messages(self, channel):
        queue = await channel.declare_queue("orders")
        for _ in range(3):
            await publish(channel, "orders")
        assert (await queue.purge()).message_count == 3

    async def test_the_bindings_of_a_deleted_queue_are_deleted(self, channel):
        queue = await channel.declare_queue("orders")
        await queue.bind("amq.direct", "key")
        await queue.delete()
        await channel.declare_queue("orders")
        exchange = await channel.get_exchange("amq.direct")
        with pytest.raises(PublishError):
            await exchange.publish(aio_pika.Message(b"x"), "key", timeout=PATIENCE)

    async def test_deleting_a_missing_queue_succeeds(self, channel):
        assert (await channel.queue_delete("missing")).message_count == 0

    async def test_if_unused_and_if_empty_prevent_a_delete(self, connection):
        channel = await connection.channel()
        queue = await channel.declare_queue("orders")
        await publish(channel, "orders")
        with pytest.raises(ChannelPreconditionFailed, match="not empty"):
            await queue.delete(if_unused=False, if_empty=True)
        channel = await connection.channel()
        queue = await channel.get_queue("orders")
        await consume(queue)
        with pytest.raises(ChannelPreconditionFailed, match="in use"):
            await queue.delete(if_unused=True, if_empty=False)


class TestConsuming:
    @pytest.mark.parametrize("arguments", [{}, QUORUM], ids=["classic", "quorum"])
    async def test_prefetch_limits_unacknowledged_messages(self, channel, arguments):
        await channel.set_qos(prefetch_count=2)
        queue = await channel.declare_queue("orders", durable=True, arguments=arguments)
        for number in range(5):
            await publish(channel, "orders", bytes([number]))
        arrived = await consume(queue)
        first, second = await next_of(arrived), await next_of(arrived)
        await assert_ready(channel, "orders", 3)
        assert arrived.empty()
        await first.ack()
        assert (await next_of(arrived)).body == bytes([2])
        await second.ack()

    async def test_ack_multiple_acknowledges_all_earlier_deliveries(self, channel):
        await channel.set_qos(prefetch_count=3)
        queue = await channel.declare_queue("orders", durable=True, arguments=QUORUM)
        for number in range(6):
            await publish(channel, "orders", bytes([number]))
        arrived = await consume(queue)
        held = [await next_of(arrived) for _ in range(3)]
        await held[2].ack(multiple=True)
        assert [(await next_of(arrived)).body for _ in range(3)] == [b"\x03", b"\x04", b"\x05"]

    async def test_a_requeued_message_is_redelivered_at_its_position(self, channel):
        queue = await channel.declare_queue("orders")
        for number in range(3):
            await publish(channel, "orders", bytes([number]))
        first = await queue.get()
        second = await queue.get()
        assert not first.redelivered
        await first.reject(requeue=True)
        await second.reject(requeue=True)
        again = [await queue.get(no_ack=True) for _ in range(3)]
        assert [message.body for message in again] == [b"\x00", b"\x01", b"\x02"]
        assert [message.redelivered for message in again] == [True, True, False]

    async def test_a_closed_channel_requeues_its_messages_in_order(self, connection):
        first = await connection.channel()
        queue = await first.declare_queue("orders")
        for number in range(3):
            await publish(first, "orders", bytes([number]))
        arrived = await consume(queue)
        for _ in range(3):
            await next_of(arrived)
        await first.close()
        queue = await (await connection.channel()).get_queue("orders")
        again = await consume(queue)
        assert [(await next_of(again)).body for _ in range(3)] == [b"\x00", b"\x01", b"\x02"]

    @pytest.mark.parametrize("arguments", [{}, QUORUM], ids=["classic", "quorum"])
    async def test_messages_requeued_together_keep_their_order(self, channel, arguments):
        queue = await channel.declare_queue("orders", durable=True, arguments=arguments)
        for number in range(3):
            await publish(channel, "orders", bytes([number]))
        held = [await queue.get() for _ in range(3)]
        await held[2].nack(multiple=True, requeue=True)
        again = await consume(queue)
        assert [(await next_of(again)).body for _ in range(3)] == [b"\x00", b"\x01", b"\x02"]

    async def test_an_ordered_queue_gives_all_messages_to_one_consumer_at_a_time(self, connection):
        arguments = {**QUORUM, "x-single-active-consumer": True, "x-delivery-limit": 9}
        active, waiting = await connection.channel(), await connection.channel()
        arrived = []
        for channel in (active, waiting):
            await channel.set_qos(prefetch_count=2)
            queue = await channel.declare_queue("orders", durable=True, arguments=arguments)
            arrived.append(await consume(queue))
        for number in range(4):
            await publish(waiting, "orders", bytes([number]))
        first, second = await next_of(arrived[0]), await next_of(arrived[0])
        assert [first.body, second.body] == [bytes([0]), bytes([1])]
        await assert_ready(waiting, "orders", 2)
        assert arrived[1].empty()
        await active.close()
        for number in range(4):
            message = await next_of(arrived[1])
            assert message.body == bytes([number])
            await message.ack()

    async def test_a_quorum_queue_without_a_limit_requeues_at_the_end(self, channel):
        queue = await channel.declare_queue("orders", durable=True, arguments=QUORUM)
        for number in range(2):
            await publish(channel, "orders", bytes([number]))
        await (await queue.get()).reject(requeue=True)
        again = await consume(queue)
        assert [(await next_of(again)).body for _ in range(2)] == [b"\x01", b"\x00"]

    async def test_messages_are_delivered_round_robin(self, connection):
        consumers = []
        channels = [await connection.channel() for _ in range(2)]
        for channel in channels:
            await channel.set_qos(prefetch_count=10)
            consumers.append(await consume(await channel.declare_queue("orders")))
        for _ in range(4):
            await publish(channels[-1], "orders")
        for arrived in consumers:
            assert await next_of(arrived)
            assert await next_of(arrived)

    async def test_a_consumer_is_cancelled_when_its_queue_is_deleted(self, connection, channel):
        cancelled: asyncio.Queue[commands.Basic.Cancel] = asyncio.Queue()
        queue = await channel.declare_queue("orders")
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(cancelled.put)
        tag = await queue.consume(asyncio.Queue().put)
        await (await connection.channel()).queue_delete("orders")
        assert (await next_of(cancelled)).consumer_tag == tag

    async def test_an_exclusive_consumer_excludes_others(self, connection, channel):
        queue = await channel.declare_queue("orders")
        await queue.consume(asyncio.Queue().put, exclusive=True)
        other = await (await connection.channel()).get_queue("orders")
        with pytest.raises(ChannelAccessRefused, match="exclusive use"):
            await consume(other)

    @pytest.mark.parametrize("multiple", [False, True])
    async def test_an_unknown_delivery_tag_closes_the_channel(self, channel, multiple):
        closed: asyncio.Queue[BaseException | None] = asyncio.Queue()
        underlay = await channel.get_underlay_channel()
        channel.close_callbacks.add(lambda _, error: closed.put_nowait(error))
        await underlay.basic_ack(17, multiple=multiple)
        error = await next_of(closed)
        assert isinstance(error, ChannelPreconditionFailed)
        assert "unknown delivery tag 17" in str(error)

    async def test_get_from_an_empty_queue_returns_nothing(self, channel):
        queue = await channel.declare_queue("orders")
        assert await queue.get(fail=False) is None


class TestDying:
    async def test_a_message_over_the_delivery_limit_is_dead_lettered(self, channel):
        await channel.declare_queue("graves", durable=True)
        arguments = {
            **QUORUM,
            "x-delivery-limit": 3,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "graves",
        }
        queue = await channel.declare_queue("orders", durable=True, arguments=arguments)
        await publish(channel, "orders", b"poison")
        arrived = await consume(queue)
        counts = []
        for _ in range(4):
            message = await next_of(arrived)
            counts.append(message.headers.get("x-delivery-count", 0))
            await message.reject(requeue=True)
        assert counts == [0, 1, 2, 3]
        letter = await next_of(await consume(await channel.get_queue("graves"), no_ack=True))
        (death,) = letter.headers["x-death"]
        assert letter.body == b"poison"
        assert (death["queue"], death["reason"]) == ("orders", "delivery_limit")
        assert death["count"] == 1

    @pytest.mark.parametrize("where", ["queue", "message"])
    async def test_an_expired_message_is_dead_lettered(self, channel, where):
        graves = await channel.declare_queue("graves")
        arguments: FieldTable = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "graves",
        }
        own: dict[str, Any] = {"expiration": 0.05} if where == "message" else {}
        if where == "queue":
            arguments["x-message-ttl"] = 50
        await channel.declare_queue("waiting", arguments=arguments)
        arrived = await consume(graves, no_ack=True)
        await publish(channel, "waiting", headers={"mine": 1}, **own)
        letter = await next_of(arrived)
        (death,) = letter.headers["x-death"]
        assert (death["queue"], death["reason"], death["count"]) == ("waiting", "expired", 1)
        assert (death["exchange"], death["routing-keys"]) == ("", ["waiting"])
        assert death.get("original-expiration") == ("50" if where == "message" else None)
        assert letter.headers["x-first-death-queue"] == "waiting"
        assert letter.headers["x-first-death-reason"] == "expired"
        assert letter.headers["mine"] == 1
        assert letter.expiration is None

    async def test_repeated_dead_lettering_is_counted(self, channel):
        """work -rejected-> pause -expired-> work: the usual delayed retry."""
        to_work = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "work"}
        to_pause = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "pause"}
        await channel.declare_queue("pause", arguments={"x-message-ttl": 20, **to_work})
        arrived = await consume(await channel.declare_queue("work", arguments=to_pause))
        await publish(channel, "work")
        for _ in range(2):
            await (await next_of(arrived)).reject(requeue=False)
        last = await next_of(arrived)
        deaths = [
            (death["queue"], death["reason"], death["count"]) for death in last.headers["x-death"]
        ]
        assert deaths == [("pause", "expired", 2), ("work", "rejected", 2)]

    async def test_a_message_in_a_dead_letter_cycle_is_dropped(self, channel):
        circle = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "circle"}
        await channel.declare_queue("circle", arguments={"x-message-ttl": 1, **circle})
        await publish(channel, "circle")
        await assert_ready(channel, "circle", 0)

    async def test_a_full_queue_drops_its_oldest_message(self, channel):
        graves = await channel.declare_queue("graves")
        arguments = {
            "x-max-length": 2,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "graves",
        }
        await channel.declare_queue("small", arguments=arguments)
        for number in range(3):
            await publish(channel, "small", bytes([number]))
        letter = await next_of(await consume(graves, no_ack=True))
        assert letter.body == b"\x00"
        assert letter.headers["x-death"][0]["reason"] == "maxlen"

    @pytest.mark.parametrize("expiration", ["abc", "-1", "1099511627776"])
    async def test_an_invalid_expiration_closes_the_channel(self, channel, expiration):
        await channel.declare_queue("orders")
        underlay = await channel.get_underlay_channel()
        properties = commands.Basic.Properties(expiration=expiration)
        with pytest.raises(ChannelPreconditionFailed):
            await underlay.basic_publish(b"x", routing_key="orders", properties=properties)


class TestConnecting:
    async def test_a_wrong_password_is_refused(self, broker_url):
        with pytest.raises(ProbableAuthenticationError, match="ACCESS_REFUSED"):
            await aio_pika.connect(broker_url.replace("guest:guest", "guest:wrong"))

    async def test_an_unknown_user_is_refused(self, broker_url):
        with pytest.raises(ProbableAuthenticationError, match="ACCESS_REFUSED"):
            await aio_pika.connect(broker_url.replace("guest:guest", "mallory:guest"))

    async def test_an_unknown_virtual_host_is_refused(self, broker_url):
        # aiormq does not read the reason here; it only reports that it did not get open-ok.
        with pytest.raises(InvalidFrameError, match=r"got <Connection\.Close"):
            await aio_pika.connect(broker_url.rpartition("/")[0] + "/nowhere")

    async def test_a_closed_channel_does_not_affect_others(self, connection):
        good, bad = await connection.channel(), await connection.channel()
        with pytest.raises(ChannelClosed):
            await bad.declare_queue("missing", passive=True)
        assert (await good.declare_queue("fine")).name == "fine"


async def assert_ready(channel: AbstractChannel, queue: str, expected: int) -> None:
    """Poll, because a quorum queue updates its counters later and nothing signals that."""
    underlay = await channel.get_underlay_channel()
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await underlay.queue_declare(queue, passive=True)
            if found.message_count == expected:
                return
