"""Bytes that no client library sends are delivered unchanged or close the connection."""

import asyncio
import random
import struct

import aio_pika
import pytest
from pamqp import commands, frame

from saga_engine.amqp import tolerant_decoding
from saga_engine.embedded.broker.exchange import Exchange
from tests.kit.amqp_properties import PROPERTIES, content_header
from tests.kit.raw_amqp import BODY, CLOSE, HEADER, METHOD, RawAmqpClient
from tests.kit.servers import url_of_broker


@pytest.fixture(
    params=["development", pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.long])]
)
def broker_url(request: pytest.FixtureRequest) -> str:
    """The development broker, and RabbitMQ, with which it is compared."""
    return url_of_broker(request)


PUBLISH = struct.pack(">HHH", 60, 40, 0)
ORDERS = b"\x00\x06orders\x00"


# Properties that the broker acts upon or refuses: CC, user id, expiration, delivery mode.
ACTED_UPON = ("B41", "B42", "B43", "B44 delivery_mode")
UNTOUCHED = {name: each for name, each in PROPERTIES.items() if not name.startswith(ACTED_UPON)}


@pytest.mark.parametrize(("flags", "properties"), UNTOUCHED.values(), ids=UNTOUCHED)
async def test_properties_are_delivered_byte_by_byte(broker_url, flags, properties):
    async with RawAmqpClient.connect(broker_url) as client:
        await client.call(commands.Queue.Declare(queue="orders"))
        await client.call(commands.Confirm.Select())
        sent = content_header(flags, properties, 4)
        client.send_frame(METHOD, PUBLISH + ORDERS)
        client.send_frame(HEADER, sent)
        client.send_frame(BODY, b"body")
        assert isinstance(await client.read_method(), commands.Basic.Ack)
        client.send(commands.Basic.Get(queue="orders", no_ack=True))
        assert isinstance(await client.read_method(), commands.Basic.GetOk)
        assert await client.read() == (HEADER, sent)
        assert await client.read() == (BODY, b"body")


async def test_a_routing_key_that_is_not_utf8_is_delivered(broker_url):
    async with RawAmqpClient.connect(broker_url) as client:
        await client.call(commands.Queue.Declare(queue="orders"))
        await client.call(commands.Queue.Bind(queue="orders", exchange="amq.fanout"))
        client.send_frame(METHOD, PUBLISH + b"\x0aamq.fanout\x02\xff\xfe\x00")
        client.send_frame(HEADER, content_header(0, b"", 0))
        client.send(commands.Basic.Get(queue="orders", no_ack=True))
        _, got = await client.read()
        assert b"\x0aamq.fanout\x02\xff\xfe" in got


MALFORMED = {
    "no frame end": b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x0a\x00",
    "a frame too large": b"\x01\x00\x01\xff\xff\xff\xff",
    "an unknown frame type": b"\x07\x00\x01\x00\x00\x00\x00\xce",
    "an unknown method": b"\x01\x00\x01\x00\x00\x00\x04\x03\xe7\x03\xe7\xce",
    "an empty method": b"\x01\x00\x01\x00\x00\x00\x00\xce",
    "a body before its header": b"\x03\x00\x01\x00\x00\x00\x01x\xce",
    "a header before its publish": b"\x02\x00\x01\x00\x00\x00\x0e" + bytes(14) + b"\xce",
    "a method on a channel that is not open": frame.marshal(commands.Basic.Qos(), 9),
    "a method for channel 0 on channel 1": frame.marshal(CLOSE, 1),
    "a method for a channel on channel 0": frame.marshal(commands.Basic.Qos(), 0),
    "a second channel.open": frame.marshal(commands.Channel.Open(), 1),
    "a method of the broker's": frame.marshal(commands.Queue.DeclareOk("x", 0, 0), 1),
    "an unknown type of exchange": frame.marshal(
        commands.Exchange.Declare(exchange="x", exchange_type="odd"), 1
    ),
}


@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_input_closes_its_own_connection_only(broker_url, malformed, caplog):
    async with await aio_pika.connect(broker_url) as other:
        async with RawAmqpClient.connect(broker_url) as client:
            client.send_bytes(malformed)
            # RabbitMQ closes the socket silently when the method is unknown.
            for close in await client.read_until_close():
                assert isinstance(close, commands.Connection.Close)
                assert close.reply_code is not None
                assert close.reply_code >= 500
        queue = await (await other.channel()).declare_queue("unharmed")
        assert queue.name == "unharmed"
    assert "development broker failed" not in caplog.text


async def test_a_body_longer_than_its_header_closes_the_connection(development_broker):
    async with RawAmqpClient.connect(development_broker.url) as client:
        client.send_frame(METHOD, PUBLISH + ORDERS)
        client.send_frame(HEADER, content_header(0, b"", 2))
        client.send_frame(BODY, b"three")
        (close,) = await client.read_until_close()
        assert isinstance(close, commands.Connection.Close)


async def test_a_body_that_is_too_large_is_refused_at_its_header(development_broker):
    async with RawAmqpClient.connect(development_broker.url) as client:
        client.send_frame(METHOD, PUBLISH + ORDERS)
        client.send_frame(HEADER, content_header(0, b"", 2**40))
        (close, _) = await client.read_until_close()
        assert isinstance(close, commands.Channel.Close)
        assert close.reply_code == 406


async def test_a_queue_name_that_cannot_be_encoded_is_refused(development_broker, caplog):
    # A worker installs decoders that replace undecodable bytes.
    tolerant_decoding.install_decoders()
    async with RawAmqpClient.connect(development_broker.url) as client:
        whole = frame.marshal(commands.Queue.Declare(queue="orders"), 1)
        client.send_bytes(whole.replace(b"orders", b"or\xffers"))
        (close, _) = await client.read_until_close()
        assert isinstance(close, commands.Channel.Close)
        assert close.reply_code == 406
    assert "development broker failed" not in caplog.text


@pytest.mark.parametrize("seed", range(20))
async def test_damaged_frames_never_break_the_broker(development_broker, caplog, seed):
    rng = random.Random(seed)
    whole = b"".join(
        [
            frame.marshal(commands.Queue.Declare(queue="orders", arguments={"a": [1]}), 1),
            frame.marshal(commands.Basic.Consume(queue="orders", consumer_tag="me"), 1),
            struct.pack(">BHI", METHOD, 1, 15) + PUBLISH + ORDERS + b"\xce",
            frame.marshal(commands.Basic.Ack(1, multiple=True), 1),
        ]
    )
    async with RawAmqpClient.connect(development_broker.url) as client:
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        client.send_bytes(bytes(damaged) + b"\xff" * 200_000)  # Completes any frame.
        await client.read_until_close()
    async with await aio_pika.connect(development_broker.url) as other:
        queue = await (await other.channel()).declare_queue("unharmed")
        assert queue.name == "unharmed"
    assert "development broker failed" not in caplog.text


async def test_another_protocol_is_answered_with_the_supported_version(broker_url):
    host, port = broker_url.partition("@")[2].split("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(60):
        assert await reader.readexactly(8) == b"AMQP\x00\x00\x09\x01"
    writer.close()


def test_a_routing_key_of_a_thousand_dots_is_matched_in_linear_time():
    exchange = Exchange(
        name="events", exchange_type="topic", bindings={("orders", ".".join("#" * 40) + ".end")}
    )
    assert exchange.matching_queues("." * 1000) == set()
    assert exchange.matching_queues("a." * 20 + "end") == {"orders"}
