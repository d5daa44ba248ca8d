"""
A hook that decides what happens to each message published to the development broker.

    def lose_replies(publish: PublishAttempt) -> None:
        if publish.message.exchange != "saga.replies":
            publish.route()
        publish.confirm()

    DevelopmentBroker(interceptor=lose_replies)

The broker calls the interceptor once for each message, after it has read and checked the message.
The interceptor may call the methods of the attempt in any order, any number of times and at any
later time. An interceptor that calls none of them drops the message and leaves the publisher
without a confirm. The default, `deliver`, does what RabbitMQ does.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from saga_engine.embedded.broker.message import PublishedMessage


class PublishAttempt(Protocol):
    """One published message, and what the broker can do with it."""

    @property
    def message(self) -> PublishedMessage:
        """The message."""

    def route(self) -> None:
        """Add it to the queues bound for it; return it if it is mandatory and there are none."""

    def confirm(self) -> None:
        """Send basic.ack, or basic.nack when a full queue rejected the message."""

    def nack(self) -> None:
        """Send basic.nack."""

    def abort_connection(self) -> None:
        """Close the publisher's socket without a close handshake."""


PublishInterceptor: TypeAlias = Callable[[PublishAttempt], None]


def deliver(publish: PublishAttempt) -> None:
    """Route the message, then confirm it."""
    publish.route()
    publish.confirm()
