"""Replies are written a few at a time when they are large, and every command is acknowledged."""

from typing import Any

from saga_engine.participant.reply_publisher import Replies
from saga_engine.settings import Settings
from saga_engine.telemetry.events import MessagesPublished
from tests.broker.links import consumer_of, publisher_to, take
from tests.broker.messages import message

NUMBER, SIZE = 6, 10_000


async def test_large_replies_are_written_a_few_at_a_time(broker_url):
    told: list[Any] = []
    async with publisher_to(broker_url) as publisher, consumer_of(broker_url) as consumer:
        await publisher.publish([message("tests.one") for _ in range(NUMBER)])
        commands = await take(consumer, NUMBER)
        settings = Settings(batch_bytes=2 * SIZE + 1)
        replies = Replies(publisher, consumer, settings, told.append)
        for command in commands:
            replies.add(command, message("tests.two", b"x" * SIZE))
        replies.finish()
        await replies.run()
        assert len(await take(consumer, NUMBER)) == NUMBER, "they come to the same queue"
        assert consumer._channel.held == NUMBER, "and the commands are acknowledged"
    published = [fact.messages for fact in told if isinstance(fact, MessagesPublished)]
    assert published == [2, 2, 2]
