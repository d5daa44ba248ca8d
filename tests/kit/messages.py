"""Messages and deliveries for tests."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

from saga_engine.protocol.message import Delivery, Message, PublishOutcome

C, R, X, U = (
    PublishOutcome.CONFIRMED,
    PublishOutcome.UNROUTABLE,
    PublishOutcome.UNPUBLISHABLE,
    PublishOutcome.UNKNOWN,
)
"""The outcomes of a batch, in short."""

POISON: dict[str, Any] = {"headers": {"h": "v" * 20_000}}
"""What makes a message unpublishable."""

_DELIVERY = Delivery(
    queue="saga.replies",
    generation=1,
    delivery_tag=1,
    body=b"{}",
    body_size=2,
    exchange="saga.replies",
    routing_key="saga.replies",
    redelivered=False,
    message_id="m-1",
    correlation_id="",
    reply_to="",
    type="",
    content_type="application/json",
    content_encoding="",
    user_id="",
    app_id="",
    timestamp=None,
    headers={},
)


def make_delivery(**changes):
    """A delivery with some fields changed; its size is that of its body."""
    if "body" in changes:
        changes.setdefault("body_size", len(changes["body"]))
    return replace(_DELIVERY, **changes)


def deliver(message: Message, **changes):
    """A message as it would arrive."""
    return make_delivery(
        exchange=message.exchange,
        routing_key=message.routing_key,
        body=message.body,
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        type=message.type,
        headers=dict(message.headers),
        **changes,
    )


def make_message(routing_key: str, body: bytes = b"{}", exchange: str = "saga.commands", **fields):
    """A message with a fresh id."""
    return Message(
        exchange=exchange,
        routing_key=routing_key,
        body=body,
        message_id=fields.pop("message_id", uuid4().hex),
        **fields,
    )


def numbered_messages(count):
    """Messages whose bodies are the numbers from 0."""
    return [make_message("tests.one", str(number).encode()) for number in range(count)]


def numbers_of(deliveries):
    """The numbers of the deliveries of `numbered_messages`, in ascending order."""
    return sorted(int(delivery.body) for delivery in deliveries)
