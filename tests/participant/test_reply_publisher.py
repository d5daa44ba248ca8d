"""Replies are written a few at a time when they are large, and every command is acknowledged."""

from typing import Any

from saga_engine.participant.reply_publisher import ReplyPublisher
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    MessageDeadLettered,
    MessagesPublished,
    ProcessStopped,
)
from saga_engine.vocabulary import (
    Outcome,
)
from tests.kit.broker_faults import nack
from tests.kit.connections import open_consumer, open_publisher, take_exactly
from tests.kit.messages import make_message
from tests.kit.participant_service import command_sender, engine_stub, is_reply, running_service
from tests.kit.payments_participant import (
    PaymentsParticipant,
    make_command,
)

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


async def test_a_reply_that_the_broker_nacks_is_sent_again(development_broker):
    ids = set()

    def noted(message):
        if is_reply(message):
            ids.add(message.properties.message_id)
        return is_reply(message)

    refused = development_broker.faults.on_publish(noted, nack, max_count=3)
    url = development_broker.url
    async with engine_stub(url) as engine, running_service(url, PaymentsParticipant()) as running:
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        assert refused.fired_count == len(ids) == 3
        await running.events.wait_until(lambda event: getattr(event, "outcome", "") == "confirmed")
        outcomes = [event.outcome for event in running.events.matching(MessagesPublished)]
        assert outcomes == ["nacked", "nacked", "nacked", "confirmed"]


def returned(event):
    return isinstance(event, MessagesPublished) and event.outcome == "unroutable"


async def test_an_unroutable_reply_is_kept_until_an_engine_starts(broker_url):
    async with (
        command_sender(broker_url) as sender,
        running_service(broker_url, PaymentsParticipant()) as running,
    ):
        await sender.send(make_command())
        await running.events.wait_until(returned)
        async with engine_stub(broker_url) as engine:
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED


async def test_a_reply_without_a_queue_is_given_up_and_delays_no_other(broker_url):
    changes = {"participant_reply_retry_timeout": 0.2, "participant_prefetch": 2}
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant(), **changes) as running,
    ):
        await engine.send(make_command(), reply_to="saga.replies.nowhere")
        await running.events.wait_until(returned)
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        given_up = await running.events.wait_until(
            lambda event: isinstance(event, MessageDeadLettered)
        )
        assert given_up.reason == "reply_unroutable"


async def test_replies_to_foreign_queues_do_not_occupy_the_prefetch(broker_url):
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant(), participant_prefetch=2) as running,
    ):
        for _ in range(6):
            await engine.send(make_command(), reply_to="nowhere")
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        await running.events.wait_for(MessageDeadLettered, 6)
        assert len(running.events.matching(MessageDeadLettered)) == 6


async def test_a_shutdown_leaves_an_unroutable_reply_to_the_next_process(broker_url):
    async with command_sender(broker_url) as sender:
        async with running_service(broker_url, PaymentsParticipant()) as running:
            await sender.send(make_command())
            await running.events.wait_until(returned)
            await running.shut_down()
            (stopped,) = running.events.matching(ProcessStopped)
            assert stopped.clean
        async with (
            engine_stub(broker_url) as engine,
            running_service(broker_url, PaymentsParticipant()),
        ):
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
