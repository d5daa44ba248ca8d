"""Feeds to streams of RabbitMQ, and a sink alone."""

from typing import Any

import pytest

from saga_engine.events.feeds.event_encoder import JsonEncoder
from saga_engine.events.feeds.feed import StreamOptions
from saga_engine.events.feeds.producer_name import ProducerName
from saga_engine.events.feeds.stream_sink import StreamSink
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from tests.kit.feeds import order_event, running_feeds
from tests.kit.projections import FAST
from tests.kit.streams import STREAM_ORDERS, stream_feed, stream_url


@pytest.fixture
def stream_settings(rabbitmq, rabbitmq_url):
    """Where the streams of this test are; short timeouts."""
    return {
        "broker_url": rabbitmq_url,
        "broker_stream_url": stream_url(rabbitmq, rabbitmq_url),
        "broker_reconnect_backoff": 0.01,
        "broker_reconnect_backoff_max": 0.05,
    }


@pytest.fixture
def run_feed(event_url, rabbitmq_url, stream_settings):
    """Run a feed in this process, with other settings if they are given."""

    def run(feed, **settings: Any):
        chosen = {**stream_settings, **settings}
        return running_feeds(event_url, chosen.pop("broker_url"), [feed], **chosen)

    return run


@pytest.fixture
async def open_sink(stream_database, stream_settings):
    """Make a sink alone, without a feed that runs it; the positions up to 1,000 are drawn."""
    async with stream_database.transaction() as tx:
        await tx.execute(text("SELECT setval('saga_engine.event_position', 1000)"))

    def make(**options: Any) -> StreamSink:
        feed = stream_feed(**options)
        name = ProducerName.of(feed, STREAM_ORDERS, order_event(1).id)
        settings = Settings(**{**FAST, **stream_settings, "projection_lease": 5.0})
        (declared,) = feed.sinks.values()
        assert isinstance(declared, StreamOptions)
        return StreamSink(declared, JsonEncoder(), name, stream_database, settings)

    return make


@pytest.fixture
async def publisher_user(rabbitmq, rabbitmq_url, stream_settings):
    """Let the feed use a user of its own; set its permissions."""
    await rabbitmq.rabbitmqctl("add_user", "publisher", "publisher")
    for name in ("broker_url", "broker_stream_url"):
        changed = stream_settings[name].replace("guest:guest", "publisher:publisher")
        stream_settings[name] = changed

    async def set_permissions(*permissions: str) -> None:
        vhost = rabbitmq_url.rpartition("/")[2]
        await rabbitmq.rabbitmqctl("set_permissions", "-p", vhost, "publisher", *permissions)

    yield set_permissions
    await rabbitmq.rabbitmqctl("delete_user", "publisher")
