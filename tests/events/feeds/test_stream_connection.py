"""A connection by the stream protocol is opened again, and says why it cannot be."""

import sys
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from saga_engine.embedded.server_process import free_port
from saga_engine.errors import BrokerUnavailable, ConfigurationError
from saga_engine.protocol.message import PublishOutcome
from tests.kit.connections import wait_until
from tests.kit.feeds import every_event, order_event, running_feeds, wait_for_feed
from tests.kit.projections import append_orders
from tests.kit.proxy import running_proxy
from tests.kit.streams import THREE, stored_messages, stream_feed

pytestmark = pytest.mark.rabbitmq


async def test_a_wrong_password_is_named_at_the_start(open_sink, stream_settings):
    stream_settings["broker_stream_url"] = stream_settings["broker_stream_url"].replace(
        "guest:guest", "guest:wrong"
    )
    with pytest.raises(ConfigurationError, match="refuses this user or password") as refused:
        async with open_sink():
            pass
    assert "SAGA_ENGINE_BROKER_STREAM_URL" in str(refused.value)
    assert "wrong" not in str(refused.value)


async def test_a_virtual_host_that_is_missing_is_named(open_sink, stream_settings):
    stream_settings["broker_stream_url"] += "-none"
    with pytest.raises(
        ConfigurationError, match=r"^RabbitMQ at 127.0.0.1:\d+ has no virtual host '.+-none',"
    ):
        async with open_sink():
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_without_the_plugin_the_command_that_enables_it_is_named(
    open_sink, stream_settings, host
):
    stream_settings["broker_stream_url"] = f"rabbitmq-stream://guest:guest@{host}:{free_port()}/"
    with pytest.raises(BrokerUnavailable, match="rabbitmq-plugins enable rabbitmq_stream") as error:
        async with open_sink():
            pass
    assert "by the stream protocol: Connection refused. Start it" in str(error.value)
    assert "orrect the address" not in str(error.value)


async def test_the_port_of_another_protocol_is_suspected_when_nothing_answers(
    open_sink, stream_settings
):
    port = urlsplit(stream_settings["broker_url"]).port
    stream_settings["broker_stream_url"] = f"rabbitmq-stream://guest:guest@127.0.0.1:{port}/"
    stream_settings["broker_connect_timeout"] = 0.5
    with pytest.raises(BrokerUnavailable, match=r"broker_connect_timeout, .* AMQP .* has 5552"):
        async with open_sink():
            pass


async def test_a_half_open_connection_is_dropped_and_no_event_is_lost(
    events, rabbitmq_url, stream_database, run_feed, stream_settings
):
    async with running_proxy(stream_settings["broker_stream_url"]) as proxy:
        url = proxy.url
        async with run_feed(
            stream_feed(partitions=3), broker_stream_url=url, broker_confirm_timeout=0.5
        ):
            await append_orders(events, 2)
            await wait_for_feed(stream_database, await events.position())
            proxy.drop_open_connections()
            await append_orders(events, 2, seed=1)
            await wait_for_feed(stream_database, await events.position())
            proxy.reset()
            await append_orders(events, 2, seed=2)
            await wait_for_feed(stream_database, await events.position())
    expected = await every_event(events)
    (await stored_messages(rabbitmq_url, *THREE, count=len(expected))).check(expected)


@asynccontextmanager
async def idle_sink(open_sink, stream_settings):
    """A sink behind a proxy with nothing to publish; after the block it has to publish again."""
    async with running_proxy(stream_settings["broker_stream_url"]) as proxy:
        stream_settings["broker_stream_url"] = proxy.url
        stream_settings["broker_heartbeat"] = 5
        async with open_sink() as sink:
            await sink.resume(0)
            yield sink, proxy
            await wait_until(lambda: sink.problem is None)
            assert await sink.publish([order_event(1)]) == [PublishOutcome.CONFIRMED]


async def test_an_idle_connection_that_is_lost_is_noticed(open_sink, stream_settings):
    async with idle_sink(open_sink, stream_settings) as (sink, proxy):
        await proxy.refuse()
        await wait_until(lambda: sink.problem is not None)
        assert "out of reach" in sink.problem or "was lost" in sink.problem
        await proxy.accept()


@pytest.mark.long
async def test_an_idle_node_that_answers_nothing_is_noticed(open_sink, stream_settings):
    async with idle_sink(open_sink, stream_settings) as (_, proxy):
        opened = proxy.connections
        proxy.drop_open_connections()
        await wait_until(lambda: proxy.connections > opened)


async def test_a_missing_extra_is_named(event_url, monkeypatch):
    monkeypatch.setitem(sys.modules, "saga_engine.events.feeds.stream_sink", None)
    with pytest.raises(ConfigurationError, match=r"Install saga-engine\[streams\]"):
        async with running_feeds(event_url, "amqp://127.0.0.1:1/", [stream_feed()]):
            pass
