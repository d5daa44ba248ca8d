"""Messages that an engine dead-letters."""

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.publisher import Publisher
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.topology import REQUESTS
from saga_engine.telemetry.events import MessageDeadLettered
from saga_engine.vocabulary import ConnectionRole


async def publish_malformed(engine, *bodies, exchange=REQUESTS, key="start"):
    """Publish malformed messages and wait until they are dead-lettered."""
    url, settings = engine.settings.require_broker_url(), engine.settings
    messages = [
        Message(
            exchange=exchange,
            routing_key=key,
            body=body,
            message_id=f"m-{number}",
            type=key,
            correlation_id="c-1",
        )
        for number, body in enumerate(bodies)
    ]
    async with SupervisedConnection(
        url, role=ConnectionRole.PUBLISH, settings=settings
    ) as connection:
        outcomes = await Publisher(connection).publish(messages)
    assert outcomes == [PublishOutcome.CONFIRMED] * len(bodies)
    await engine.events.wait_for_next(MessageDeadLettered, len(bodies))
