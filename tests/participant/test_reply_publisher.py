"""Replies are written a few at a time when they are large, and every command is acknowledged."""

from typing import Any

from saga_engine.participant.reply_publisher import ReplyPublisher
from saga_engine.settings import Settings
from saga_engine.telemetry.events import MessagesPublished
from tests.kit.connections import open_consumer, open_publisher, take_exactly
from tests.kit.messages import make_message

NUMBER, SIZE = 6, 10_000


async def test_large_replies_are_written_a_few_at_a_time(broker_url):
    emitted: list[Any] = []
    async with open_publisher(broker_url) as publisher, open_consumer(broker_url) as consumer:
        await publisher.publish([make_message("tests.one") for _ in range(NUMBER)])
        commands = await take_exactly(consumer, NUMBER)
        settings = Settings(max_batch_bytes=2 * SIZE + 1)
        replies = ReplyPublisher(publisher, consumer, settings, emitted.append)
        for command in commands:
            replies.add(command, make_message("tests.two", b"x" * SIZE))
        replies.stop_accepting()
        await replies.run()
        assert len(await take_exactly(consumer, NUMBER)) == NUMBER, "they come to the same queue"
        assert consumer._channel.unacked_count == NUMBER, "and the commands are acknowledged"
    published = [event.messages for event in emitted if isinstance(event, MessagesPublished)]
    assert published == [2, 2, 2]
