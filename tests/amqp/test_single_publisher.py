"""What is SinglePublisher's own; what it shares with Publisher is in test_interfaces."""

import aio_pika

from saga_engine.protocol.message import PublishOutcome
from tests.kit.connections import StateRecorder, open_single_publisher
from tests.kit.messages import make_message
from tests.kit.proxy import running_proxy


async def test_a_lost_connection_leaves_the_outcome_unknown_and_publishing_goes_on_after_it(
    broker_url,
):
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_single_publisher(proxy.url, observer) as publisher,
    ):
        assert await publisher.publish([make_message("tests.one")]) == [PublishOutcome.CONFIRMED]
        proxy.cut_before_answer(lambda data: b"tests.one" in data)
        assert await publisher.publish([make_message("tests.one")]) == [PublishOutcome.UNKNOWN]
        proxy.clear_faults()
        await observer.wait_for(lambda state: state.generation == 2)
        assert await publisher.publish([make_message("tests.one")]) == [PublishOutcome.CONFIRMED]


async def test_it_publishes_over_a_channel_of_aio_pika(broker_url):
    async with open_single_publisher(broker_url) as publisher:
        await publisher.publish([make_message("tests.one")])
        assert isinstance(publisher._channel, aio_pika.Channel)
